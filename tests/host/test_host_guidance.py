"""Guidance and patches of the host's own nodes, with views: on the fused canvas, within each view,
or refused."""

from __future__ import annotations

import importlib

import pytest
import torch

from . import families
from .stub import patcher, sample
from .test_patches import mild, refused, viewed

SD = families.FAMILIES["SD 1.5"]


def run_node(module, node, *args, **kwargs):
    """The first output of a core node, whichever kind of class it is."""
    kind = getattr(importlib.import_module(f"comfy_extras.{module}"), node)
    made = kind.execute if hasattr(kind, "execute") else getattr(kind(), kind.FUNCTION)
    found = made(*args, **kwargs)
    return getattr(found, "args", found)[0]


# Guidance of the host


def test_self_attention_guidance_is_refused():
    model = run_node("nodes_sag", "SelfAttentionGuidance", families.tiny(SD), 0.5, 2.0)
    refused(model, "leave it out, or use Perturbed-Attention", positive=families.cond(SD, 2))


ON_THE_CANVAS = {
    "RescaleCFG": ("nodes_model_advanced", 0.7),
    "TCFG": ("nodes_tcfg",),
    "Mahiro": ("nodes_mahiro",),
    "APG": ("nodes_apg", 1.0, 15.0, 0.0),
    "FreSca": ("nodes_fresca", 1.0, 1.25, 4),
    "CFGZeroStar": ("nodes_cfg",),
    "CFGNorm": ("nodes_cfg", 1.0),
}


@pytest.mark.parametrize("name", ON_THE_CANVAS)
def test_guidance_of_the_host_acts_on_the_fused_canvas(name):
    """Of a denoiser that looks at single cells, views make what the plain host makes: so does
    whatever guidance there is, if it is given the whole canvas."""
    module, *settings = ON_THE_CANVAS[name]
    plain = patcher(mild)
    guided = run_node(module, name, plain, *settings)
    empty = torch.zeros(1, 4, 32, 32)
    right = sample(guided, empty, steps=2)
    assert not torch.allclose(right, sample(plain, empty, steps=2), rtol=1e-3, atol=1e-3)
    for most in (1, 0):
        got = sample(viewed(guided, view_batch_size=most), empty, steps=2)
        assert (got - right).abs().max() <= 1e-4 * right.abs().max()


WITHIN_VIEWS = {
    "PerturbedAttentionGuidance": ("nodes_pag", 3.0),
    "HyperTile": ("nodes_hypertile", 64, 2, 0, False),
    "PatchModelAddDownscale": (
        *("nodes_model_downscale", 1, 2.0, 0.0, 0.9, True, "bicubic", "bicubic"),
    ),
}


@pytest.mark.parametrize("name", WITHIN_VIEWS)
def test_patches_of_the_host_do_not_see_how_many_views_a_call_has(name):
    module, *settings = WITHIN_VIEWS[name]
    plain = families.tiny(SD)
    model = run_node(module, name, plain, *settings)
    prompts = {"positive": families.cond(SD, 2), "negative": families.cond(SD, 3)}
    x = families.latent(SD, 16, 24)
    settings = {"steps": 1, "scheduler": "simple", **prompts}
    many, few = (sample(viewed(model, view_batch_size=n), x, **settings) for n in (0, 1))
    assert (many - few).abs().max() <= 1e-3 * many.abs().max()
    if name != "HyperTile":  # whose tiles are larger than the small network's attention
        assert not torch.allclose(many, sample(viewed(plain), x, **settings), atol=1e-4)
