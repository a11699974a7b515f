"""Progressive Upscale on small models of the host's own classes: every preset, every piece."""

from __future__ import annotations

import json
from functools import lru_cache

import comfy.model_management
import pytest
import torch
import torch.nn.functional as F

from hires_fusion.fusion_ops.presets import PRESETS
from hires_fusion.sampling.attention import WindowedAttention, add_windowed_attention
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews, UpsampleViews
from hires_fusion.sampling.prediction import (
    frequency_guidance,
    guidance_interval,
    structure_guidance,
)
from hires_fusion.sampling.span import WHOLE

from .expansion import expand
from .families import FAMILIES, cond, latent, tiny
from .graphs import run_here
from .stub import sample

NAMES = ("SD 1.5", "SDXL", "SD 3", "Flux", "Flux 2", "Z-Image", "Qwen-Image", "Wan 2.1")
NOT_WINDOWED = ("Wan 2.1",)  # networks that windowed attention doesn't know

# A stage's fields by the piece that they switch on, over a plain stage.
PLAIN = {"scale": 2, "start": 0.5, "steps": 4}
PIECES = {
    "windowed attention": {"windowed_attention": True},
    "structure guidance": {"structure": 1.0},
    "upsample guidance": {"upsample": 1.0, "upsample_end": 1.0},
    "frequency guidance": {"cfg_high": 6.0},
    "interval": {"cfg_end": 0.6},
    "shifted windows": {"tiled": True, "grid": "shifted"},
    "sharp pixels": {"lift": "pixel lanczos", "unsharp": 1.0, "lfm": 0.25},
    "noise level": {"sigma": 0.4, "gamma": 1.0, "end_sigma": 0.1},
    "found noise": {"fresh_noise": 0.1},
    "added noise": {"added_noise": 0.1},
}


class Vae:
    """Cells of any side and number of channels as pixels, and back, video where it is given;
    counts its calls."""

    def __init__(self, family):
        self.cell, self.latent_channels = family.cell, family.channels
        self.frames = family.frames
        self.calls = []

    def spacial_compression_decode(self):
        return self.cell

    def decode(self, samples):
        self.calls.append("decode")
        pixels = samples[:, :3].repeat_interleave(self.cell, -1).repeat_interleave(self.cell, -2)
        return pixels.mul(0.1).add(0.5).clamp(0, 1).movedim(1, -1)

    def encode(self, pixels):
        self.calls.append("encode")
        cells = (F.avg_pool2d(pixels.movedim(-1, 1), self.cell) - 0.5) * 10
        wide = cells.repeat(1, -(-self.latent_channels // 3), 1, 1)[:, : self.latent_channels]
        return wide.unsqueeze(2) if self.frames else wide


@lru_cache(maxsize=1)
def model_of(name):
    return tiny(FAMILIES[name])


def native(family):
    """A smooth picture of native size, as finished ones are."""
    small = latent(family, 4, 3)
    frames = small.flatten(0, 1) if small.ndim == 4 else small[:, :, 0].flatten(0, 1)
    wide = F.interpolate(frames[None], size=(family.cells, family.cells - 4), mode="bicubic")
    return wide.reshape(*small.shape[:-2], *wide.shape[-2:])


def drawn(name, preset="DemoFusion", row=None, **changes):
    """The last latent of an expansion that is run."""
    family, model = FAMILIES[name], model_of(name)
    given = {
        "model": model,
        "positive": cond(family, 2),
        "negative": cond(family, 3),
        "vae": Vae(family),
        "samples": {"samples": native(family)},
    }
    settings = {"steps": 4, "cfg": 3.0} | changes
    if row is not None:
        off = dict.fromkeys(("tiled", "dilated", "skip_residual", "match"), False)
        known = {k: v for k, v in PLAIN.items() if not (k == "start" and "sigma" in row)}
        settings["stages"] = json.dumps([off | known | row])
    asked = {name: given[name] for name in ("model", "positive", "negative", "vae")}
    nodes = expand(samples=native(family), preset=preset, **asked, **settings)
    graph = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}
    done = run_here(graph, given)
    (last,) = (key for key, (kind, _) in nodes.items() if kind == "HRF_StageList")
    return done[last][0][-1]["samples"]


@lru_cache(maxsize=1)
def plain(name):
    return drawn(name, row={})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_draws_what_is_asked_and_again_the_same(name, preset):
    family = FAMILIES[name]
    windowed = any(row.windowed_attention for row in PRESETS[preset].rows)
    if windowed and name in NOT_WINDOWED:
        with pytest.raises(ValueError, match=r"stage 1: windowed attention .* choose a preset"):
            drawn(name, preset)
        return
    steps = 2 if any(row.tiled and row.sigma is None for row in PRESETS[preset].rows) else 4
    out = drawn(name, preset, steps=steps)
    channels = latent(family, 2, 2).shape[:-2]
    assert out.shape == (*channels, 2 * family.cells, 2 * (family.cells - 4))
    assert out.isfinite().all() and out.std() > 0
    assert torch.equal(out, drawn(name, preset, steps=steps))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_acts_and_again_the_same(name, piece):
    row = PIECES[piece]
    if piece == "windowed attention" and name in NOT_WINDOWED:
        with pytest.raises(ValueError, match="list stages without it"):
            drawn(name, row=row)
        return
    out = drawn(name, row=row)
    assert out.shape == plain(name).shape and out.isfinite().all()
    assert not torch.equal(out, plain(name))
    assert torch.equal(out, drawn(name, row=row))


@pytest.mark.parametrize("name", NAMES)
def test_pieces_without_effect_are_plain_sampling_to_the_bit(name):
    """Weights of 0, an interval that is all, and windows as large as the picture."""
    family, model = FAMILIES[name], model_of(name)
    x = native(family)
    held = structure_guidance(model, {"samples": x}, 0.0)
    held = guidance_interval(frequency_guidance(held, -1.0, -1.0), WHOLE)
    held = add_views(held, local=LocalViews(grid="shifted"), upsample=UpsampleViews(weight=1.0))
    if name not in NOT_WINDOWED:
        held = add_windowed_attention(held, WindowedAttention())
    prompts = {"positive": cond(family, 2), "negative": cond(family, 3)}
    options = {"steps": 3, "scheduler": "simple", **prompts}
    assert torch.equal(sample(model, x, **options), sample(held, x, **options))
    lifted = drawn(name, row={"scale": 1, "lift": "none"})
    assert torch.equal(lifted, drawn(name, row={"scale": 1, "lift": "latent bicubic"}))


@pytest.mark.parametrize("name", NAMES)
def test_cancel_in_mid_run_leaves_the_model_as_it_was(name):
    row = PIECES["structure guidance"] | PIECES["upsample guidance"] | PIECES["shifted windows"]
    if name not in NOT_WINDOWED:
        row |= PIECES["windowed attention"]
    model, before = model_of(name), drawn(name, row=row)
    calls = []

    def interrupt(network, args):
        calls.append(network)
        if len(calls) == 4:
            comfy.model_management.interrupt_current_processing()

    hook = model.model.diffusion_model.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            drawn(name, row=row)
    finally:
        hook.remove()
    assert len(calls) == 4
    assert torch.equal(before, drawn(name, row=row))


def test_frames_are_lifted_as_latents_alone():
    family = FAMILIES["Wan 2.1"]
    frames = native(family).repeat(1, 1, 2, 1, 1)
    known = {"positive": cond(family, 2), "negative": cond(family, 3), "vae": Vae(family)}
    with pytest.raises(ValueError, match="stage 1: pixel upsampling takes pictures, not video"):
        expand(model_of("Wan 2.1"), frames, preset="RepLDM", **known)
    assert expand(model_of("Wan 2.1"), frames, preset="DemoFusion", **known)
