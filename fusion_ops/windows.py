"""Geometry of windows: contiguous views of a canvas, averaged where they overlap.

All sizes are in latent cells. Pure functions of integers and tensors; the views that one
call yields all have the same size, so that they stack on the batch axis. `align` is the side of
a transformer's patch: views of other sizes would be padded or cut by the model.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ALL = slice(None)
BORDERS = ("clamp", "zero")
WINDOW_WEIGHTS = ("uniform", "gaussian", "cosine")
CROPS = ("position", "padded", "canvas")

# Largest share of its windows' edges that a line may get, in even shares.
EVENNESS = 2


class Window(NamedTuple):
    """A window on the canvas. `top` and `left` may be negative where it sticks out."""

    top: int
    left: int
    height: int
    width: int

    def inside(self, canvas: tuple[int, int]) -> tuple[slice, slice, slice, slice]:
        """The part inside the canvas: (canvas rows, canvas columns, own rows, own columns)."""
        rows, own_rows = _overlap(self.top, self.height, canvas[0])
        columns, own_columns = _overlap(self.left, self.width, canvas[1])
        return rows, columns, own_rows, own_columns

    def take(self, x: Tensor) -> Tensor:
        """Cut the window out of x (..., H, W); zeros where it lies outside the canvas."""
        rows, columns, own_rows, own_columns = self.inside(x.shape[-2:])
        cut = x[..., rows, columns]
        if cut.shape[-2:] == (self.height, self.width):
            return cut
        after = (self.height - own_rows.stop, self.width - own_columns.stop)
        return F.pad(cut, (own_columns.start, after[1], own_rows.start, after[0]))

    def moved_inside(self, canvas: tuple[int, int]) -> Window:
        """The nearest window that lies inside the canvas."""
        top = min(max(self.top, 0), canvas[0] - self.height)
        left = min(max(self.left, 0), canvas[1] - self.width)
        return self._replace(top=top, left=left)


def _overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    first, last = max(start, 0), min(start + size, length)
    return slice(first, last), slice(first - start, last - start)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First cells of the windows on one axis; the last window is moved back to the edge.

    An axis shorter than the window has one window, of the axis' own length.
    """
    if length <= window:
        return [0]
    count = math.ceil((length - window) / stride) + 1
    return [min(k * stride, length - window) for k in range(count)]


def aligned(length: int, align: int) -> int:
    """The largest multiple of `align` up to `length`, and `align` at least."""
    return max(length // align, 1) * align


def jitter_range(window: int, stride: int, align: int = 1) -> int:
    """Largest random shift of a window on one axis that cannot open a gap (DemoFusion: 16)."""
    return max((window - stride) // 4 // align * align, 0)


def _published_shift(
    start: int, window: int, length: int, reach: int, rng: random.Random, align: int
) -> int:
    """Random shift of one window on one axis: outwards only for a window at an edge."""
    at_start, at_end = start == 0, start + window >= length
    low = 0 if at_end and not at_start else -reach
    high = 0 if at_start and not at_end else reach
    return 0 if at_start and at_end else rng.randint(low // align, high // align) * align


@functools.lru_cache
def moving_starts(length: int, window: int, stride: int) -> tuple[tuple[int, ...], int]:
    """Places of windows on one axis that all move together, so that no seam stays on a line.

    They lie evenly apart and overhang the axis by `room` cells: moved back by any 0 .. room - 1,
    they cover it. The more room, the more lines share the windows' edges, and the less neighbours
    overlap; so it is the least that gives no line more than EVENNESS even shares. Neighbours
    overlap by a quarter at least. Both may take a window more than `stride` asks for.

    Returns:
        (first cells of the windows before they are moved back, number of places they move to).
    """
    count = math.ceil(max(length - window, 0) / stride) + 1
    if count == 1:
        return (0,), 1
    while True:
        for room in range(window):
            span = length - window + room
            if span > (count - 1) * max(window * 3 // 4, 1):
                break
            starts = tuple(round(k * span / (count - 1)) for k in range(count))
            moves = max(room, 1)
            if _largest_share(starts, moves, window, length) <= EVENNESS:
                return starts, moves
        count += 1


def _largest_share(starts: Sequence[int], moves: int, window: int, length: int) -> float:
    """How many even shares of all edges lie on the line that has most of them."""
    met = Counter(
        edge
        for start in starts
        for first in range(start - moves + 1, start + 1)
        for edge in (first, first + window)
        if 0 < edge < length
    )
    return max(met.values()) * (length - 1) / met.total()


def _published_windows(
    canvas: tuple[int, int],
    size: tuple[int, int],
    starts: tuple[list[int], list[int]],
    reach: int,
    rng: random.Random,
    align: int,
) -> Iterator[Window]:
    """A shift of its own for every window, 0..reach, those at the edge over it."""
    for place in itertools.product(*starts):
        sides = zip(place, size, canvas, strict=True)
        shifted = [start + _published_shift(start, *s, reach, rng, align) for start, *s in sides]
        yield Window(*shifted, *size)


def _moving_windows(
    canvas: tuple[int, int],
    size: tuple[int, int],
    window: int,
    stride: int,
    rng: random.Random,
    align: int,
) -> Iterator[Window]:
    """All rows are moved together, and the windows of each row."""
    patches = [math.ceil(side / align) for side in canvas]
    tops, lefts = (
        moving_starts(side, max(window // align, 1), max(stride // align, 1)) for side in patches
    )
    back = rng.randrange(tops[1])
    for top in tops[0]:
        aside = rng.randrange(lefts[1])
        for left in lefts[0]:
            yield Window((top - back) * align, (left - aside) * align, *size)


def windows(
    canvas: tuple[int, int],
    window: int,
    stride: int,
    rng: random.Random | None = None,
    border: str = "clamp",
    align: int = 1,
) -> tuple[Window, ...]:
    """MultiDiffusion's windows over a canvas, row by row (arXiv 2302.08113; DemoFusion 3.2).

    Args:
        canvas: (H, W) in cells.
        window: side of a window; a shorter canvas side gets windows of its own length.
        stride: distance of windows, 1..window. With "clamp" and `rng` it decides how many windows
            there are, see `moving_starts`, and they lie evenly apart.
        rng: draws how far windows are moved; without, they stand still and none leaves the canvas.
        border: "clamp" moves all windows, those at the edge over it: what counts of them is the
            part on the canvas, but they see canvas only, see `WindowSet`. "zero" shifts every
            window for itself by DemoFusion's jitter, as published; windows over the edge see zeros
            there, and draw a rim. As they only move outwards, at twice the native size a tenth of
            all edges stays on the middle line.
        align: shifts are multiples of it, and with a window and stride that are, so are all
            places, but for windows at the far edge of a canvas that is none.
    """
    check_windows(window, stride, border)
    size = (min(window, canvas[0]), min(window, canvas[1]))
    if rng and border == "clamp":
        return tuple(_moving_windows(canvas, size, window, stride, rng, align))
    starts = tuple(window_starts(side, window, stride) for side in canvas)
    reach = jitter_range(window, stride, align)
    if rng and reach:
        return tuple(_published_windows(canvas, size, starts, reach, rng, align))
    return tuple(Window(*place, *size) for place in itertools.product(*starts))


def check_windows(window: int, stride: int, border: str = "clamp") -> None:
    """Raise ValueError, with the fix, for a window and stride that cannot cover a canvas."""
    if window < 1 or not 1 <= stride <= window:
        raise ValueError(
            f"windows of {window} cells at a stride of {stride} leave gaps: "
            f"choose a stride between 1 and {max(window, 1)}"
        )
    if border not in BORDERS:
        raise ValueError(f"unknown border '{border}': choose one of {', '.join(BORDERS)}")


def window_weight(height: int, width: int, kind: str) -> Tensor:
    """How much each cell of a window counts where windows overlap, (H, W), all > 0, symmetric.

    "uniform" is MultiDiffusion's plain mean, "gaussian" Mixture of Diffusers' bell with a
    variance of 0.01 sides squared (arXiv 2302.02412), "cosine" a feather over the whole side.
    """
    return _axis_weight(height, kind)[:, None] * _axis_weight(width, kind)[None, :]


def _axis_weight(length: int, kind: str) -> Tensor:
    place = (torch.arange(length, dtype=torch.float32) + 0.5) / length
    if kind == "uniform":
        return torch.ones(length)
    if kind == "gaussian":
        return torch.exp(-((place - 0.5) ** 2) / (2 * 0.01)).clamp_min(1e-4)
    if kind == "cosine":
        return torch.sin(math.pi * place) ** 2 + 1e-4
    raise ValueError(f"unknown window weights '{kind}': choose one of {', '.join(WINDOW_WEIGHTS)}")


class WindowSet(NamedTuple):
    """Windows that cover a canvas, and how they are averaged where they overlap.

    Attributes:
        places: as of `windows`; a place may lie over the edge.
        canvas: (H, W) in cells.
        weights: see `window_weight`; they lie at the places.
        border: "clamp" shows the model the nearest window inside the canvas instead of one over
            its edge; of that only what lies in its place counts. "zero" shows zeros over the edge.
    """

    places: tuple[Window, ...]
    canvas: tuple[int, int]
    weights: str = "uniform"
    border: str = "clamp"

    @property
    def cuts(self) -> list[Window]:
        """What each view shows."""
        if self.border == "zero":
            return list(self.places)
        return [place.moved_inside(self.canvas) for place in self.places]

    @property
    def origins(self) -> list[tuple[int, int]]:
        """(top, left) of each view on the canvas, in cells."""
        return [(cut.top, cut.left) for cut in self.cuts]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every view, in cells."""
        return self.places[0].height, self.places[0].width

    def stack(self, x: Tensor, chosen: slice = ALL) -> Tensor:
        """Chosen views of x (B, ..., H, W) on the batch axis, (V*B, ..., h, w), batch innermost."""
        return torch.cat([cut.take(x) for cut in self.cuts[chosen]])

    def stack_image(self, image: Tensor, ratio: int, chosen: slice = ALL) -> Tensor:
        """The same of an image with ratio x ratio pixels a cell."""
        scaled = [Window(*(side * ratio for side in cut)) for cut in self.cuts[chosen]]
        return torch.cat([cut.take(image) for cut in scaled])

    def merger(self) -> WindowMean:
        """Puts views together again, some at a time."""
        return WindowMean(self)

    def merge(self, stacked: Tensor) -> Tensor:
        """Weighted mean of all views on the canvas, float32, (B, ..., H, W)."""
        mean = self.merger()
        mean.add(stacked, ALL)
        return mean.result()


class WindowMean:
    """Running weighted mean of windows: holds one canvas, however many windows there are."""

    def __init__(self, views: WindowSet):
        self.views = views
        self.weight = window_weight(*views.size, views.weights)
        self.total: Tensor | None = None

    def add(self, stacked: Tensor, chosen: slice) -> None:
        """Add the chosen views, (V*B, ..., h, w)."""
        places, cuts = self.views.places[chosen], self.views.cuts[chosen]
        values = stacked.unflatten(0, (len(places), -1))
        if self.total is None:
            self.weight = self.weight.to(values.device)
            shape = (*values.shape[1:-2], *self.views.canvas)
            self.total = values.new_zeros(shape, dtype=torch.float32)
        for value, place, cut in zip(values, places, cuts, strict=True):
            rows, columns, own_rows, own_columns = place.inside(self.views.canvas)
            part = self.weight[own_rows, own_columns]
            seen_rows = slice(rows.start - cut.top, rows.stop - cut.top)
            seen_columns = slice(columns.start - cut.left, columns.stop - cut.left)
            self.total[..., rows, columns] += value[..., seen_rows, seen_columns].float() * part

    def result(self) -> Tensor:
        """The mean, once all views are in, float32, (B, ..., H, W)."""
        count = self.total.new_zeros(self.views.canvas)
        for place in self.views.places:
            rows, columns, own_rows, own_columns = place.inside(self.views.canvas)
            count[rows, columns] += self.weight[own_rows, own_columns]
        return self.total / count
