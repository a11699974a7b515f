"""Attentive guidance, the pixel-space stages, the VAE's limits: against a plain loop."""

from __future__ import annotations

import math

import comfy.model_management
import comfy.samplers
import pytest
import torch

from hires_fusion.demo.loader import load_demo_model
from hires_fusion.fusion_ops.guidance import Guidance
from hires_fusion.nodes.attentive_guidance import AttentiveGuidance
from hires_fusion.nodes.schedule import InitRateSigmas, NativeLatent
from hires_fusion.sampling import lift
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews
from hires_fusion.sampling.steps import between_steps
from hires_fusion.sampling.transforms import attentive_guidance, skip_residual
from hires_fusion.sampling.vae import limited
from lab.reference.flow import FlowOfEps
from lab.reference.repldm import pfsa, repldm

from .stub import patcher, sample

STEPS = 20


@pytest.fixture(scope="module")
def vae():
    with torch.inference_mode():
        return load_demo_model()[2]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def textured(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    wave = torch.linspace(0, 6, x.shape[-1]).sin()
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1)) + 0.3 * wave)


def smooth(x, sigma, conds):
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1) / (1 + sigma.view(-1, 1, 1, 1))


def guided(scale=0.004, name="euler", **settings):
    sampler = comfy.samplers.sampler_object(name)
    return between_steps(sampler, attentive_guidance(Guidance(scale, **settings)))


def sigmas_of(model, steps=STEPS):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)


@pytest.mark.parametrize("match", [True, False])
def test_both_stages_equal_the_plain_loop(vae, match):
    model = patcher(textured)
    factor = model.model.latent_format.scale_factor
    noises = [randn(1, 4, *size, seed=i) for i, size in enumerate([(16, 12), (24, 18), (32, 24)])]
    rates = [0.9, 0.8]
    node = AttentiveGuidance.execute(
        comfy.samplers.sampler_object("euler"), 0.004, 3, 0, "cosine", 3.0
    )
    empty = torch.zeros(1, 4, 16, 12)
    ours = [sample(model, empty, sampler=node.args[0], steps=STEPS, cfg=1.0, noise=noises[0])]
    for noise, rate in zip(noises[1:], rates, strict=True):
        latent = {"samples": ours[-1]}
        lifted = lift.upsample(latent, noise.shape[-2:], "pixel bicubic", vae)
        sigmas = InitRateSigmas.execute(model, rate, STEPS, "ddim_uniform").args[0]
        out = sample(model, lifted["samples"], sigmas=sigmas, cfg=1.0, noise=noise)
        if match:
            out = lift.match_statistics({"samples": out}, {"samples": ours[0]})["samples"]
        ours.append(out)

    sigmas = [float(s) for s in sigmas_of(model)]
    wave = [(1 + math.cos(math.pi * k / (STEPS - 4))) / 2 for k in range(STEPS - 3)]
    theirs = repldm(
        noises[0] * sigmas[0],  # ddim_uniform does not start at the largest sigma
        [0.0] * 3 + [0.004 * w**3 for w in wave],
        sigmas,
        [
            ((24 * 8, 18 * 8), 0.9, noises[1]),
            ((32 * 8, 24 * 8), 0.8, noises[2]),
        ],
        lambda x, sigma: textured(x, torch.full((x.shape[0],), sigma), {}),
        lambda z: vae.decode(z / factor).movedim(-1, 1) * 2 - 1,
        lambda image: vae.encode((image.movedim(1, -1) + 1) / 2) * factor,
        match,
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine * factor - other).norm() <= 1e-4 * other.norm()


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_no_scale_is_the_identity(kind):
    model, empty = patcher(textured, kind=kind), torch.zeros(2, 4, 9, 7)
    plain = sample(model, empty, scheduler="simple")
    assert torch.equal(plain, sample(model, empty, scheduler="simple", sampler=guided(0.0)))
    late = guided(0.1, skip_first=4)
    assert torch.equal(plain, sample(model, empty, scheduler="simple", sampler=late))


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "heun", "euler_ancestral", "dpmpp_sde"])
@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (1, 4, 8, 8)])
def test_guidance_on_any_sampler_is_the_same_twice(name, shape):
    model, empty = patcher(textured), torch.zeros(shape)
    one, two = (sample(model, empty, sampler=guided(0.05, name)) for _ in range(2))
    assert torch.equal(one, two) and torch.isfinite(one).all()
    assert not torch.equal(one, sample(model, empty, sampler=name))


def test_guidance_acts_on_what_the_step_made():
    model, x = patcher(textured), randn(1, 4, 8, 8)
    last = torch.tensor([0.5, 0.0])  # one step, so that its result is the run's
    plain = sample(model, x, sigmas=last, cfg=1.0)
    ours = sample(model, x, sigmas=last, cfg=1.0, sampler=guided(0.3))
    factor = model.model.latent_format.scale_factor
    made = plain * factor
    assert torch.allclose(ours * factor, made + 0.3 * (pfsa(made) - made), atol=1e-5)


def test_a_batch_is_guided_one_by_one():
    model, empty = patcher(textured), torch.zeros(2, 4, 8, 8)
    noise = randn(2, 4, 8, 8)
    both = sample(model, empty, sampler=guided(0.1), noise=noise)
    alone = sample(model, empty[:1], sampler=guided(0.1), noise=noise[1:])
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_guidance_and_skip_residual_go_together_in_any_order():
    model, latent = patcher(textured), randn(1, 4, 8, 8)
    euler = comfy.samplers.sampler_object("euler")
    parts = [attentive_guidance(Guidance(0.1)), skip_residual(2.0)]
    one, two = (
        sample(model, latent, sampler=between_steps(between_steps(euler, a), b))
        for a, b in (parts, parts[::-1])
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, sample(model, latent, sampler=between_steps(euler, parts[1])))


def test_a_density_that_does_not_fit_stops_before_the_model_runs():
    model = patcher(textured)
    with pytest.raises(ValueError, match="don't divide the 4 steps"):
        sample(model, torch.zeros(1, 4, 8, 8), sampler=guided(0.1, density="0, 1, 1"))
    assert not model.model.calls


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_calibration_and_filter_run_on_every_kind(mode, kind):
    plan = Guidance(0.05, filter="cosine", filter_start=0.3)
    euler = comfy.samplers.sampler_object("euler")
    sampler = between_steps(euler, attentive_guidance(plan, power_calibrate=mode))
    model = patcher(textured, kind=kind)
    out = sample(model, torch.zeros(1, 4, 9, 8), sampler=sampler, scheduler="simple")
    assert torch.isfinite(out).all()


def test_init_rates_are_the_end_of_the_published_schedule():
    model = patcher(textured)
    sampling = model.get_model_object("model_sampling")
    for rate, times in ((0.8, range(181, 0, -20)), (0.9, range(81, 0, -20))):
        sigmas = InitRateSigmas.execute(model, rate, 50, "ddim_uniform").args[0]
        assert [round(float(sampling.timestep(s))) for s in sigmas[:-1]] == list(times)
        assert sigmas[-1] == 0
    # Where the steps don't divide 1000, ComfyUI's ddim_uniform has a step that is not published.
    for steps, rate, count, start in (
        (30, 0.8, 6, 166),
        (15, 0.8, 3, 133),
        (12, 0.3, 9, 665),
        (60, 0.8, 12, 177),
        (30, 0.0, 30, 958),
    ):
        sigmas = InitRateSigmas.execute(model, rate, steps, "ddim_uniform").args[0]
        assert len(sigmas) == count + 1
        times = [round(float(sampling.timestep(s))) for s in sigmas[:-1]]
        assert times == [start - k * (1000 // steps) for k in range(count)] and times[-1] == 1
    assert torch.equal(
        InitRateSigmas.execute(model, 0.0, 50, "simple").args[0],
        comfy.samplers.calculate_sigmas(sampling, "simple", 50),
    )


@pytest.mark.parametrize(
    ("width", "height", "cells"),
    [(4096, 4096, (128, 128)), (3072, 2048, (104, 156)), (1024, 4096, (256, 64))],
)
def test_native_latents_have_the_native_area(width, height, cells):
    latent, scale = NativeLatent.execute(patcher(textured, native_size=1024), width, height, 2).args
    assert latent["samples"].shape == (2, 4, *cells)
    assert not latent["samples"].any()
    assert scale == pytest.approx(max(width, height) / (max(cells) * 8))


def test_a_final_size_that_is_not_larger_is_refused():
    with pytest.raises(ValueError, match="ask for a larger picture"):
        NativeLatent.execute(patcher(textured, native_size=1024), 1024, 1024, 1)


def limits(**changes):
    return {
        "multi_encoder": True,
        "multi_decoder": True,
        "encoder_limit_area": 100 * 100,
        "decoder_limit_area": 100 * 100,
        "tile_size": 64,
    } | changes


def test_a_vae_tiles_only_above_its_limits(vae, monkeypatch):
    tiled = []
    for name in ("encode_tiled", "decode_tiled"):
        method = getattr(vae, name)
        monkeypatch.setattr(
            vae, name, lambda *a, _m=method, _n=name, **k: tiled.append(_n) or _m(*a, **k)
        )
    small, large = randn(1, 4, 12, 12), randn(1, 4, 13, 13)
    ours = limited(vae, **limits())
    assert torch.equal(ours.decode(small), vae.decode(small)) and not tiled
    image = ours.decode(large)
    assert tiled == ["decode_tiled"] and image.shape == (1, 104, 104, 3)
    inner = (slice(None), slice(40, 60), slice(40, 60))
    assert torch.allclose(image[inner], vae.decode(large)[inner], atol=0.1)
    assert ours.encode(image).shape == large.shape and tiled[1:] == ["encode_tiled"]
    never = limited(vae, **limits(multi_encoder=False, multi_decoder=False))
    assert torch.equal(never.decode(large), vae.decode(large)) and len(tiled) == 2
    never.encode(image)
    assert len(tiled) == 2
    assert vae.decode.__name__ == "decode" and "decode" not in vars(vae)


def test_models_leave_memory_before_the_vae_works(vae, monkeypatch):
    model = patcher(textured)
    comfy.model_management.load_models_gpu([model])
    loaded = comfy.model_management.loaded_models
    assert model in loaded()
    monkeypatch.setattr(comfy.model_management, "DISABLE_SMART_MEMORY", True)
    limited(vae, **limits()).decode(randn(1, 4, 8, 8))
    assert model in loaded()
    limited(vae, **limits(models_to_cpu=True)).decode(randn(1, 4, 8, 8))
    assert model not in loaded()


def test_a_pixel_lift_goes_through_a_limited_vae(vae):
    latent = {"samples": randn(1, 4, 12, 10) * 5}
    plain = lift.upsample(latent, (24, 20), "pixel bicubic", vae)["samples"]
    tiles = lift.upsample(latent, (24, 20), "pixel bicubic", limited(vae, **limits()))["samples"]
    assert tiles.shape == plain.shape == (1, 4, 24, 20)
    assert (tiles - plain).norm() < 0.3 * plain.norm()


def test_a_whole_picture_stage_also_runs_through_windows():
    model = patcher(smooth)
    windows = add_views(model, local=LocalViews(16, 8))
    latent = randn(1, 4, 32, 24)
    sigmas = InitRateSigmas.execute(model, 0.8, 20, "ddim_uniform").args[0]
    whole = sample(model, latent, sigmas=sigmas)
    largest = [max(call.shape[-2:]) for call in model.model.calls]
    model.model.calls.clear()
    tiled = sample(windows, latent, sigmas=sigmas)
    assert max(largest) == 32 and max(max(c.shape[-2:]) for c in model.model.calls) == 16
    assert (tiled - whole).norm() < 0.3 * whole.norm()


def test_the_same_scale_does_the_same_to_a_flow_model():
    def denoiser(x, sigma, conds):
        return textured(x, sigma, conds)

    discrete = patcher(denoiser)
    flow = patcher(lambda x, s, conds: denoiser(x / (1 - reshaped(s)), s / (1 - s), conds))
    flow.add_object_patch("model_sampling", FlowOfEps(discrete.model.model_sampling))
    sigmas, noise = sigmas_of(discrete, 8), randn(1, 4, 8, 8)
    empty = torch.zeros_like(noise)
    runs = [
        sample(model, empty, sampler=guided(scale), sigmas=s, noise=noise, cfg=1.0)
        for scale in (0.0, 0.05)
        for model, s in ((discrete, sigmas), (flow, sigmas / (1 + sigmas)))
    ]
    assert torch.allclose(runs[0], runs[1], atol=1e-3)
    assert torch.allclose(runs[2], runs[3], atol=1e-3)
    assert (runs[2] - runs[0]).abs().max() > 0.05


def reshaped(sigma):
    return sigma.view(-1, 1, 1, 1)
