"""The view plan on the host's real sampling path, with a denoiser that is a plain function."""

from __future__ import annotations

import random

import comfy.model_management
import pytest
import torch

from hires_fusion.fusion_ops import windows
from hires_fusion.sampling import denoiser
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import KEY, DilatedViews, LocalViews

from .stub import cond, patcher, sample

NATIVE = 16  # cells of the stub's native side


def smooth(x, sigma, conds):
    """Depends on the neighbourhood, on sigma and on the text, not on the place."""
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    text = conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1))) + 0.1 * text


def latent(height, width, batch=1):
    return torch.randn((batch, 4, height, width), generator=torch.Generator().manual_seed(1))


def both(model, **options):
    tiled = add_views(model, local=LocalViews(**options))
    return add_views(tiled, dilated=DilatedViews())


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("size", [(16, 16), (16, 11), (9, 16)])
def test_one_view_is_plain_sampling_to_the_bit(sampler, size):
    plain = sample(patcher(smooth), latent(*size), sampler=sampler)
    viewed = sample(both(patcher(smooth)), latent(*size), sampler=sampler)
    assert (plain - viewed).abs().max() == 0.0


@pytest.mark.parametrize("size", [(32, 32), (37, 21), (48, 10)])
def test_any_view_batch_size_gives_the_same_latent(size):
    results = [
        sample(add_views(both(patcher(smooth)), view_batch_size=n), latent(*size, batch=2))
        for n in (0, 1, 3, 16)
    ]
    for other in results[1:]:
        assert (results[0] - other).abs().max() <= 1e-5 * results[0].abs().max()


def test_same_seed_same_latent_and_another_seed_another():
    model = both(patcher(smooth))
    first, again = sample(model, latent(32, 32)), sample(model, latent(32, 32))
    other = sample(model, latent(32, 32), seed=8, noise=torch.randn(1, 4, 32, 32))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_node_order_does_not_matter():
    base = patcher(smooth)
    one = add_views(add_views(base, local=LocalViews()), dilated=DilatedViews())
    two = add_views(add_views(base, dilated=DilatedViews()), local=LocalViews())
    assert torch.equal(sample(one, latent(32, 48)), sample(two, latent(32, 48)))
    assert len(one.get_wrappers("calc_cond_batch", KEY)) == 1


def test_the_model_samples_as_before_afterwards():
    base = patcher(smooth)
    before = sample(base, latent(32, 32))
    sample(both(base), latent(32, 32))
    assert torch.equal(before, sample(base, latent(32, 32)))
    assert KEY not in base.model_options and not base.wrappers.get("calc_cond_batch")


def test_views_are_batched_into_few_calls():
    model = add_views(patcher(smooth), local=LocalViews(jitter=False))
    sample(model, latent(64, 64), steps=2)
    calls = model.model.calls
    assert len(calls) == 2 * 4  # 49 windows, at most 16 a call; cond and uncond together
    assert {tuple(c.shape[1:]) for c in calls} == {(4, NATIVE, NATIVE)}


def place_map(height, width):
    rows = torch.arange(height).view(-1, 1) * 1000.0
    return (rows + torch.arange(width)).view(1, 1, height, width)


def where(x, sigma, conds):
    """x0 is the place on the canvas that the view was told it shows."""
    return conds["map"].expand_as(x).clone()


def placed(height, width):
    return {"map": place_map(height, width)}


def smooth_any(x, sigma=None, conds=None):
    return torch.tanh(x)


def text_only():
    import comfy.conds

    return {"c_crossattn": comfy.conds.CONDCrossAttn(torch.ones(1, 1, 1))}


def one_call(model, x, sigma=5.0, conds=None):
    """x0 of a single denoiser call on the canvas, no guidance."""
    model.pre_run()
    sigma = torch.full((x.shape[0],), sigma)
    positive = [{"model_conds": conds, "uuid": 0}]
    host = denoiser.comfy.patcher_extension.WrapperExecutor.new_executor(
        denoiser.comfy.samplers._calc_cond_batch,
        [w for ws in model.wrappers["calc_cond_batch"].values() for w in ws],
    )
    return host.execute(model.model, [positive, None], x, sigma, model.model_options)[0]


def located(canvas):
    import comfy.conds

    return {
        "c_crossattn": comfy.conds.CONDCrossAttn(torch.ones(1, 1, 1)),
        "map": comfy.conds.CONDNoiseShape(place_map(*canvas)),
    }


@pytest.mark.parametrize("canvas", [(40, 33), (16, 50), (31, 31)])
def test_local_views_see_their_own_place(canvas):
    model = add_views(patcher(where), local=LocalViews(border="clamp"))
    out = one_call(model, latent(*canvas), conds=located(canvas))
    assert torch.allclose(out, place_map(*canvas).expand_as(out), rtol=1e-5)


@pytest.mark.parametrize("canvas", [(32, 32), (40, 33), (16, 23)])
@pytest.mark.parametrize("border", windows.BORDERS)
def test_windows_are_the_weighted_mean_of_what_they_see(canvas, border):
    """Against a plain loop: cut, denoise, weigh by cosine in the window's place, divide."""
    x = latent(*canvas)
    model = add_views(patcher(smooth), local=LocalViews(border=border))
    got = one_call(model, x, conds=text_only())
    margin = NATIVE  # of zeros around the canvas, so that slices stay inside
    padded = torch.nn.functional.pad(x, (margin,) * 4)
    total, count = torch.zeros_like(padded), torch.zeros(padded.shape[-2:])
    places = windows.windows(canvas, NATIVE, NATIVE // 2, random.Random("0/5.000e+00"), border)
    assert canvas[0] == NATIVE or any(min(place[:2]) < 0 for place in places)
    weight = windows.window_weight(places[0].height, places[0].width, "cosine")
    for top, left, height, width in places:
        weighed = torch.zeros(padded.shape[-2:])
        weighed[top + margin :, left + margin :][:height, :width] = weight
        if border == "clamp":
            top = min(max(top, 0), canvas[0] - height)
            left = min(max(left, 0), canvas[1] - width)
        inside = (..., slice(top + margin, top + margin + height))
        inside += (slice(left + margin, left + margin + width),)
        x0 = torch.zeros_like(padded)
        x0[inside] = smooth(padded[inside], torch.tensor([5.0]), {"context": torch.ones(1, 1, 1)})
        total += x0 * weighed
        count += weighed
    inner = (..., slice(margin, margin + canvas[0]), slice(margin, margin + canvas[1]))
    assert torch.allclose(got, total[inner] / count[inner[1:]], atol=1e-5)


@pytest.mark.parametrize("canvas", [(40, 33), (48, 48), (31, 50)])
def test_global_views_see_their_own_place(canvas):
    # sigma is tiny, so that blur is the identity and x0 is what the lattices were given.
    model = add_views(patcher(where), dilated=DilatedViews(factor=3, cosine_scale_2=0, sigma=1e-3))
    x = latent(*canvas)
    out = one_call(model, x, conds=located(canvas))
    assert torch.allclose(out, place_map(*canvas).expand_as(out), rtol=1e-4, atol=1e-2)


def test_mixed_result_is_the_right_mean():
    canvas = (48, 48)

    # A denoiser that tells windows (7) from lattices (3) by their size.
    def kind(x, sigma, conds):
        return torch.full_like(x, 7.0 if x.shape[-1] == NATIVE else 3.0)

    plan = DilatedViews(factor=4, sigma=1e-3)
    model = add_views(patcher(kind), local=LocalViews(), dilated=plan)
    time = denoiser.diffusion_time(model.model.model_sampling, torch.tensor([5.0]))
    share = denoiser.schedule.cosine_factor(time, 1.0)
    out = one_call(model, torch.zeros(1, 4, *canvas), conds=located(canvas))
    assert 0.05 < share < 0.95
    assert torch.allclose(out, torch.full_like(out, (1 - share) * 7 + share * 3), atol=1e-4)


def test_masked_conds_are_cut_like_the_latent():
    canvas = (32, 32)
    left, right = torch.zeros(1, *canvas), torch.zeros(1, *canvas)
    left[..., :13], right[..., 13:] = 1, 1

    def text(x, sigma, conds):
        return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()

    positive = cond(2.0, mask=left) + cond(5.0, mask=right)
    for model in (
        add_views(patcher(text), local=LocalViews(border="clamp")),
        add_views(patcher(text), dilated=DilatedViews(cosine_scale_2=0, sigma=1e-3)),
    ):
        out = sample(model, torch.zeros(1, 4, *canvas), cfg=1.0, positive=positive)
        scale = model.model.latent_format.scale_factor
        assert torch.allclose(out[..., :13] * scale, torch.tensor(2.0), atol=1e-2)
        assert torch.allclose(out[..., 13:] * scale, torch.tensor(5.0), atol=1e-2)


def test_masks_with_bounds_are_cut_too():
    mask = torch.zeros(1, 32, 32)
    mask[:, 4:20, 3:29] = 1
    options = {"mask": mask, "set_area_to_bounds": True}
    positive = cond(2.0, **options) + cond(5.0)
    out = sample(both(patcher(smooth)), latent(32, 32), positive=positive)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(2, 4, 3, 33, 20), (1, 16, 24, 40)])
def test_frames_and_other_channels(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    out = one_call(both(patcher(smooth_any)), x, conds=text_only())
    # A denoiser without a neighbourhood sees the same in every view, but for the blur.
    assert out.shape == shape and torch.isfinite(out).all()
    sharp = add_views(patcher(smooth_any), local=LocalViews(border="clamp"))
    assert torch.allclose(one_call(sharp, x, conds=text_only()), smooth_any(x), atol=1e-5)


def test_a_native_picture_keeps_every_conditioning():
    model = both(patcher(smooth))
    area = cond(1.0, area=(8, 8, 0, 0)) + cond(1.0)
    plain = sample(patcher(smooth), latent(16, 16), positive=area)
    assert torch.equal(plain, sample(model, latent(16, 16), positive=area))


def test_memory_is_asked_for_the_largest_call_only():
    asked = []

    def host(model, shape, conds, *args, **kwargs):
        asked.append(shape)

    for count in (1, 256):
        model = add_views(both(patcher(smooth)), view_batch_size=count)
        denoiser.estimate_view_memory(
            host, model, [2, 4, 40, 40], {}, model_options=model.model_options
        )
    # Windows are 16 x 16; round(40 / 16) = 2 makes lattices of 20 x 20; 16 windows, 4 lattices.
    assert asked == [[2, 4, 20, 20], [2 * 16, 4, 20, 20]]


def test_bad_strides_are_refused_before_sampling():
    model = add_views(patcher(smooth), local=LocalViews(window=16, stride=20))
    with pytest.raises(ValueError, match="stride between 1 and 16"):
        sample(model, latent(32, 32))
    assert model.model.calls == []


def test_interrupt_in_a_view_stops_the_run_and_the_next_is_right():
    model = add_views(both(patcher(smooth)), view_batch_size=1)
    right = sample(model, latent(32, 32))

    def interrupting(x, sigma, conds):
        if len(model.model.calls) == 3:
            comfy.model_management.interrupt_current_processing()
        return smooth(x, sigma, conds)

    model.model.calls.clear()
    model.model.denoiser = interrupting
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, latent(32, 32))
    assert len(model.model.calls) == 3
    model.model.denoiser = smooth
    assert torch.equal(right, sample(model, latent(32, 32)))


def test_out_of_memory_halves_the_views_and_goes_on():
    model = both(patcher(smooth))
    right = sample(model, latent(48, 48))
    sizes = []

    def small_device(x, sigma, conds):
        sizes.append(x.shape[0])
        if x.shape[0] > 2 * 4:
            raise comfy.model_management.OOM_EXCEPTION("out of memory")
        return smooth(x, sigma, conds)

    model.model.denoiser = small_device
    out = sample(model, latent(48, 48))
    assert (right - out).abs().max() <= 1e-5 * right.abs().max()
    assert sum(size > 8 for size in sizes) <= 3  # remembered for the rest of the run
