"""Noise levels, inverted and added noise, on the host's own schedules and samplers."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_Basic, Noise_EmptyNoise, Noise_RandomNoise

from hires_fusion.fusion_ops.noise import predicted_noise, slerp
from hires_fusion.fusion_ops.schedule import flow_time, lifted_sigma
from hires_fusion.nodes.renoise import AddedNoise, InversionNoise, RenoiseSigmas

from .families import FAMILIES, latent, tiny
from .families import cond as family_cond
from .masked import left_kept, randn, textured
from .stub import cond, patcher, sample


def sampling_of(model):
    return model.get_model_object("model_sampling")


def sigmas_of(model, sigma, steps, scheduler="ddim_uniform", scale=2.0, gamma=0.0):
    return RenoiseSigmas.execute(model, sigma, steps, scheduler, scale, gamma).result


@pytest.mark.parametrize(
    ("ended", "scale", "gamma", "starts"),
    [(200, 2, 1.5, 343), (400, 2, 2, 606), (200, 2, 2, 395), (100, 2, 3, 346), (200, 2, 3, 500)],
)
def test_frecas_next_start(ended, scale, gamma, starts):
    model = patcher(textured)
    table = sampling_of(model).sigmas
    got = lifted_sigma(float(table[ended]), scale, gamma)
    # Its search is right-sided on the grid of 1000: the first level that is not below.
    assert abs(int((table < got).sum()) - starts) <= 1
    # The published form, on alpha-bar.
    abar, s = 1 / (1 + float(table[ended]) ** 2), (1 / scale) ** gamma
    abar = s * abar / (1 + (s - 1) * abar)
    assert got == pytest.approx(((1 - abar) / abar) ** 0.5, rel=1e-6)
    sigmas, start = sigmas_of(model, float(table[ended]), 5, scale=scale, gamma=gamma)
    assert start == pytest.approx(got) and len(sigmas) == 6


def test_the_law_of_a_flow_is_the_same_law():
    for sigma in (0.1, 0.7, 3.0):
        for scale, gamma in ((2, 1), (1.5, 2), (4, 3)):
            flow = lifted_sigma(flow_time(sigma), scale, gamma, flow=True)
            assert flow == pytest.approx(flow_time(lifted_sigma(sigma, scale, gamma)))
    assert lifted_sigma(0.25, 2, 1, flow=True) == pytest.approx(
        2**0.5 * 0.25 / (1 + (2**0.5 - 1) * 0.25)
    )
    assert lifted_sigma(0.4, 3, 0) == 0.4 and lifted_sigma(0.4, 3, 0, flow=True) == 0.4


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW", "EDM"])
def test_every_schedule_starts_exactly_there(kind, scheduler):
    model = patcher(textured, kind=kind)
    sampling = sampling_of(model)
    for time in (0.3, 0.75):
        if (kind, scheduler) == ("EDM", "linear_quadratic"):
            time = 0.9  # even steps from 120 down have next to none at small levels
        sigma = float(sampling.percent_to_sigma(1 - time))
        for steps in (1, 7):
            sigmas, start = sigmas_of(model, sigma, steps, scheduler)
            assert len(sigmas) == steps + 1 and sigmas.dtype == torch.float32
            assert sigmas[0] == torch.tensor(sigma) and start == float(sigmas[0])
            assert (sigmas.diff() < 0).all() and sigmas[-1] == 0
    top = float(sampling.sigma_max)
    whole = comfy.samplers.calculate_sigmas(sampling, scheduler, 20)
    if len(whole) == 21 and float(whole[0]) == pytest.approx(top):
        assert torch.allclose(sigmas_of(model, top, 20, scheduler)[0], whole.cpu())


def test_steps_keep_the_spacing_of_the_schedule():
    model = patcher(textured)
    sampling = sampling_of(model)
    half = float(sampling.sigmas[500])
    times = sampling.timestep(sigmas_of(model, half, 10)[0][:-1])
    assert times.tolist() == [500, *range(441, 0, -55)]  # 1000 // 18, the nearest that it has


@pytest.mark.parametrize(
    ("kind", "arguments", "fix"),
    [
        ("EPS", {"sigma": 20.0, "steps": 4}, "go up to 14.6"),
        ("EPS", {"sigma": 6.0, "steps": 4, "gamma": 4.0}, "which the lift makes 24"),
        ("FLOW", {"sigma": 1.3, "steps": 4}, "1 being pure noise"),
        ("EPS", {"sigma": 0.05, "steps": 30}, "choose fewer than 30 steps"),
    ],
)
def test_levels_that_are_none_say_the_fix(kind, arguments, fix):
    with pytest.raises(ValueError, match=fix):
        sigmas_of(patcher(textured, kind=kind), **arguments)


def test_slerp():
    a, b = randn(10**6, seed=1), randn(10**6, seed=2)
    assert slerp(a, b, 0) is a and slerp(a, b, 1) is b
    for share in (0.05, 0.5, 0.95):
        assert float(slerp(a, b, share).std()) == pytest.approx(1, abs=1e-2)
    # PixelRush's .95 of predicted noise, .05 of fresh noise: what stays at sigma .693.
    assert 0.693 * float((slerp(a, b, 0.05) - a).std()) == pytest.approx(0.054, abs=1e-3)
    assert torch.allclose(slerp(a, b, 0.5), (a + b) / 2**0.5, atol=1e-5)


def guider(model):
    out = Guider_Basic(model)
    out.set_conds(cond())
    return out


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
@pytest.mark.parametrize("shape", [(2, 4, 7, 5), (1, 4, 1, 6, 8)])
def test_inverted_noise_is_what_the_model_finds(kind, shape):
    clean, hidden = randn(*shape, seed=3), randn(*shape, seed=4)
    factor = 0.13025
    model = patcher(None, kind=kind)
    sigma = float(sampling_of(model).sigma_min)
    scale = 1 - sigma if kind == "FLOW" else 1.0

    def denoiser(x, at, conds):
        # Sees a picture whose noise at the smallest level is the hidden one.
        assert torch.allclose(at, torch.tensor(sigma))
        return (x - sigma * hidden) / scale

    model.model.denoiser = denoiser
    noise = InversionNoise.execute(guider(model), Noise_RandomNoise(5), 0.0).result[0]
    found = noise.generate_noise({"samples": clean})
    assert torch.allclose(found, hidden, atol=2e-4) and noise.seed == 5
    assert len(model.model.calls) == 1
    assert torch.allclose(model.model.calls[0], scale * clean * factor, atol=1e-6)


def test_shares_of_fresh_noise():
    x = {"samples": randn(1, 4, 8, 8)}
    model = patcher(textured)
    fresh = Noise_RandomNoise(5).generate_noise(x)
    found, mixed, all_fresh = (
        InversionNoise.execute(guider(model), Noise_RandomNoise(5), share)
        .result[0]
        .generate_noise(x)
        for share in (0.0, 0.3, 1.0)
    )
    assert torch.equal(all_fresh, fresh) and not torch.allclose(found, fresh, atol=0.1)
    assert torch.allclose(mixed, slerp(found, fresh, 0.3))
    assert len(model.model.calls) == 2  # and none for fresh noise alone
    again = InversionNoise.execute(guider(model), Noise_RandomNoise(5), 0.0).result[0]
    assert torch.equal(again.generate_noise(x), found)
    with pytest.raises(ValueError, match="connect a finished picture"):
        again.generate_noise({"samples": torch.zeros(1, 4, 8, 8)})


def test_a_picture_is_redrawn_from_its_own_noise():
    # A denoiser whose noise is the same at every level brings the picture itself back.
    clean, hidden = randn(1, 4, 12, 10), randn(1, 4, 12, 10, seed=9)
    model = patcher(lambda x, at, conds: x - at.view(-1, 1, 1, 1) * hidden)
    noise = InversionNoise.execute(guider(model), Noise_RandomNoise(5), 0.0).result[0]
    sigmas = sigmas_of(model, 0.69, 4)[0]
    start = noise.generate_noise({"samples": clean})
    assert torch.allclose(sample(model, clean, noise=start, sigmas=sigmas), clean, atol=1e-3)


@pytest.mark.parametrize("name", ["Flux", "Qwen-Image", "SD 3", "Flux 2", "Wan 2.1", "SDXL"])
def test_families(name):
    family = FAMILIES[name]
    model = tiny(family)
    found = Guider_Basic(model)
    found.set_conds(family_cond(family, 2))
    x = {"samples": latent(family, 16, 12)}
    noise = InversionNoise.execute(found, Noise_RandomNoise(1), 0.05).result[0]
    once, twice = noise.generate_noise(x), noise.generate_noise(x)
    assert once.shape == x["samples"].shape and torch.isfinite(once).all()
    assert torch.equal(once, twice)
    sigmas = sigmas_of(model, 0.4, 3, "simple", gamma=1.0)[0]
    assert len(sigmas) == 4
    noisy = AddedNoise.execute(model, x, Noise_RandomNoise(1), 0.1).result[0]["samples"]
    into = model.model.process_latent_in
    moved = into(noisy) - into(x["samples"])
    assert float(moved.std()) == pytest.approx(0.1, rel=0.15)


def test_added_noise_has_its_deviation_in_model_space():
    model = patcher(textured)
    latent = {"samples": 7 * randn(2, 4, 64, 48), "batch_index": [0, 1]}
    out = AddedNoise.execute(model, latent, Noise_RandomNoise(3), 0.05).result[0]
    moved = out["samples"] - latent["samples"]
    assert float(moved.std()) == pytest.approx(0.05 / 0.13025, rel=0.02)
    assert torch.allclose(moved * 0.13025, 0.05 * Noise_RandomNoise(3).generate_noise(latent),
                          atol=1e-5)  # fmt: skip
    assert out["batch_index"] == [0, 1]
    off = AddedNoise.execute(model, latent, Noise_RandomNoise(3), 0.0).result[0]
    assert torch.equal(off["samples"], latent["samples"])
    none = AddedNoise.execute(model, latent, Noise_EmptyNoise(), 0.05).result[0]
    assert torch.equal(none["samples"], latent["samples"])


def test_added_noise_leaves_what_a_mask_keeps():
    mask = left_kept((1, 1, 16, 24))
    latent = {"samples": randn(1, 4, 16, 24), "noise_mask": mask}
    out = AddedNoise.execute(patcher(textured), latent, Noise_RandomNoise(3), 0.1).result[0]
    moved = (out["samples"] - latent["samples"]) * 0.13025
    drawn = 0.1 * Noise_RandomNoise(3).generate_noise(latent)
    assert torch.allclose(moved, mask * drawn, atol=1e-5)
    assert torch.equal(out["samples"][..., :11], latent["samples"][..., :11])


def test_predicted_noise_by_hand():
    x = torch.tensor([2.0])
    assert predicted_noise(x, torch.tensor([1.0]), 0.5).item() == 2.0
    assert predicted_noise(x, torch.tensor([1.0]), 0.5, flow=True).item() == 3.0
