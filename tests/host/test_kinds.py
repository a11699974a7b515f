"""The techniques on eps, v, EDM and flow models, and on latents with a time axis."""

from __future__ import annotations

import itertools

import comfy.nested_tensor
import comfy.samplers
import comfy.supported_models
import comfy_extras.nodes_custom_sampler
import pytest
import torch

from hires_fusion.fusion_ops import filters, schedule
from hires_fusion.sampling import lift
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.latents import diffusion_time
from hires_fusion.sampling.plan import DilatedViews, LocalViews
from hires_fusion.sampling.steps import between_steps
from hires_fusion.sampling.transforms import skip_residual

from .families import FAMILIES, tiny
from .stub import cond, patcher, sample

KINDS = [
    "EPS",
    "V_PREDICTION",
    "V_PREDICTION_EDM",
    "EDM",
    "V_PREDICTION_CONTINUOUS",
    "STABLE_CASCADE",
    "FLOW",
    "FLUX",
    "FLOW_COSMOS",
]
NATIVE = 16


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sampling_of(kind):
    return patcher(lambda x, sigma, conds: x, kind=kind).get_model_object("model_sampling")


def run(model, latent, **options):
    return sample(model, latent, scheduler="simple", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusion_time_falls_from_one_to_zero(kind):
    sampling = sampling_of(kind)
    sigmas = torch.linspace(0, 1, 400) ** 4 * float(sampling.sigma_max)
    times = [diffusion_time(sampling, sigma) for sigma in sigmas.flip(0)]
    assert times[0] > 0.98 and times[-1] < 1e-5
    assert all(0 <= late <= early for early, late in itertools.pairwise(times))
    assert any(0.3 < time < 0.7 for time in times)
    shares = [schedule.cosine_factor(time, 1.0) for time in times]
    assert shares[0] > 0.99 and shares[-1] < 1e-5


def test_diffusion_time_of_published_steps():
    # DemoFusion's 50 steps of SDXL start at t = 981 of 1000.
    sampling = sampling_of("EPS")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", 50)
    assert diffusion_time(sampling, sigmas[0]) == pytest.approx(0.981, abs=2e-3)
    # A flow model's sigma is its time.
    assert diffusion_time(sampling_of("FLOW"), torch.tensor(0.3)) == pytest.approx(0.3)
    # Cosmos has the sigma of its flow in another parametrisation.
    assert diffusion_time(sampling_of("FLOW_COSMOS"), torch.tensor(1.0)) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_views_of_a_pointwise_denoiser_change_nothing(kind):
    """Mean, dilation and detail are exact: without a neighbourhood, all views agree."""

    def half(x, sigma, conds):
        return 0.5 * x + 0.1 * conds["context"].mean()

    # A blur of 1e-3 cells is none.
    viewed = add_views(patcher(half, kind=kind), local=LocalViews(NATIVE, border="clamp"))
    viewed = add_views(viewed, dilated=DilatedViews(factor=2, sigma=1e-3))
    latent = randn(1, 4, 36, 29)
    plain, fused = run(patcher(half, kind=kind), latent), run(viewed, latent)
    assert torch.allclose(plain, fused, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_are_mixed_by_the_cosine_of_the_time(kind):
    calls = []

    # A denoiser that tells windows (7) from lattices (3) by their size.
    def by_size(x, sigma, conds):
        calls.append(float(sigma[0]))
        return torch.full_like(x, 7.0 if x.shape[-1] == NATIVE else 3.0)

    seen = []

    def record(denoiser, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma in sigmas[:-1]:
            x0 = denoiser(x, sigma.view(1), **extra_args)
            seen.append((sigma, x0))
        return x

    model = patcher(by_size, kind=kind)
    viewed = add_views(model, local=LocalViews(NATIVE, jitter=False))
    viewed = add_views(viewed, dilated=DilatedViews(factor=4, sigma=1e-3))
    sampler = comfy.samplers.KSAMPLER(record)
    run(
        viewed, torch.zeros(1, 4, 48, 48), sampler=sampler, cfg=1.0, noise=torch.zeros(1, 4, 48, 48)
    )
    sampling = model.get_model_object("model_sampling")
    for sigma, x0 in seen:
        share = schedule.cosine_factor(diffusion_time(sampling, sigma), 1.0)
        assert torch.allclose(x0, torch.full_like(x0, (1 - share) * 7 + share * 3), atol=1e-4)
    assert len(seen) == 4 and calls


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_noised_as_the_host_noises(kind):
    seen = []

    def record(x, sigma, conds):
        seen.append((x.clone(), sigma))
        return torch.zeros_like(x)

    model = patcher(record, kind=kind)
    latent, noise = randn(1, 4, 16, 16), randn(1, 4, 16, 16, seed=7)
    # With an exponent of 0 every step starts at the reference itself.
    sampler = between_steps(comfy.samplers.sampler_object("euler"), skip_residual(0.0))
    run(model, latent, sampler=sampler, cfg=1.0, noise=noise.clone())
    clean = model.model.process_latent_in(latent)
    sampling = model.get_model_object("model_sampling")
    assert len(seen) == 4
    for x, sigma in seen:
        expected = sampling.noise_scaling(sigma[:1], noise.clone(), clean, False)
        assert torch.allclose(x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_diffusing_equals_what_the_sampler_does_itself(kind):
    def half(x, sigma, conds):
        return 0.5 * x

    class Noise:
        def generate_noise(self, latent):
            return randn(*latent["samples"].shape, seed=7)

    model = patcher(half, kind=kind)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 6)[3:]
    latent = randn(1, 4, 16, 16)

    def finish(start, noise):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(cond(), cond(-1.0))
        sampler = comfy.samplers.sampler_object("euler")
        return guider.sample(noise, start, sampler, sigmas, disable_pbar=True)

    diffused = lift.diffuse(model, {"samples": latent}, Noise(), sigmas[0])["samples"]
    by_hand = finish(diffused, torch.zeros_like(latent))
    assert torch.allclose(by_hand, finish(latent, randn(1, 4, 16, 16, seed=7)), atol=1e-3)


def test_blur_and_statistics_take_frames():
    video = randn(2, 5, 3, 12, 9)
    blurred = filters.blur(video, 5, 0.8)
    for frame in range(3):
        still = filters.blur(video[:, :, frame], 5, 0.8)
        assert torch.allclose(blurred[:, :, frame], still, atol=1e-6)
    # A picture may take its statistics from one with a time axis and the other way round.
    for x, reference in ((video, randn(1, 5, 8, 8)), (randn(2, 5, 8, 8), video)):
        reference = reference * 3 + 1
        out = filters.match_statistics(x, reference)
        assert out.shape == x.shape
        for got, wanted in zip(filters.statistics(out), filters.statistics(reference), strict=True):
            assert torch.allclose(got.flatten(), wanted.flatten().expand(2), atol=1e-4)


class FramesVae:
    """The host's conventions of a VAE of video, with 2 x 2 pixels a cell."""

    def decode(self, samples):
        return samples.repeat_interleave(2, -1).repeat_interleave(2, -2).movedim(1, -1)

    def encode(self, pixels):
        return pixels[:, ::2, ::2].movedim(-1, 0).unsqueeze(0)  # a batch is taken for frames

    def spacial_compression_decode(self):
        return 2


@pytest.mark.parametrize("method", ["latent bicubic", "pixel bicubic", "pixel lanczos"])
def test_pictures_with_a_time_axis_are_lifted(method):
    samples = randn(2, 3, 1, 6, 5).sigmoid()
    lifted = lift.upsample({"samples": samples}, (12, 10), method, FramesVae())["samples"]
    assert lifted.shape == (2, 3, 1, 12, 10)
    for index in range(2):
        one = lift.upsample({"samples": samples[index : index + 1]}, (12, 10), method, FramesVae())
        assert torch.equal(lifted[index : index + 1], one["samples"])
    picture = FramesVae().decode(samples).flatten(0, 1)
    given = lift.upsample({"samples": samples}, (12, 10), method, FramesVae(), image=picture)
    assert torch.equal(lifted, given["samples"])


def test_video_is_lifted_in_latent_space_only():
    video = {"samples": randn(1, 3, 4, 6, 5)}
    assert lift.upsample(video, (9, 8), "latent bicubic")["samples"].shape == (1, 3, 4, 9, 8)
    with pytest.raises(ValueError, match="latent bicubic"):
        lift.upsample(video, (9, 8), "pixel bicubic", FramesVae())


def test_a_flat_latent_of_a_model_with_frames_is_diffused_with_them():
    class Noise:
        def generate_noise(self, latent):
            return torch.zeros_like(latent["samples"])

    model = tiny(FAMILIES["Qwen-Image"])
    flat = randn(2, 16, 8, 8)
    out = lift.diffuse(model, {"samples": flat}, Noise(), torch.tensor(0.5))["samples"]
    assert out.shape == (2, 16, 1, 8, 8)
    assert torch.allclose(out[:, :, 0], flat, atol=1e-5)  # flow samplers undo the scaling


def test_latents_of_several_parts_are_refused_by_every_node():
    from hires_fusion.nodes import latents, progressive

    parts = {"samples": comfy.nested_tensor.NestedTensor([randn(1, 4, 8, 8), randn(1, 4, 8)])}
    plain = {"samples": randn(1, 4, 8, 8)}
    model = patcher(lambda x, sigma, conds: x)
    packed = "several parts or no height"
    with pytest.raises(ValueError, match=packed):
        latents.UpsampleLatent.execute(parts, 2.0, "latent bicubic", 0, 0)
    with pytest.raises(ValueError, match=packed):
        noise = comfy_extras.nodes_custom_sampler.Noise_EmptyNoise()
        latents.DiffuseLatent.execute(model, parts, noise, torch.tensor([1.0, 0.0]))
    for pair in ((parts, plain), (plain, parts)):
        with pytest.raises(ValueError, match=packed):
            latents.MatchStatistics.execute(*pair)
    with pytest.raises(ValueError, match=packed):
        progressive.expand_stages({}, model=model, samples=parts, scale=2, preset="DemoFusion")
    viewed = add_views(model, local=LocalViews())
    with pytest.raises(ValueError, match="packed latents"):
        run(viewed, parts["samples"], noise=parts["samples"])
    assert model.model.calls == []
