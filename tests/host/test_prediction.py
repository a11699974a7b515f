"""Structure guidance, frequency guidance and the guidance interval on the host's own sampling."""

from __future__ import annotations

import copy
import functools

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg

from hires_fusion.fusion_ops.bands import LOW_PASSES, LowPass, low_pass
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews, UpsampleViews
from hires_fusion.sampling.prediction import (
    UNGUIDED,
    frequency_guidance,
    guidance_interval,
    structure_guidance,
)
from hires_fusion.sampling.span import Span, span

from .stub import cond, patcher, sample


def smooth(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x.flatten(0, -3), 3, 1, 1).view_as(x)
    text = conds["context"].mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))
    return torch.tanh(near / (1 + sigma.view(text.shape))) + 0.1 * text * near


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_x0(x, sigma, conds):
    """Everything that is drawn is black."""
    return torch.zeros_like(x)


def levels(model, count=4, scheduler="ddim_uniform"):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, scheduler, count)


def predictions(model, latent, **options):
    """What the sampler was given as x0 in each step."""
    found = []
    sample(model, latent, callback=lambda step, x0, x, total: found.append(x0.clone()), **options)
    return found


ALL_OF_IT = LowPass("resize", 1.0)


def followed(model, reference, **options):
    """A model that draws black, and keeps the whole of a reference instead of its low part."""
    return structure_guidance(model, {"samples": reference}, band=ALL_OF_IT, **options)


def test_a_weight_of_zero_is_plain_sampling_to_the_bit():
    latent = randn(1, 4, 24, 17)
    plain = sample(patcher(smooth), latent)
    guided = structure_guidance(patcher(smooth), {"samples": latent}, weight=0)
    assert torch.equal(plain, sample(guided, latent))
    same = frequency_guidance(patcher(smooth), 3.0, 3.0)
    assert torch.equal(plain, sample(same, latent, cfg=3.0))
    own = frequency_guidance(patcher(smooth), -1.0, -1.0)
    assert torch.equal(plain, sample(own, latent, cfg=3.0))
    assert torch.equal(plain, sample(guidance_interval(patcher(smooth), Span()), latent))


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_weights_fall_as_published(kind):
    model, ones = patcher(plain_x0, kind=kind), torch.ones(1, 4, 6, 6)
    scheduler = "simple" if kind == "FLOW" else "ddim_uniform"
    sigmas = levels(model, 5, scheduler)[1:]
    scale = model.model.process_latent_in(ones).mean().item()

    def weights(**options):
        given = followed(model, ones, **options)
        return [x0.mean().item() / scale for x0 in predictions(given, ones, sigmas=sigmas)]

    assert weights(weight=0.5, schedule="constant") == pytest.approx([0.5] * 4)
    assert weights(schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    if kind == "FLOW":
        share = sigmas[:-1]
    else:
        noise = sigmas[:-1] ** 2 / (1 + sigmas[:-1] ** 2)
        share = noise / noise[0]
    assert weights() == pytest.approx(share.tolist(), rel=1e-4)
    assert weights(weight=0.25) == pytest.approx((share / 4).tolist(), rel=1e-4)


def test_the_low_frequencies_become_those_of_the_reference():
    latent, band = randn(2, 4, 20, 27), LowPass("haar", 0.5)
    reference = randn(1, 4, 20, 27, seed=2)
    model = structure_guidance(
        patcher(smooth), {"samples": reference}, 1.0, "constant", band, Span()
    )
    free = predictions(patcher(smooth), latent, steps=1)[0]
    held = predictions(model, latent, steps=1)[0]
    low = low_pass(model.model.process_latent_in(reference), band)
    assert torch.allclose(low_pass(held, band), low.expand_as(held), atol=1e-5)
    detail = free - low_pass(free, band)
    assert torch.allclose(held - low_pass(held, band), detail, atol=1e-5)


def test_a_part_of_the_schedule():
    model, ones = patcher(plain_x0), torch.ones(1, 4, 6, 6)
    sigmas = levels(model, 50)
    late = followed(model, ones, schedule="constant", span=span(0.7, 0.8))
    acts = [bool(x0.any()) for x0 in predictions(late, ones, sigmas=sigmas)]
    # DiffuseHigh: five of the last fifteen steps.
    assert [i for i, act in enumerate(acts) if act] == [35, 36, 37, 38, 39]


def test_references_of_batches_and_frames():
    batch = randn(2, 4, 16, 16)
    one = followed(patcher(plain_x0), batch[:1], schedule="constant")
    each = followed(patcher(plain_x0), batch, schedule="constant")
    scale = one.model.latent_format.scale_factor
    assert torch.allclose(predictions(one, batch)[0], scale * batch[:1].expand_as(batch), atol=1e-5)
    assert torch.allclose(predictions(each, batch)[0], scale * batch, atol=1e-5)
    alone = [predictions(followed(patcher(smooth), b[None]), b[None])[0] for b in batch]
    assert torch.allclose(predictions(followed(patcher(smooth), batch), batch)[0][:1], alone[0])
    video = randn(1, 4, 3, 9, 7)
    for reference in (video, video[:, :, 0]):
        frames = reference if reference.ndim == 5 else reference[:, :, None].expand_as(video)
        model = followed(patcher(plain_x0), reference if reference.ndim == 5 else frames)
        assert torch.allclose(predictions(model, video)[0], scale * frames, atol=1e-5)
    picture = followed(patcher(plain_x0), video[:, :, 0], schedule="constant")
    out = predictions(picture, video[:, :, :1])[0]
    assert torch.allclose(out, scale * video[:, :, :1], atol=1e-5)


@pytest.mark.parametrize(
    ("reference", "latent", "said"),
    [
        ((1, 4, 16, 16), (1, 4, 32, 24), "24 x 32 cells with Upsample Latent"),
        ((2, 4, 16, 16), (3, 4, 16, 16), "as many as are sampled"),
        ((1, 16, 16, 16), (1, 4, 16, 16), "same kind of model"),
        ((1, 4, 2, 16, 16), (1, 4, 3, 16, 16), "same kind of model"),
    ],
)
def test_references_that_do_not_fit_are_refused_before_sampling(reference, latent, said):
    model = structure_guidance(patcher(smooth), {"samples": randn(*reference)})
    with pytest.raises(ValueError, match=said):
        sample(model, randn(*latent))
    assert model.model.calls == []


def test_what_cannot_be_followed_is_refused():
    model, x = patcher(smooth), randn(1, 4, 8, 8)
    with pytest.raises(ValueError, match="empty"):
        structure_guidance(model, {"samples": torch.zeros(1, 4, 8, 8)})
    with pytest.raises(ValueError, match="height and width"):
        structure_guidance(model, {"samples": randn(1, 4, 100)})
    with pytest.raises(ValueError, match="choose one"):
        structure_guidance(model, {"samples": x}, schedule="often")
    with pytest.raises(ValueError, match="choose one"):
        structure_guidance(model, {"samples": x}, band=LowPass("haar", 0))
    for start, end in ((0.5, 0.5), (0.8, 0.2), (-0.1, 1), (0, 1.1)):
        with pytest.raises(ValueError, match="end above the start"):
            span(start, end)


@pytest.mark.parametrize("kind", LOW_PASSES)
def test_frequency_guidance_is_the_papers_formula(kind):
    latent, band = randn(2, 4, 20, 15), LowPass(kind, 0.5)
    options = {"steps": 1, "cfg": 3.0}
    calls = []

    def noting(args):
        calls.append((args["cond_denoised"], args["uncond_denoised"]))
        return args["denoised"]

    model = patcher(smooth)
    model.set_model_sampler_post_cfg_function(noting)
    model = frequency_guidance(model, 1.5, 9.0, band)
    got = predictions(model, latent, **options)[0]
    positive, negative = calls[0]
    low = low_pass(positive - negative, band)
    want = negative + 1.5 * low + 9.0 * (positive - negative - low)
    assert torch.allclose(got, want, atol=1e-4)
    # Both alike, but not the sampler's: plain CFG with that cfg.
    alike = predictions(frequency_guidance(patcher(smooth), 9.0, 9.0, band), latent, **options)[0]
    plain = predictions(patcher(smooth), latent, steps=1, cfg=9.0)[0]
    assert torch.allclose(alike, plain, atol=1e-4)


def test_frequency_guidance_wants_both_halves():
    x = randn(1, 4, 16, 16)
    model = frequency_guidance(patcher(smooth), -1, 20.0)
    with pytest.raises(ValueError, match="cfg above 1"):
        sample(model, x, cfg=1.0)
    with pytest.raises(ValueError, match="Guider_PerpNeg"):
        run(perp_neg(model), x)
    assert model.model.calls == []
    assert sample(model, x, cfg=1.0, sampler="euler_cfg_pp").isfinite().all()


def halves(model):
    """How many predictions were made in each call."""
    return [len(call) for call in model.model.calls]


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("viewed", [False, True])
def test_outside_the_interval_only_the_prompt_is_evaluated(kind, viewed):
    """By counting, and by the picture: the same as a sampler that changes cfg by itself."""
    x = randn(1, 4, 24, 24)
    model = patcher(smooth, kind=kind)
    if viewed:
        model = add_views(model, local=LocalViews(jitter=False), view_batch_size=4)
    sigmas = levels(model, 10, "simple")
    sampling = model.get_model_object("model_sampling")
    inside = [Span(0.2, 0.7).holds(sampling, float(s)) for s in sigmas[:-1]]
    assert 3 <= sum(inside) <= 6 and not inside[0] and not inside[-1]
    model.model.calls.clear()
    limited = guidance_interval(model, span(0.2, 0.7))
    got = sample(limited, x, sigmas=sigmas, cfg=4.0)
    views = 4 if viewed else 1
    assert halves(model) == [views * (1 + act) for act in inside]

    def by_hand(denoiser, x, sigmas, extra_args=None, callback=None, disable=None):
        for act, now, after in zip(inside, sigmas, sigmas[1:], strict=False):
            denoiser.inner_model.set_cfg(4.0 if act else 1.0)
            x0 = denoiser(x, now.expand(len(x)), **extra_args)
            x = x + (x - x0) / now * (after - now)
        return x

    want = sample(model, x, sigmas=sigmas, cfg=4.0, sampler=comfy.samplers.KSAMPLER(by_hand))
    assert torch.allclose(got, want, atol=1e-4)


def dual(model, nested):
    guider = Guider_DualCFG(model)
    guider.set_conds(cond(1.0), cond(0.5), cond(-1.0))
    guider.set_cfg(4.0, 3.0, nested=nested)
    return guider


def perp_neg(model):
    guider = Guider_PerpNeg(model)
    guider.set_conds(cond(1.0), cond(-1.0), cond(0.0))
    guider.set_cfg(4.0, 0.7)
    return guider


def run(guider, x, sigmas=None):
    sigmas = levels(guider.model_patcher) if sigmas is None else sigmas
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(x, torch.zeros_like(x), sampler, sigmas, seed=1, disable_pbar=True)


@pytest.mark.parametrize(
    "make", [functools.partial(dual, nested=False), functools.partial(dual, nested=True), perp_neg]
)
def test_the_interval_knows_the_hosts_guiders(make):
    x = randn(1, 4, 12, 12)
    guider = make(guidance_interval(patcher(smooth), span(0.4, 0.6)))
    before = {k: v for k, v in vars(guider).items() if isinstance(v, float | bool)}
    run(guider, x, levels(guider.model_patcher)[-2:])  # one late step, outside
    assert halves(guider.model_patcher) == [1]
    assert {k: v for k, v in vars(guider).items() if k in before} == before
    prompt_alone = sample(
        patcher(smooth), x * 0, noise=x, cfg=1.0, sigmas=levels(patcher(smooth))[-2:]
    )
    again = run(guider, x, levels(guider.model_patcher)[-2:])
    assert torch.allclose(again, prompt_alone, atol=1e-5)


def test_unknown_guiders_are_refused_and_known_ones_restored():
    class Own(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            return x

    guider = Own(guidance_interval(patcher(smooth), span(0.4, 0.6)))
    guider.set_conds(cond(1.0), cond(-1.0))
    with pytest.raises(ValueError, match="'Own'"):
        run(guider, randn(1, 4, 8, 8))

    def broken(x, sigma, conds):
        raise RuntimeError("broken")

    guider = comfy.samplers.CFGGuider(guidance_interval(patcher(broken), span(0.4, 0.6)))
    guider.set_conds(cond(1.0), cond(-1.0))
    guider.set_cfg(5.0)
    with pytest.raises(RuntimeError, match="broken"):
        run(guider, randn(1, 4, 8, 8))
    assert guider.cfg == 5.0


def test_outside_the_interval_frequencies_are_left_alone():
    """Also where a CFG++ sampler has the negative prompt evaluated in every step."""
    x = randn(1, 4, 12, 12)
    seen = []

    def noting(args):
        seen.append(args["model_options"].get(UNGUIDED, False))
        return args["denoised"]

    for sampler in ("euler", "euler_cfg_pp"):
        model = frequency_guidance(guidance_interval(patcher(smooth), span(0, 0.01)), -1, 20.0)
        model.set_model_sampler_post_cfg_function(noting)
        only = guidance_interval(patcher(smooth), span(0, 0.01))
        options = {"sampler": sampler, "sigmas": levels(model)[1:], "cfg": 3.0}
        assert torch.equal(sample(model, x, **options), sample(only, x, **options))
    assert all(seen)


def everything(model, reference):
    model = add_views(model, local=LocalViews(), dilated=DilatedViews(), upsample=UpsampleViews())
    model = structure_guidance(model, {"samples": reference}, weight=0.5)
    model = frequency_guidance(model, 2.0, 8.0)
    return guidance_interval(model, span(0.1, 0.9))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("shape", [(1, 4, 40, 33), (2, 4, 2, 33, 20)])
def test_all_of_them_together(sampler, shape):
    x, reference = randn(*shape), randn(*shape, seed=2)
    model = everything(patcher(smooth, native_size=128), reference)
    first = sample(model, x, sampler=sampler)
    assert first.shape == x.shape and first.isfinite().all()
    assert torch.equal(first, sample(model, x, sampler=sampler))
    copied = model.clone()
    copied.model_options = copy.deepcopy(model.model_options)
    assert torch.equal(first, sample(copied, x, sampler=sampler))


def test_the_model_samples_as_before_afterwards():
    x, base = randn(1, 4, 33, 40), patcher(smooth)
    before = sample(base, x)
    options, wrappers = copy.deepcopy(base.model_options), copy.deepcopy(base.wrappers)
    sample(everything(base, randn(1, 4, 33, 40, seed=2)), x)
    assert torch.equal(before, sample(base, x))
    assert base.model_options == options and base.wrappers == wrappers


def test_what_is_not_resampled_stays():
    x = randn(1, 4, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :9] = 1
    out = sample(everything(patcher(smooth), randn(1, 4, 32, 32, seed=2)), x, denoise_mask=mask)
    assert torch.allclose(out[..., 9:], x[..., 9:], atol=1e-4)
    assert not torch.allclose(out[..., :9], x[..., :9], atol=1e-1)
