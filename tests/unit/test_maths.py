"""Schedules, filters, upsampling and stage plans against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hires_fusion.fusion_ops.filters import blur, match_statistics, statistics
from hires_fusion.fusion_ops.presets import PRESETS, rectified
from hires_fusion.fusion_ops.schedule import (
    blur_sigma,
    cosine_factor,
    end_of_schedule,
    skipped_steps,
    stretch,
)
from hires_fusion.fusion_ops.stages import Places, plan_run, plan_stages, settle, stage_size
from hires_fusion.fusion_ops.upsample import resize


# (t, c2, c1, blur) of the published code with scales 3, 1, 1 and sigma 0.8
@pytest.mark.parametrize(
    ("t", "c2", "c1", "width"),
    [
        (981, 0.9991, 0.9973, 0.799),
        (801, 0.905, 0.742, 0.725),
        (601, 0.656, 0.282, 0.528),
        (501, 0.502, 0.126, 0.405),
        (301, 0.207, 0.0089, 0.172),
        (1, 0.0, 0.0, 0.008),
    ],
)
def test_published_schedule(t, c2, c1, width):
    assert cosine_factor(t / 1000, 1) == pytest.approx(c2, abs=6e-4)
    assert cosine_factor(t / 1000, 3) == pytest.approx(c1, abs=6e-4)
    assert blur_sigma(t / 1000, 0.8, 1) == pytest.approx(width, abs=6e-4)


def test_schedule_ends():
    assert cosine_factor(1, 2.5) == 1 and cosine_factor(0, 2.5) == 0
    assert cosine_factor(0.3, 0) == 1


def test_blur_of_a_point_is_the_kernel():
    x = torch.zeros(1, 2, 9, 9)
    x[0, :, 4, 4] = 1
    line = [math.exp(-(i**2) / (2 * 0.8**2)) for i in (-1, 0, 1)]
    expected = torch.tensor(line) / sum(line)
    got = blur(x, 3, 0.8)
    assert torch.allclose(got[0, 1, 3:6, 3:6], expected[:, None] * expected, atol=1e-6)
    assert got.sum() == pytest.approx(2, abs=1e-5)


def test_blur_has_zeros_outside():
    got = blur(torch.ones(1, 1, 4, 4), 3, 0.8)
    side = 1 - math.exp(-1 / 1.28) / (1 + 2 * math.exp(-1 / 1.28))
    assert got[0, 0, 0, 0] == pytest.approx(side**2, abs=1e-5)
    assert got[0, 0, 1, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 7, 5), (1, 16, 3, 6, 6)])
def test_blur_limits(shape):
    x = torch.randn(shape)
    assert blur(x, 1, 0.8) is x
    assert torch.allclose(blur(x, 3, 0.01), x)
    assert blur(x, 5, 2.0).shape == shape


def test_statistics_are_matched_per_sample():
    x, reference = torch.randn(3, 4, 6, 5) * 3 + 1, torch.randn(3, 4, 9, 9) * 0.5 - 2
    got = match_statistics(x, reference)
    for mine, wanted in zip(got, reference, strict=True):
        assert mine.mean() == pytest.approx(float(wanted.mean()), abs=1e-5)
        assert mine.std() == pytest.approx(float(wanted.std()), abs=1e-5)
    assert torch.allclose(match_statistics(x, x), x, atol=1e-5)
    assert torch.isfinite(match_statistics(torch.ones(1, 4, 3, 3), reference[:1])).all()


@pytest.mark.parametrize("size", [(7, 5), (20, 14), (13, 31)])
def test_resize_is_the_published_bicubic(size):
    x = torch.randn(2, 4, 10, 7)
    assert torch.equal(resize(x, size), F.interpolate(x, size=size, mode="bicubic"))
    frames = resize(x[:, :, None].repeat(1, 1, 3, 1, 1), size)
    assert frames.shape == (2, 4, 3, *size) and torch.equal(frames[:, :, 1], resize(x, size))


def scales(*args):
    return [stage.scale for stage in plan_stages(*args)]


def test_presets_plan_every_whole_number():
    assert scales("DemoFusion", 4.0) == [2, 3, 4]
    assert scales("DemoFusion", 2.5) == [2, 2.5]
    assert scales("DemoFusion", 1.5) == [1.5]
    assert all(plan_stages(name, 2.0) for name in PRESETS)


def test_windows_of_a_preset_fit_any_native_size():
    (turbo,), (published,) = PRESETS["DemoFusion-Turbo"].rows, PRESETS["DemoFusion"].rows
    assert [turbo.stride_cells(n) for n in (128, 64, 32)] == [96, 48, 24]
    assert [published.stride_cells(n) for n in (128, 64, 1)] == [64, 32, 1]


def pixels(preset, target, init_rates="", native=(1024, 1024)):
    """Sizes of the stages of SDXL's pictures, as the papers give them."""
    cells = tuple(side // 8 for side in native)
    plan = plan_stages(preset, target / native[0], init_rates=init_rates)
    return [tuple(side * 8 for side in stage_size(cells, stage.scale)) for stage in plan]


def test_pixel_space_stages_have_the_published_sizes():
    assert pixels("RepLDM", 4096) == [(2560, 2560), (4096, 4096)]
    assert pixels("AP-LDM", 4096) == [(2984, 2984), (4096, 4096)]
    assert pixels("RepLDM", 3072, "0.8, 0.8") == [(2048, 2048), (3072, 3072)]
    assert pixels("AP-LDM", 3072, "[0.8, 0.8]") == [(2288, 2288), (3072, 3072)]
    assert pixels("RepLDM", 2048) == pixels("AP-LDM", 2048) == [(2048, 2048)]
    assert pixels("FreeScale-style restart", 4096) == [(2048, 2048), (4096, 4096)]
    assert pixels("FreeScale-style restart", 3072) == [(2048, 2048), (3072, 3072)]
    assert pixels("RepLDM", 2048, native=(768, 1360))[-1] == (2048, 3624)


def test_pixel_space_stages_start_where_they_are_published_to():
    assert [s.start for s in plan_stages("RepLDM", 4)] == [0.9, 0.8]
    assert [s.start for s in plan_stages("RepLDM", 3)] == [0.8]
    repldm, apldm = plan_stages("RepLDM", 2)[0], plan_stages("AP-LDM", 2)[0]
    assert repldm.match and not apldm.match and repldm.lift == "pixel bicubic"
    assert not (repldm.tiled or repldm.dilated or repldm.skip_residual)
    restart = plan_stages("FreeScale-style restart", 2)[0]
    assert restart.start == 0.3 and restart.skip_residual and restart.cosine_scale_1 == 2


def published(preset, native, target):
    """(sizes, starts of 50 steps, cfg) of a preset's stages."""
    stages = plan_stages(preset, target[0] / native[0])
    sizes = [stage_size(native, s.scale, align=8) for s in stages]
    return sizes, [round(50 * s.start) for s in stages], [s.cfg for s in stages]


def test_rectifiedhr_plans_the_published_stages():
    sizes, starts, cfgs = published("RectifiedHR", (1024, 1024), (4096, 4096))
    assert (sizes, starts) == ([(2560, 2560), (4096, 4096)], [40, 47])
    assert cfgs == pytest.approx([36.8198, 50], abs=1e-4)
    assert [s.end for s in plan_stages("RectifiedHR", 4)] == [0.94, 1]
    assert published("RectifiedHR", (1024, 1024), (2048, 2048)) == ([(2048, 2048)], [40], [30])
    assert published("RectifiedHR (released)", (1024, 1024), (2048, 2048))[1] == [30]
    three = published("RectifiedHR", (1024, 1024), (3072, 3072))
    assert three == ([(2048, 2048), (3072, 3072)], [40, 45], [22.5, 40])
    wide = rectified(3, 40, 50)  # 1536 x 768 to 4096 x 2048
    assert [(s.start, s.end, s.cfg) for s in wide] == [(0.8, 0.9, 27.5), (0.9, 1, 50)]
    assert stage_size((1536, 768), (1 + 4096 / 1536) / 2, align=8) == (2816, 1408)


def test_frecas_starts_where_the_law_of_noise_says():
    """Its published times of SDXL's schedule: 343 after 200; 606 after 400 and 395 after 200."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bar = (1 - betas).cumprod(0)
    levels = ((1 - bar) / bar).sqrt()
    whole = Places(lambda sigma: 0.0, lambda share: 0.0)
    found = {
        scale: [s.sigma for s in settle(plan_run("FreCaS", scale), whole, flow=False)]
        for scale in (2, 4)
    }
    times = {s: [int(torch.searchsorted(levels, x)) for x in found[s]] for s in found}
    assert times == {2: [pytest.approx(343, abs=1)], 4: pytest.approx([606, 395], abs=1)}


def test_init_rates_replace_the_stages():
    plan = plan_stages("DemoFusion", 4, init_rates="0.5, 0.6, 0.7")
    assert [(s.scale, s.start) for s in plan] == [(2, 0.5), (3, 0.6), (4, 0.7)]
    assert [s.scale for s in plan_stages("DemoFusion", 4, init_rates="0")] == [4]


@pytest.mark.parametrize("rates", ["1", "x", "0.5; 0.6", "-0.1"])
def test_bad_init_rates_are_refused_with_the_fix(rates):
    with pytest.raises(ValueError, match=r"0\.9, 0\.8"):
        plan_stages("RepLDM", 2, init_rates=rates)
    with pytest.raises(ValueError, match="empty one"):
        plan_stages("RepLDM", 2, '[{"scale": 2}]', init_rates="0.8")


def test_a_stage_skips_its_share_rounded_down():
    # AP-LDM: 0.8 of 50 leaves the last 10, 0.9 the last 5.
    assert [50 - skipped_steps(50, rate) for rate in (0.8, 0.9, 0.0)] == [10, 5, 50]
    assert skipped_steps(25, 0.5) == 12 and skipped_steps(50, 0.58) == 29
    sigmas = torch.arange(31, -1, -1.0)  # a step more than the 30 asked for
    assert end_of_schedule(sigmas, 30, 0.8).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert len(end_of_schedule(sigmas, 30, 0)) == 31 and len(end_of_schedule(sigmas, 99, 0)) == 32
    assert skipped_steps(4, 0.99) == 3 and skipped_steps(1, 0.9) == 0


def test_listed_stages_take_the_preset_for_what_they_leave_out():
    plan = plan_stages("DemoFusion", 9, '[{"scale": 2}, {"scale": 4, "start": 0.3, "cfg": 4}]')
    assert [s.scale for s in plan] == [2, 4]
    assert plan[0].start == 0 and plan[0].cfg is None and plan[0].skip_residual
    assert plan[1].start == 0.3 and plan[1].cfg == 4 and plan[1].cosine_scale_1 == 3


@pytest.mark.parametrize(
    ("rows", "fix"),
    [
        ("2, 3", "JSON"),
        ("[]", "JSON list"),
        ('[{"size": 2}]', "use scale"),
        ('[{"start": 0.2}]', '"scale": 2'),
        ('[{"scale": 3}, {"scale": 2}]', "small to large"),
        ('[{"scale": true}]', "a number"),
        ('[{"scale": 2, "steps": 2.5}]', "whole number"),
        ('[{"scale": 2, "start": 1}]', "0 to 0.99"),
        ('[{"scale": 2, "stride": 64}]', "0.01 to 1"),
        ('[{"scale": 2, "lift": "magic"}]', "latent bicubic"),
        ('[{"scale": 2, "tiled": 1}]', "true or false"),
    ],
)
def test_bad_stages_are_refused_with_the_fix(rows, fix):
    with pytest.raises(ValueError, match=fix):
        plan_stages("DemoFusion", 2, rows)


def test_a_picture_that_is_large_already_is_one_stage_without_a_lift():
    for preset in PRESETS:
        (stage,) = plan_stages(preset, 1.0)
        assert (stage.scale, stage.lift, stage.unsharp, stage.lfm) == (1, "none", 0, 0)
    with pytest.raises(ValueError, match="no smaller than the native"):
        plan_stages("DemoFusion", 0.9)


def test_a_run_ends_early_with_the_prediction_of_its_last_step():
    sigmas = torch.arange(50.0, -1.0, -1.0)
    assert end_of_schedule(sigmas, 50, 0.8, 0.94).tolist() == [10, 9, 8, 7, 6, 5, 4, 0]
    assert end_of_schedule(sigmas, 50, 0.8, 0.1).tolist() == [10, 0]
    assert torch.equal(end_of_schedule(sigmas, 50, 0.8, 1.0), end_of_schedule(sigmas, 50, 0.8))


def test_a_part_of_a_schedule_has_both_its_ends():
    def halving(steps):
        return [*(2.0 ** -(20 * step / steps) for step in range(steps)), 0.0]

    assert stretch(halving, 2**-2, 2**-6, 5) == pytest.approx(
        [2**-2, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 0]
    )
    assert stretch(halving, 0.25, 0.1, 1) == [0.25, 0]
    assert stretch(halving, 0.25, 0.1, 2) == [0.25, 0.1, 0]


def test_stage_sizes_round_to_cells():
    assert stage_size((32, 21), 1.5) == (48, 32)
    assert stage_size((32, 22), 1.3, align=2) == (42, 28)


def test_weighted_statistics_by_hand():
    x = torch.tensor([[[[0.0, 2.0, 4.0, 100.0]]]])
    mean, std = statistics(x, torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]]))
    assert mean.item() == 2.0 and std.item() == 2.0
    mean, std = statistics(x, torch.tensor([[[[2.0, 0.0, 1.0, 0.0]]]]))
    assert mean.item() == pytest.approx(4 / 3)
    assert std.item() == pytest.approx(((2 * 16 / 9 + 64 / 9) / (3 - 5 / 3)) ** 0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(statistics(x, 0 * x), 2 * (mean * 0,), strict=True)
    )
    for plain, weighted in zip(statistics(x), statistics(x, torch.full_like(x, 0.5)), strict=True):
        assert torch.allclose(plain, weighted)
