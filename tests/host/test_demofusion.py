"""Euler through the nodes' parts equals the plain loop of the paper, over three stages."""

from __future__ import annotations

import random

import comfy.samplers
import pytest
import torch

from hires_fusion.fusion_ops import windows
from hires_fusion.fusion_ops.filters import match_statistics
from hires_fusion.fusion_ops.upsample import resize
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews
from hires_fusion.sampling.steps import Transform, between_steps
from hires_fusion.sampling.transforms import skip_residual
from lab.reference.demofusion import demofusion

from .stub import cond, patcher, sample

WINDOW, STRIDE, STEPS, SEED = 16, 8, 6, 3
PUBLISHED = {"border": "zero", "weights": "uniform"}


def textured(x, sigma, conds):
    """Not linear, and different from cell to cell of a view: a wrong view shows."""
    height, width = x.shape[-2:]
    wave = torch.sin(torch.arange(height)[:, None] * 0.9 + torch.arange(width) * 0.5)
    return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1)) + 0.5 * wave) * 1.5 + 0.2


def with_skip_residual(name="euler", scale=3.0):
    return between_steps(comfy.samplers.sampler_object(name), skip_residual(scale))


def noise_for(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("native", [(16, 16), (16, 13)])
def test_three_stages_equal_the_plain_loop(native):
    """As published: jitter over the edge, where there are zeros, and a plain mean."""
    model = patcher(textured)
    first = noise_for((1, 4, *native), 0) * 0.7 + 0.1
    scale_factor = model.model.latent_format.scale_factor
    scales = [2, 3, 4]
    sizes = [tuple(side * s for side in native) for s in scales]
    noises = [noise_for((1, 4, *size), SEED + i) for i, size in enumerate(sizes)]

    ours, latent = [], first / scale_factor
    for index, (size, noise) in enumerate(zip(sizes, noises, strict=True)):
        viewed = add_views(model, local=LocalViews(WINDOW, STRIDE, **PUBLISHED))
        viewed = add_views(viewed, dilated=DilatedViews(scales[index]))
        out = sample(
            viewed,
            resize(latent, size),
            sampler=with_skip_residual(),
            steps=STEPS,
            seed=SEED + index,
            cfg=1.0,
            noise=noise,
        )
        latent = match_statistics(out, first / scale_factor)
        ours.append(latent * scale_factor)

    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", STEPS)
    times = [float(sampling.timestep(s)) / 1000 for s in sigmas[:-1]]

    def shifts(index):
        def draw(sigma):
            rng = random.Random(f"{SEED + index}/{sigma:.3e}")
            places = windows.windows(sizes[index], WINDOW, STRIDE, rng, PUBLISHED["border"])
            still = windows.windows(sizes[index], WINDOW, STRIDE)
            return [(a.top - b.top, a.left - b.left) for a, b in zip(places, still, strict=True)]

        return draw

    reference = demofusion(
        first,
        noises,
        scales,
        [float(s) for s in sigmas],
        times,
        lambda x, sigma: textured(x, torch.full((x.shape[0],), sigma), {}),
        [shifts(i) for i in range(len(scales))],
        window=WINDOW,
        stride=STRIDE,
    )
    for mine, theirs in zip(ours, reference, strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm()


def test_a_skip_residual_that_never_lets_go_follows_the_reference():
    latent = noise_for((1, 4, 16, 16), 1)
    seen = []

    def record(x, sigma, conds):
        seen.append((x.clone(), float(sigma[0])))
        return torch.zeros_like(x)

    model = patcher(record)
    noise = noise_for(latent.shape, 7)
    sample(model, latent, sampler=with_skip_residual(scale=0.0), cfg=1.0)
    scaled = latent * model.model.latent_format.scale_factor
    for x, sigma in seen:  # with an exponent of 0 every step starts at the reference itself
        assert torch.allclose(x, scaled + sigma * noise, atol=1e-5)


def test_transforms_add_up():
    order = []

    def note(label, after=False):
        return Transform(lambda run: lambda x, step: order.append((step, label)) or x, after)

    sampler = comfy.samplers.sampler_object("euler")
    for transform in (note("a"), note("end", after=True), note("b")):
        sampler = between_steps(sampler, transform)
    sample(patcher(textured), noise_for((1, 4, 8, 8), 1), sampler=sampler, steps=2)
    first, second = [(0, "a"), (0, "b"), (0, "end")], [(1, "a"), (1, "b"), (1, "end")]
    assert order == first + second


def test_nothing_to_follow_is_refused():
    with pytest.raises(ValueError, match="upsampled picture"):
        sample(patcher(textured), torch.zeros(1, 4, 8, 8), sampler=with_skip_residual())
    latent = noise_for((1, 4, 8, 8), 1)
    with pytest.raises(ValueError, match="RandomNoise"):
        sample(patcher(textured), latent, sampler=with_skip_residual(), noise=latent * 0)


def test_skip_residual_respects_a_denoise_mask():
    latent, mask = noise_for((1, 4, 16, 16), 1), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    out = sample(
        patcher(textured), latent, sampler=with_skip_residual(), positive=cond(), denoise_mask=mask
    )
    assert torch.allclose(out[..., 8:], latent[..., 8:], atol=1e-4)
    assert not torch.allclose(out[..., :8], latent[..., :8], atol=1e-2)


def test_gpu_variants_of_samplers_are_the_same_samplers():
    latent = noise_for((1, 4, 8, 8), 1)
    out = sample(patcher(textured), latent, sampler=with_skip_residual("dpmpp_2m_sde_gpu"))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("kind", ["FLOW", "V_PREDICTION", "EDM"])
def test_skip_residual_and_views_on_other_kinds_of_model(kind):
    model = patcher(textured, kind=kind)
    latent = noise_for((1, 4, 32, 24), 1)
    viewed = add_views(add_views(model, local=LocalViews()), dilated=DilatedViews())
    out = sample(viewed, latent, sampler=with_skip_residual(), scheduler="simple")
    again = sample(viewed, latent, sampler=with_skip_residual(), scheduler="simple")
    assert torch.isfinite(out).all() and torch.equal(out, again)
