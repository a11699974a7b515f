"""Geometry of windows and lattices: properties that hold for every canvas."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hires_fusion.fusion_ops.lattices import LatticeSet, dilation_factor
from hires_fusion.fusion_ops.windows import (
    BORDERS,
    WINDOW_WEIGHTS,
    Window,
    WindowSet,
    aligned,
    jitter_range,
    moving_starts,
    window_starts,
    window_weight,
    windows,
)

sides = st.integers(1, 90)
canvases = st.tuples(sides, sides)
grids = st.integers(1, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w)))
seeds = st.none() | st.integers(0, 2**32)


def drawn(seed):
    return None if seed is None else random.Random(seed)


@given(canvases, grids, seeds, st.sampled_from(BORDERS))
def test_every_cell_is_covered_by_windows_of_one_size(canvas, grid, seed, border):
    window, stride = grid
    places = windows(canvas, window, stride, drawn(seed), border)
    count = torch.zeros(canvas)
    for place in places:
        rows, columns, own_rows, own_columns = place.inside(canvas)
        assert (place.height, place.width) == (min(window, canvas[0]), min(window, canvas[1]))
        assert own_rows.stop - own_rows.start == rows.stop - rows.start
        assert own_columns.stop - own_columns.start == columns.stop - columns.start
        count[rows, columns] += 1
    assert count.min() >= 1


aligns = st.sampled_from([1, 2, 3, 16])


@given(canvases, grids, aligns, seeds, st.sampled_from(BORDERS))
def test_aligned_windows_start_on_patches(canvas, grid, align, seed, border):
    """A patch is the unit: the canvas may end in half a one, and only its last windows do too."""
    window, stride = (aligned(side, align) for side in grid)
    places = windows(canvas, window, stride, drawn(seed), border, align)
    count = torch.zeros(canvas)
    reach = jitter_range(window, stride, align)
    assert reach % align == 0
    for place in places:
        rows, columns, _, _ = place.inside(canvas)
        count[rows, columns] += 1
        starts = ((place.top, place.height), (place.left, place.width))
        for (start, size), length in zip(starts, canvas, strict=True):
            assert size == min(window, length) and (size % align == 0 or size == length)
            assert start % align == 0 or (start - (length - size)) % align == 0
            if border == "clamp" and seed is not None:
                assert start % align == 0
            else:
                assert -reach <= start <= length - size + reach
            if start % align:  # moved back to, or from, the ragged edge
                assert length % align and abs(start - (length - size)) <= reach
    assert count.min() >= 1
    for cut in WindowSet(places, canvas).cuts:
        starts = ((cut.top, cut.height), (cut.left, cut.width))
        for (start, size), length in zip(starts, canvas, strict=True):
            assert 0 <= start <= length - size
            assert start % align == 0 or (start == length - size and length % align)


@given(canvases, grids, aligns, seeds, st.sampled_from(BORDERS))
def test_merging_aligned_windows_gives_the_canvas_back(canvas, grid, align, seed, border):
    window, stride = (aligned(side, align) for side in grid)
    places = windows(canvas, window, stride, drawn(seed), border, align)
    views = WindowSet(places, canvas)
    x = torch.randn(1, 2, *canvas)
    assert torch.allclose(views.merge(views.stack(x)), x, atol=1e-4)


@given(canvases, grids, seeds)
def test_published_windows_leave_the_canvas_by_the_jitter_at_most(canvas, grid, seed):
    window, stride = grid
    reach = jitter_range(window, stride)
    for place in windows(canvas, window, stride, drawn(seed), "zero"):
        assert -reach <= place.top <= canvas[0] - place.height + reach
        assert -reach <= place.left <= canvas[1] - place.width + reach


def edge_shares(canvas, window, stride, border="clamp", align=1, steps=1000):
    """How many even shares of all inner edges lie on each line that has some, for both axes."""
    rng, found = random.Random(0), []
    drawn = [w for _ in range(steps) for w in windows(canvas, window, stride, rng, border, align)]
    for length, spans in (
        (canvas[0], [(w.top, w.top + w.height) for w in drawn]),
        (canvas[1], [(w.left, w.left + w.width) for w in drawn]),
    ):
        edges = Counter(edge for span in spans for edge in span if 0 < edge < length)
        even = edges.total() / max(math.ceil(length / align) - 1, 1)
        found.append({line: count / even for line, count in edges.items()})
    return found


# Twice, three and four times a window, the sizes between them, and sides that are no multiples.
SIZES = [
    (64, 64),
    (96, 96),
    (128, 128),
    (48, 80),
    (40, 33),
    (63, 65),
    (59, 117),
    (100, 45),
    (32, 70),
]


@pytest.mark.parametrize("canvas", SIZES)
@pytest.mark.parametrize("stride", [16, 24, 32, 7])
def test_no_line_has_more_than_its_share_of_edges(canvas, stride):
    for shares in edge_shares(canvas, 32, stride):
        assert max(shares.values(), default=0) <= 3


@pytest.mark.parametrize("canvas", [(256, 256), (384, 192), (300, 171)])
def test_no_line_of_an_sdxl_canvas_has_more_than_its_share_of_edges(canvas):
    for align in (1, 2):
        for shares in edge_shares(canvas, 128, 64, align=align, steps=3000):
            assert max(shares.values()) <= 3


def test_published_jitter_leaves_its_edges_on_the_middle_line():
    for shares in edge_shares((64, 64), 32, 16, "zero"):
        assert max(shares, key=shares.get) == 32 and shares[32] == pytest.approx(6.3, rel=0.1)


@given(
    st.integers(1, 300),
    st.integers(1, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w))),
)
def test_moving_windows_cover_an_axis_at_every_move(length, grid):
    window, stride = grid
    starts, moves = moving_starts(length, window, stride)
    assert list(starts) == sorted(set(starts)) and starts[0] == 0
    for back in {0, moves - 1}:
        assert starts[0] - back <= 0 and starts[-1] - back + window >= min(length, window)
        assert length <= window or starts[-1] - back + window >= length
    assert all(b - a <= max(window * 3 // 4, 1) for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(
    ("length", "stride", "count"),
    [
        *((64, 16, 3), (96, 16, 5), (128, 16, 7), (80, 16, 4), (40, 16, 2), (48, 16, 3)),
        *((64, 24, 3), (96, 24, 4), (128, 24, 6)),
    ],
)
def test_moving_windows_are_as_many_as_still_ones_where_that_is_even(length, stride, count):
    """At one and a half times a window, and for Turbo's stride at four times, it is one more."""
    assert len(moving_starts(length, 32, stride)[0]) == count
    extra = (length, stride) in ((48, 16), (128, 24))
    assert count == len(window_starts(length, 32, stride)) + extra


def test_a_window_over_the_edge_counts_in_its_place_only():
    """An axis of 6 cells, windows of 4 at -1 and 3: views show 0..3 and 2..5."""
    views = WindowSet((Window(0, -1, 1, 4), Window(0, 3, 1, 4)), (1, 6))
    assert views.origins == [(0, 0), (0, 2)]
    x = torch.arange(6.0).view(1, 1, 1, 6)
    assert views.stack(x)[:, 0, 0].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    told = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 1, 4)
    assert views.merge(told).flatten().tolist() == [1, 1, 1, 2, 2, 2]
    published = views._replace(border="zero")
    assert published.stack(x)[:, 0, 0].tolist() == [[0, 0, 1, 2], [3, 4, 5, 0]]
    assert torch.equal(published.merge(told), views.merge(told))


def test_weights_lie_at_the_places():
    """Cosine weights of a window of 4 are sin^2 of 22.5, 67.5, 112.5 and 157.5 degrees."""
    near, far = math.sin(math.pi / 8) ** 2 + 1e-4, math.cos(math.pi / 8) ** 2 + 1e-4
    views = WindowSet((Window(0, -1, 1, 4), Window(0, 1, 1, 4)), (1, 4), "cosine")
    told = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 1, 4)
    expected = torch.tensor([1, far / (far + near), near / (far + near), 0])
    assert torch.allclose(views.merge(told).flatten(), expected)


@given(canvases, grids, seeds, st.sampled_from(WINDOW_WEIGHTS), st.sampled_from(BORDERS))
def test_merging_cut_windows_gives_the_canvas_back(canvas, grid, seed, weights, border):
    window, stride = grid
    places = windows(canvas, window, stride, drawn(seed), border)
    views = WindowSet(places, canvas, weights)
    x = torch.randn(2, 3, *canvas)
    stacked = views.stack(x)
    assert stacked.shape == (2 * len(places), 3, places[0].height, places[0].width)
    assert torch.allclose(views.merge(stacked), x, atol=1e-4)  # means of up to 1600


@given(sides, sides, st.sampled_from(WINDOW_WEIGHTS))
def test_weights_are_positive_and_symmetric(height, width, kind):
    weight = window_weight(height, width, kind)
    assert weight.shape == (height, width) and weight.min() > 0
    assert torch.allclose(weight, weight.flip(0), rtol=1e-4)
    assert torch.allclose(weight, weight.flip(1), rtol=1e-4)


@given(canvases, st.integers(1, 8))
def test_lattices_partition_the_canvas(canvas, factor):
    views = LatticeSet(factor, canvas)
    x = torch.arange(canvas[0] * canvas[1], dtype=torch.float32).view(1, 1, *canvas) + 1
    stacked = views.stack(x)
    assert stacked.shape[0] == factor**2 == len(views.origins)
    seen = stacked[stacked > 0]  # the padding is 0
    assert torch.equal(seen.sort().values, x.flatten())
    assert torch.equal(views.merge(stacked), x)


@given(canvases, st.integers(1, 8), aligns)
def test_aligned_lattices_are_whole_patches(canvas, factor, align):
    views = LatticeSet(factor, canvas, align)
    x = torch.arange(canvas[0] * canvas[1], dtype=torch.float32).view(1, 1, *canvas) + 1
    stacked = views.stack(x)
    assert tuple(stacked.shape[-2:]) == views.size
    assert all(side % align == 0 for side in views.size)
    for side, length in zip(views.size, canvas, strict=True):
        assert 0 <= side * factor - length < factor * align
    assert torch.equal(stacked[stacked > 0].sort().values, x.flatten())
    assert torch.equal(views.merge(stacked), x)


@given(st.integers(1, 200), st.integers(1, 32))
def test_aligned_lengths(length, align):
    found = aligned(length, align)
    assert found % align == 0 and found >= align and (found <= length or found == align)


def test_lattices_are_row_major_with_the_batch_innermost():
    x = torch.arange(2 * 16).view(2, 1, 4, 4)
    stacked = LatticeSet(2, (4, 4)).stack(x).unflatten(0, (4, 2))
    for view, (a, b) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(stacked[view], x[..., a::2, b::2])


def test_lattice_padding_is_at_the_top_and_left():
    stacked = LatticeSet(2, (3, 3)).stack(torch.ones(1, 1, 3, 3))
    assert torch.equal(stacked[0, 0], torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert torch.equal(stacked[3, 0], torch.ones(2, 2))


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (256, 128, 64, [0, 64, 128]),
        (384, 128, 96, [0, 96, 192, 256]),
        (144, 128, 64, [0, 16]),
        (129, 128, 64, [0, 1]),
        (100, 128, 64, [0]),
        (128, 128, 64, [0]),
    ],
)
def test_published_window_places(length, window, stride, starts):
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize(("stride", "reach"), [(64, 16), (96, 8), (8, 30), (128, 0)])
def test_published_jitter(stride, reach):
    assert jitter_range(128, stride) == reach


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_number_of_views(scale):
    canvas = (128 * scale, 128 * scale)
    assert len(windows(canvas, 128, 64)) == (2 * scale - 1) ** 2
    assert dilation_factor(canvas, 128) == scale


@pytest.mark.parametrize(("window", "stride"), [(16, 0), (16, 17), (0, 1)])
def test_gaps_are_refused_with_the_fix(window, stride):
    with pytest.raises(ValueError, match="choose a stride between"):
        windows((32, 32), window, stride)
