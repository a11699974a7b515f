"""What a noise mask keeps stays between steps and through every preset."""

from __future__ import annotations

import comfy.samplers
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

from hires_fusion.fusion_ops.guidance import DECAYS, Guidance
from hires_fusion.fusion_ops.stages import PRESETS
from hires_fusion.nodes.progressive import expand_stages
from hires_fusion.sampling import lift
from hires_fusion.sampling.steps import Transform, between_steps
from hires_fusion.sampling.transforms import attentive_guidance, skip_residual

from . import families
from .attending import SD
from .families import tiny
from .graphs import run_here
from .masked import LEFT, H, PoolingVAE, W, each_its_own, left_kept, randn, textured
from .stub import cond, patcher, sample


def moving(after):
    return Transform(lambda run: lambda x, step: x + 0.1 * (1 + step), after)


def guided(decay):
    return attentive_guidance(
        Guidance(0.2, "all", 0, 0, decay, 0.0, 3.0 if decay != "exp" else 0.5)
    )


CHANGES = {
    "start": moving(False),
    "end": moving(True),
    "skip residual": skip_residual(3.0),
    "skip residual to the end": skip_residual(0.0),
    **{f"guidance, {decay}": guided(decay) for decay in DECAYS},
}


@pytest.mark.parametrize("last", ["to zero", "with noise left"])
@pytest.mark.parametrize("change", CHANGES)
def test_between_steps_nothing_moves_that_the_sampler_keeps(change, last):
    mask = each_its_own()
    x = 7 * randn(2, 4, H, W)
    sigmas = torch.tensor([3.0, 1.5, 0.7, 0.0 if last == "to zero" else 0.3])
    options = {"denoise_mask": mask, "sigmas": sigmas}
    plain = sample(patcher(textured), x, **options)
    sampler = between_steps(comfy.samplers.sampler_object("euler"), CHANGES[change])
    ours = sample(patcher(textured), x, sampler=sampler, **options)
    kept = (mask == 0).expand_as(x)
    assert torch.equal(ours[kept], plain[kept])
    assert not torch.allclose(ours[~kept], plain[~kept], atol=1e-3)


def test_a_soft_mask_takes_its_share_of_a_change_between_steps():
    mask = left_kept((1, 1, H, W))
    x = randn(1, 4, H, W)
    model = patcher(lambda x, sigma, conds: torch.zeros_like(x))
    sigmas = torch.tensor([2.0, 1.0])
    options = {"denoise_mask": mask, "sigmas": sigmas}
    plain = sample(model, x, **options)
    factor = model.model.latent_format.scale_factor
    for after in (False, True):
        sampler = between_steps(comfy.samplers.sampler_object("euler"), moving(after))
        moved = (sample(model, x, sampler=sampler, **options) - plain) * factor
        # A change before the step of a denoiser that sees nothing in it halves with the noise.
        by = 0.1 if after else 0.05
        assert torch.allclose(moved, (by * mask).expand_as(x), atol=1e-5)


def test_a_mask_that_opens_during_the_run_is_asked_at_every_step():
    mask = torch.full((1, 1, H, W), 0.5)
    mask[..., :LEFT] = 0.0
    model = patcher(textured)
    model = DifferentialDiffusion.execute(model).result[0]
    seen = []

    def begin(run):
        def change(x, step):
            seen.append(float(run.mask(step)[..., -1].mean()))
            return x + 0.1

        return change

    sampler = between_steps(comfy.samplers.sampler_object("euler"), Transform(begin, after=True))
    x = randn(1, 4, H, W)
    options = {"denoise_mask": mask, "steps": 6, "scheduler": "simple"}
    out = sample(model, x, sampler=sampler, **options)
    plain = sample(model, x, **options)
    assert seen[0] == 0 and seen[-1] == 1 and seen == sorted(seen)
    assert torch.equal(out[..., :LEFT], plain[..., :LEFT])


MASKS = {
    "cells": left_kept((1, 1, 16, 24)).round(),
    "pixels": left_kept((1, 1, 128, 192), 8).round(),
    "each its own": each_its_own(),
    "soft": left_kept((1, 1, 16, 24)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_keeps_the_lifted_picture(preset, mask):
    shape = (2 if mask == "each its own" else 1, 4, H, W)
    native = {"samples": 2 * randn(*shape), "noise_mask": MASKS[mask]}
    model, prompts = patcher(textured, native_size=16 * 8), (cond(), cond(-1.0))
    if any(row.windowed_attention for row in PRESETS[preset].rows):  # it acts in a network alone
        model, prompts = tiny(SD), (families.cond(SD, 2), families.cond(SD, 3))
    names = ("model", "positive", "negative", "samples", "vae")
    settings = {"noise_seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler"}
    given = dict(zip(names, (model, *prompts, native, PoolingVAE()), strict=True))
    node = expand_stages(
        {name: [name, 0] for name in names},
        scale=4.0,
        preset=preset,
        scheduler="simple",
        **settings,
        **{k: v for k, v in given.items() if k in ("model", "samples", "vae")},
        **{k: given[k] for k in ("positive", "negative")},
    )
    done = run_here(node.expand, given)
    lifted, drawn = native, native
    for name, (out, *_) in done.items():
        if name.endswith("UpsampleLatent"):
            drawn = out
            size = out["samples"].shape[-2:]
            inputs = node.expand[name]["inputs"]
            how = lift.Lift(**{f: inputs[f] for f in lift.Lift.__annotations__ if f in inputs})
            lifted = lift.upsample(lifted, size, how, PoolingVAE())
        if name.endswith(("SamplerCustomAdvanced", "MatchStatistics")):
            wide = comfy.utils.reshape_mask(out["noise_mask"], out["samples"].shape)
            kept = wide == 0
            assert torch.allclose(out["samples"][kept], drawn["samples"][kept], atol=1e-5)
            assert not torch.allclose(out["samples"], drawn["samples"], atol=1e-2)
    final = done[node.result[0][0]][0]["samples"]
    # Lifts mix what is kept with what lies beside it; further inside it is the lifted picture.
    far = torch.nn.functional.avg_pool2d(wide[:, :1], 25, 1, 12) == 0
    assert far.any() and (wide == 0).float().mean() > 0.4
    far = far.expand_as(final)
    assert torch.allclose(final[far], lifted["samples"][far], atol=1e-4)
