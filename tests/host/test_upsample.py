"""Upsample Guidance on the host's own sampling: one call more a step, at another noise level."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.hooks
import comfy.latent_formats
import comfy.model_management
import comfy.samplers
import pytest
import torch

from hires_fusion.fusion_ops.pooled import PooledSet, lowered
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews, UpsampleViews
from hires_fusion.sampling.span import span
from hires_fusion.sampling.upsample import at_level, check, controls_at

from .families import FAMILIES, tiny
from .families import cond as family_cond
from .families import latent as family_latent
from .stub import cond, patcher, sample
from .test_control import follow, linked, picture

NATIVE = 16
KINDS = ["EPS", "V_PREDICTION", "FLOW"]


def smooth(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x.flatten(0, -3), 3, 1, 1).view_as(x)
    text = conds["context"].mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))
    return torch.tanh(near / (1 + sigma.view(text.shape))) + 0.1 * text * near


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def guided(model, *args, **options):
    return add_views(model, upsample=UpsampleViews(*args, **options))


def levels(model, count=4):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", count)


def first_x0(model, latent, **options):
    found = []
    options = {"sigmas": levels(model)[[1, -1]], "cfg": 1.0} | options
    sample(model, latent, callback=lambda step, x0, x, total: found.append(x0.clone()), **options)
    return found[0]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_without_effect_it_is_plain_sampling_to_the_bit(sampler):
    for size, options in (((32, 27), {"weight": 0}), ((16, 16), {}), ((23, 9), {})):
        latent = randn(1, 4, *size)
        model = guided(patcher(smooth), **options)
        plain = sample(patcher(smooth), latent, sampler=sampler)
        assert torch.equal(plain, sample(model, latent, sampler=sampler))


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula(kind):
    """Against the paper's, written out, with a denoiser that knows its noise level."""
    latent, pooled = randn(2, 4, 32, 48), PooledSet(3, (32, 48))
    plain = patcher(smooth, kind=kind)
    sigma = levels(plain)[1]
    level, share = lowered(sigma, 3, kind == "FLOW")
    noise = randn(2, 4, 32, 48, seed=2)
    x = plain.get_model_object("model_sampling").noise_scaling(
        sigma, noise.clone(), plain.model.process_latent_in(latent), False
    )
    ones = {"context": torch.ones(2, 1, 1)}
    large = smooth(x, sigma.expand(2), ones)
    small = smooth(pooled.stack(x) / share, level.expand(2), ones)
    want = large + 0.7 * pooled.enlarge(small - pooled.stack(large))
    got = first_x0(guided(patcher(smooth, kind=kind), 0.7), latent, noise=noise)
    assert torch.allclose(got, want, atol=1e-5)
    assert (want - large).abs().max() > 0.1


def test_a_denoiser_that_commutes_with_shrinking_is_left_as_it_is():
    def half(x, sigma, conds):
        return 0.5 * x

    for size in ((32, 32), (33, 47)):
        latent = randn(1, 4, *size)
        plain = sample(patcher(half), latent)
        assert torch.allclose(plain, sample(guided(patcher(half)), latent), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_told_the_level_that_the_noise_has(kind):
    """The small x is a picture noised to its sigma: a flat picture and white noise show it."""
    seen = []

    def noting(x, sigma, conds):
        seen.append((x.clone(), float(sigma[0])))
        return torch.full_like(x, 0.5)

    model = guided(patcher(noting, kind=kind))
    flat = model.model.process_latent_out(torch.full((4, 4, 48, 48), 0.5))
    first_x0(model, flat, noise=randn(*flat.shape))
    (large, sigma), (small, level) = seen
    assert (large.shape[-1], small.shape[-1]) == (48, 16)
    for x, told in ((large, sigma), (small, level)):
        kept = 1 - told if kind == "FLOW" else 1.0
        assert x.mean().item() == pytest.approx(0.5 * kept, abs=0.05 * max(told, 1))
        assert x.std().item() == pytest.approx(told, rel=0.05)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("tiled", [False, True])
def test_one_native_call_a_step(cfg, tiled):
    model = patcher(smooth)
    if tiled:
        model = add_views(model, local=LocalViews(), view_batch_size=1)
    latent, halves = randn(1, 4, 64, 64), 1 if cfg == 1 else 2
    sigmas = levels(model, 6)
    model = guided(model, 1.0, span(0.0, 0.5))
    sample(model, latent, sigmas=sigmas, cfg=cfg)
    sampling = model.get_model_object("model_sampling")
    acts = [span(0, 0.5).holds(sampling, float(sigma)) for sigma in sigmas[:-1]]
    assert 0 < sum(acts) < len(acts)
    assert {len(call) for call in model.model.calls} == {halves}
    views = 49 if tiled else 1
    assert len(model.model.calls) == 6 * views + sum(acts)
    small = [call for call in model.model.calls if call.shape[-1] == NATIVE]
    assert len(small) == sum(acts) + (6 * views if tiled else 0)


@pytest.mark.parametrize(
    "shape", [(2, 4, 33, 20), (1, 16, 24, 40), (1, 4, 3, 37, 50), (1, 4, 40, 3)]
)
def test_any_shape_of_latents(shape):
    base = patcher(smooth)
    if shape[1] == 16:
        base.model.latent_format = comfy.latent_formats.SD3()
    model = add_views(guided(base), local=LocalViews())
    first = sample(model, randn(*shape))
    assert first.shape == shape and first.isfinite().all()
    assert torch.equal(first, sample(model, randn(*shape)))
    other = sample(add_views(base, local=LocalViews()), randn(*shape))
    assert not torch.allclose(first, other, atol=1e-3)


def test_pictures_of_a_batch_are_on_their_own():
    batch, noise = randn(2, 4, 40, 33), randn(2, 4, 40, 33, seed=2)
    model = guided(patcher(smooth))
    both = sample(model, batch, noise=noise.clone())
    for i in range(2):
        one = sample(model, batch[i : i + 1], noise=noise[i : i + 1].clone())
        assert torch.allclose(both[i], one[0], atol=1e-4)


def test_masks_and_maps_are_shrunk_with_the_canvas():
    def text(x, sigma, conds):
        return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()

    mask = torch.zeros(1, 32, 32)
    mask[..., :13] = 1
    positive = cond(2.0, mask=mask) + cond(5.0, mask=1 - mask)
    # What the shrunk canvas is told at the border is the mean of both prompts, so nothing changes
    # but for the column of blocks that holds it.
    out = sample(guided(patcher(text)), torch.zeros(1, 4, 32, 32), cfg=1.0, positive=positive)
    out = out * 0.13025
    assert torch.allclose(out[..., :12], torch.tensor(2.0), atol=1e-2)
    assert torch.allclose(out[..., 14:], torch.tensor(5.0), atol=1e-2)

    def where(x, sigma, conds):
        return conds["map"].expand_as(x).clone()

    place = torch.arange(32.0).expand(1, 1, 32, 32)
    out = first_x0(guided(patcher(where)), randn(1, 4, 32, 32), positive=cond(map=place))
    assert torch.allclose(out, place.expand_as(out), atol=1e-4)


def test_conds_and_controls_hold_as_they_do_for_the_canvas():
    early = {"timestep_start": 999.0, "timestep_end": 3.0, "name": "early"}
    late = {"timestep_start": 3.0, "timestep_end": 0.0, "name": "late"}
    found = at_level([[early, {"name": "ever"}, late], None], 5.0)
    assert found == [[{"name": "early"}, {"name": "ever"}], None]
    assert at_level([[early, late]], 1.0) == [[{"name": "late"}]]

    links = [
        SimpleNamespace(timestep_range=known, previous_controlnet=None)
        for known in ((999.0, 3.0), (3.0, 0.0), None)
    ]
    with controls_at([[{"control": link} for link in links]], 5.0):
        (first, last), (later, _), never = (link.timestep_range for link in links)
        assert first > 1e9 and last == 0 and later < 0 and never is None
    assert [link.timestep_range for link in links] == [(999.0, 3.0), (3.0, 0.0), None]


@pytest.mark.parametrize("end", [1.0, 0.4])
def test_a_controlnet_shows_the_shrunk_canvas_its_image(end):
    """A denoiser that draws the image: shrunk and brought back, it corrects nothing, also where
    the small call's level lies beyond the ControlNet's end."""
    image = picture(32 * 8, 32 * 8)
    control = linked(image)
    control.set_cond_hint(image, 1.0, (0.0, end))
    seen = []

    def follow_or_not(x, sigma, conds):
        seen.append(x.shape[-1])
        return follow(x, sigma, conds) if conds["control"]["output"] else torch.zeros_like(x)

    got = first_x0(
        guided(patcher(follow_or_not)),
        torch.zeros(1, 4, 32, 32),
        positive=cond(1.0, control=control, control_apply_to_uncond=True),
    )
    cells = torch.nn.functional.avg_pool2d(image, 8).mean(1, keepdim=True)
    assert seen == [32, NATIVE]
    assert torch.allclose(got, cells.expand_as(got), atol=1e-4)
    assert control.timestep_range is None or control.timestep_range[1] < 1e6


def test_a_prompt_that_ends_does_not_end_early():
    """At the small level, a third of the canvas' own, the first prompt would be over."""

    def text(x, sigma, conds):
        return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()

    model = guided(patcher(text))
    positive = cond(2.0, start_percent=0.0, end_percent=0.5)
    sigma = float(levels(model)[1])  # a quarter into the schedule
    low = model.get_model_object("model_sampling").percent_to_sigma(0.5)
    assert sigma / 3 < low < sigma
    out = first_x0(model, randn(1, 4, 48, 48), positive=positive)
    assert torch.allclose(out, torch.tensor(2.0), atol=1e-4)


def test_keyframes_are_refused():
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(1.0))
    frames.add(comfy.hooks.HookKeyframe(0.5, start_percent=0.5))
    hook = SimpleNamespace(hook_keyframe=frames)
    conds = {"positive": [{"hooks": SimpleNamespace(hooks=[hook])}], "negative": [{}]}
    with pytest.raises(ValueError, match="Dilated Sampling instead"):
        check(conds)
    hook.hook_keyframe = comfy.hooks.HookKeyframeGroup()
    check(conds)


def test_cancel_in_the_small_call():
    model = guided(patcher(smooth))
    right = sample(model, randn(1, 4, 32, 32))
    model.model.calls.clear()

    def interrupting(x, sigma, conds):
        if len(model.model.calls) == 3:
            comfy.model_management.interrupt_current_processing()
        return smooth(x, sigma, conds)

    model.model.denoiser = interrupting
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, randn(1, 4, 32, 32))
    assert len(model.model.calls) == 3  # after the large call of the second step
    model.model.denoiser = smooth
    assert torch.equal(right, sample(model, randn(1, 4, 32, 32)))


def test_what_breaks_in_the_small_call_is_named():
    def broken(x, sigma, conds):
        return x * (torch.nan if x.shape[-1] == NATIVE else 0.5)

    with pytest.raises(ValueError, match="shrunk canvas of Upsample Guidance"):
        sample(guided(patcher(broken)), randn(1, 4, 32, 32))

    def large(x, sigma, conds):
        if x.shape[-1] == NATIVE:
            raise comfy.model_management.OOM_EXCEPTION("out of memory")
        return 0.5 * x

    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match="smaller"):
        sample(guided(patcher(large)), randn(1, 4, 32, 32))


@pytest.mark.parametrize(
    "name", ["SD 1.5", "SDXL", "SD 3", "Flux", "Flux 2", "Z-Image", "Qwen-Image", "Wan 2.1"]
)
def test_families(name):
    family = FAMILIES[name]
    model = tiny(family)
    prompts = {"positive": family_cond(family, 2), "negative": family_cond(family, 3)}
    options = {"steps": 2, "scheduler": "simple", **prompts}
    native = family_latent(family, family.cells, family.cells)
    assert torch.equal(sample(model, native, **options), sample(guided(model), native, **options))
    sizes = set()
    model.model.diffusion_model.register_forward_pre_hook(
        lambda network, args: sizes.add(tuple(args[0].shape[-2:]))
    )
    x = family_latent(family, 2 * family.cells + 1, family.cells + 5)
    viewed = add_views(guided(model), local=LocalViews())
    out = sample(viewed, x, **options)
    assert out.shape == x.shape and out.isfinite().all()
    assert torch.equal(out, sample(viewed, x, **options))
    assert all(side % family.patch == 0 for size in sizes for side in size)
    assert PooledSet(2, tuple(x.shape[-2:]), family.patch).size in sizes


def test_it_goes_with_the_lattices_in_any_order():
    latent, base = randn(1, 4, 40, 33), patcher(smooth)
    one = add_views(guided(add_views(base, local=LocalViews())), dilated=DilatedViews())
    two = add_views(add_views(guided(base), dilated=DilatedViews()), local=LocalViews())
    assert torch.equal(sample(one, latent), sample(two, latent))
