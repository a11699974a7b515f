"""Shifted windows: every cell once, one size, no way around the edge."""

from __future__ import annotations

import random

import pytest
import torch

from hires_fusion.fusion_ops.shifted import axis_grid, shifted_windows
from hires_fusion.fusion_ops.windows import WindowSet

CANVASES = [(256, 256), (128, 512), (129, 257), (33, 70), (40, 17), (16, 16), (9, 50), (384, 250)]


def test_sides_by_hand():
    assert axis_grid(256, 128) == (144, 2, 32)
    assert axis_grid(384, 128) == (140, 3, 36)
    assert axis_grid(64, 32) == (36, 2, 8) and axis_grid(32, 16) == (18, 2, 4)
    assert axis_grid(512, 128) == (136, 4, 32)
    assert axis_grid(192, 128) == (128, 2, 64)  # room enough as it is
    assert axis_grid(128, 128) == (128, 1, 0) and axis_grid(5, 128) == (5, 1, 0)
    assert axis_grid(3, 1) == (2, 2, 1)


@pytest.mark.parametrize("window", [16, 32, 128])
@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("align", [1, 2])
def test_every_cell_is_written_once(canvas, window, align):
    for seed in range(12):
        places = shifted_windows(canvas, window, random.Random(seed), align)
        count = torch.zeros(canvas)
        for place in places:
            rows, columns, *_ = place.inside(canvas)
            assert rows.stop > rows.start and columns.stop > columns.start
            count[rows, columns] += 1
            assert place.top % align == 0 and place.left % align == 0
        assert (count == 1).all()
        assert len({(p.height, p.width) for p in places}) == 1
        assert max(places[0][2:]) <= window * 9 / 8 + 2 * align


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("align", [1, 2])
def test_views_are_the_canvas_and_make_it_again(canvas, align):
    x = torch.randn(2, 3, *canvas, generator=torch.Generator().manual_seed(0))
    views = WindowSet(shifted_windows(canvas, 16, random.Random(3), align), canvas)
    assert all(top >= 0 and left >= 0 for top, left in views.origins)
    assert all(
        top + views.size[0] <= canvas[0] and left + views.size[1] <= canvas[1]
        for top, left in views.origins
    )
    for chosen, (top, left) in enumerate(views.origins):
        one = views.stack(x, slice(chosen, chosen + 1))
        height, width = views.size
        assert torch.equal(one, x[..., top : top + height, left : left + width])
    assert torch.equal(views.merge(views.stack(x)), x)


def test_few_windows():
    for times in (2, 3, 4):
        assert len(shifted_windows((128 * times,) * 2, 128, random.Random(0))) == times**2


def test_shifts_follow_the_seed_and_reach_everywhere():
    def draw(seed):
        return shifted_windows((256, 256), 128, random.Random(seed))

    assert draw("7/3") == draw("7/3") and draw("7/3") != draw("7/4")
    tops = {draw(seed)[0].top for seed in range(400)}
    assert tops == set(range(-32, 1))
    assert any(len({p.left for p in draw(seed)}) > 2 for seed in range(5))  # rows on their own
    still = shifted_windows((256, 256), 128)
    assert {(p.top, p.left) for p in still} == {(-16, -16), (-16, 128), (128, -16), (128, 128)}
