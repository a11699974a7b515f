"""Low-passes, what is made of them, and the shrunk canvas, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hires_fusion.fusion_ops.bands import (
    LOW_PASSES,
    LowPass,
    check_low_pass,
    low_pass,
    refine,
    weighted,
)
from hires_fusion.fusion_ops.pooled import PooledSet, lowered, shrink
from hires_fusion.fusion_ops.schedule import ANCHORS, anchor_weight, steps_done


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", LOW_PASSES)
@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 16, 9, 15), (2, 3, 2, 7, 5), (1, 1, 1, 3)])
def test_a_low_pass_is_linear_and_keeps_a_constant(kind, shape):
    band = LowPass(kind, 0.3)
    x, y = randn(*shape), randn(*shape, seed=1)
    both = low_pass(2 * x - y, band)
    assert torch.allclose(both, 2 * low_pass(x, band) - low_pass(y, band), atol=1e-5)
    flat = torch.full(shape, 3.0)
    assert torch.allclose(low_pass(flat, band), flat, atol=1e-5)
    assert low_pass(x.half(), band).dtype == torch.float32


@pytest.mark.parametrize("kind", LOW_PASSES)
def test_pictures_and_frames_do_not_mix(kind):
    x, band = randn(2, 3, 2, 9, 7), LowPass(kind, 0.4)
    whole = low_pass(x, band)
    assert torch.allclose(low_pass(x[:1], band), whole[:1], atol=1e-6)
    assert torch.allclose(low_pass(x[:, 2:], band), whole[:, 2:], atol=1e-6)
    assert torch.allclose(low_pass(x[:, :, 1], band), whole[:, :, 1], atol=1e-6)


def test_resizing_by_hand():
    line = torch.tensor([[[[0.0, 0, 1, 0]]]])
    # Two means of two, then bilinear: ends stay, the middle is mixed 3 : 1.
    plain = low_pass(line, LowPass("resize_aliased", 0.5))
    assert plain.flatten().tolist() == pytest.approx([0, 0.125, 0.375, 0.5])
    # Anti-aliased: a triangle of twice the width, 3 3 1 and 1 3 3 of 7.
    first, second = 1 / 7, 3 / 7
    smooth = low_pass(line, LowPass("resize", 0.5))
    middle = [0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second]
    assert smooth.flatten().tolist() == pytest.approx([first, *middle, second])


def test_haar_by_hand():
    x = torch.tensor([[1.0, 3, 10], [5, 7, 20], [2, 4, 9]])[None, None]
    want = torch.tensor([[4.0, 4, 15], [4, 4, 15], [3, 3, 9]])[None, None]
    assert torch.equal(low_pass(x, LowPass("haar", 0.5)), want)
    assert torch.equal(low_pass(x, LowPass("haar", 1.0)), x)
    mean = low_pass(x[..., :2, :2], LowPass("haar", 0.25))  # blocks of four, of what there is
    assert torch.equal(mean, torch.full((1, 1, 2, 2), 4.0))


@pytest.mark.parametrize("kind", ["haar"])
def test_bands_of_a_wavelet_are_exclusive(kind):
    """Perfect reconstruction; w_d = 1 is D_c; the LL band of the guided is D_c's."""
    band, unguided, cond = LowPass(kind, 0.5), randn(1, 4, 9, 14), randn(1, 4, 9, 14, seed=1)
    low = low_pass(cond, band)
    assert torch.allclose(low_pass(low, band), low, atol=1e-6)
    assert low_pass(cond - low, band).abs().max() < 1e-6
    assert torch.allclose(weighted(cond, 1.0, 1.0, band), cond)
    guided = unguided + weighted(cond - unguided, 1.0, 7.5, band)
    assert torch.allclose(low_pass(guided, band), low, atol=1e-5)
    assert not torch.allclose(guided, cond)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 16), (15, 16)])
def test_butterworth_halves_at_its_cutoff(height, width):
    place = torch.arange(width) * 2 * math.pi / width
    for periods, kept in ((1, 1.0), (2, 1 / (1 + 0.5**8)), (4, 0.5), (8, 1 / (1 + 2**8))):
        wave = torch.cos(periods * place).expand(1, 1, height, width)
        got = low_pass(wave, LowPass("butterworth", 4 / 8))
        assert torch.allclose(got, kept * wave, atol=1e-4)


def test_refining():
    a, b, band = randn(1, 4, 8, 6), randn(2, 4, 8, 6, seed=1), LowPass("resize", 0.25)
    assert refine(a, b, 0, band) is b
    assert torch.equal(refine(b, b, 0.7, band), b)
    want = b + 0.4 * (low_pass(a, band) - low_pass(b, band))
    assert torch.allclose(refine(a, b, 0.4, band), want, atol=1e-6)
    assert refine(a, b.half(), 0.4, band).dtype == torch.float16


@pytest.mark.parametrize("band", [LowPass("blur", 0.5), LowPass("haar", 0), LowPass("haar", 1.5)])
def test_low_passes_that_are_none_are_refused(band):
    with pytest.raises(ValueError, match="choose one"):
        check_low_pass(band)


def test_weights_of_the_published_schedules():
    assert [anchor_weight(kind, 0.3, 0.6, 0.25) for kind in ANCHORS] == [0.5, 1.0, 0.75]
    assert {anchor_weight(kind, 0.6, 0.6, 0.0) for kind in ANCHORS} == {1.0}
    with pytest.raises(ValueError, match="choose one"):
        anchor_weight("cosine", 1, 1, 0)


def test_steps_that_are_done():
    sigmas = [8.0, 4.0, 2.0, 1.0, 0.0]
    assert [steps_done(sigmas, s) for s in sigmas] == [0, 0.25, 0.5, 0.75, 1]
    assert steps_done(sigmas, 3.0) == pytest.approx(1.5 / 4)
    assert steps_done(sigmas, 9.0) == 0 and steps_done(sigmas, 8.01) == 0
    standing = [2.0, 2.0, 0.0]
    assert steps_done(standing, 2.0) == 0.5 and steps_done(standing, 3.0) == 0


@pytest.mark.parametrize("align", [1, 2])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("canvas", [(12, 24), (13, 7), (37, 50), (2, 33), (1, 1)])
def test_every_cell_is_in_the_block_that_corrects_it(canvas, factor, align):
    pooled = PooledSet(factor, canvas, align)
    assert all(side % align == 0 for side in pooled.size)
    # One mark on the canvas: the blocks that see it, and the block that the cell is given.
    places = torch.arange(math.prod(pooled.size), dtype=torch.float32).view(1, 1, *pooled.size)
    given = pooled.enlarge(places)
    assert given.shape[-2:] == canvas
    for row in {0, canvas[0] // 2, canvas[0] - 1}:
        for column in {0, canvas[1] // 3, canvas[1] - 1}:
            mark = torch.zeros(1, 1, *canvas)
            mark[..., row, column] = 1
            seen = pooled.stack(mark)
            assert seen.flatten()[int(given[0, 0, row, column])] > 0
            assert seen.max() == pytest.approx(1 / pooled.shrinks_noise**2)


def test_noise_is_weaker_by_the_factor_everywhere():
    for canvas in ((24, 24), (23, 26)):
        pooled = PooledSet(3, canvas)
        small = pooled.stack(randn(4000, 1, *canvas))
        assert pooled.shrinks_noise == pytest.approx(3)
        assert torch.allclose(small.std(0), torch.tensor(1 / 3), atol=0.03)


def test_shrinking_by_hand():
    x = torch.arange(5.0).expand(1, 1, 2, 5)
    # Five columns in three blocks of two: 0 1, 1 2 or 2 3 (here at 2), 3 4.
    assert shrink(x, (1, 3), 2).flatten().tolist() == [0.5, 2.5, 3.5]
    assert shrink(x.long(), (1, 3), 2).flatten().tolist() == [1, 3, 4]
    pooled = PooledSet(2, (2, 5))
    assert torch.equal(
        pooled.enlarge(pooled.stack(x))[0, 0, 0], torch.tensor([0.5, 0.5, 2.5, 3.5, 3.5])
    )
    assert torch.equal(
        PooledSet(2, (4, 4)).stack_image(x.new_ones(1, 3, 32, 32), 8), torch.ones(1, 3, 16, 16)
    )


def test_levels_of_the_shrunk_canvas():
    level, share = lowered(torch.tensor([6.0]), 3, False)
    assert level.item() == 2.0 and share.item() == 1.0
    level, share = lowered(torch.tensor([0.5, 1.0]), 2, True)
    assert share.tolist() == [0.75, 0.5]
    assert level.tolist() == pytest.approx([1 / 3, 1.0])
    # The picture's part and the noise's part of x / N sum to one, as a flow model expects.
    assert ((1 - 0.5) / share[0]).item() + level[0].item() == pytest.approx(1)
