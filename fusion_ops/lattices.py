"""Geometry of lattices: strided views of a canvas, each of which shows the whole of it.

All sizes are in latent cells; `align` is the side of a transformer's patch, see `windows`.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .windows import ALL


class LatticeSet(NamedTuple):
    """All strided views x[a::factor, b::factor] of a canvas, row-major in (a, b).

    A canvas that does not divide gets zeros at its top and left (DemoFusion's published code),
    as many as make the lattices' sides multiples of `align`.
    """

    factor: int
    canvas: tuple[int, int]
    align: int = 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(a, b) of each view on the padded canvas."""
        return list(itertools.product(range(self.factor), repeat=2))

    @property
    def origins(self) -> list[tuple[int, int]]:
        """(0, 0) for every lattice: each one shows the whole picture."""
        return [(0, 0)] * self.factor**2

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every view, in cells."""
        block = self.factor * self.align
        height, width = (math.ceil(side / block) * self.align for side in self.canvas)
        return height, width

    @property
    def padding(self) -> tuple[int, int]:
        """(rows, columns) of zeros at the top and left, so that both sides divide."""
        height, width = self.canvas
        block = self.factor * self.align
        return -height % block, -width % block

    def pad(self, x: Tensor) -> Tensor:
        """x (..., H, W) with that padding."""
        top, left = self.padding
        return F.pad(x, (left, 0, top, 0))

    def unpad(self, x: Tensor) -> Tensor:
        """Undo `pad`."""
        top, left = self.padding
        return x[..., top:, left:]

    def stack(self, x: Tensor, chosen: slice = ALL) -> Tensor:
        """Chosen views of x (B, ..., H, W), padded or not, (V*B, ..., h, w), batch innermost."""
        x = self.pad(x) if x.shape[-2:] == self.canvas else x
        step = self.factor
        return torch.cat([x[..., a::step, b::step] for a, b in self.offsets[chosen]])

    def stack_image(self, image: Tensor, ratio: int, chosen: slice = ALL) -> Tensor:
        """The same of an image with ratio x ratio pixels a cell: every factor-th pixel, so that
        the middles of a view's cells show the middles of the canvas' cells; edges repeat."""
        lines = [
            [self._pixels(axis, offset, ratio, image.device) for offset in range(self.factor)]
            for axis in (0, 1)
        ]
        pieces = [image[..., lines[0][a], :][..., lines[1][b]] for a, b in self.offsets[chosen]]
        return torch.cat(pieces)

    def _pixels(self, axis: int, offset: int, ratio: int, device: torch.device) -> Tensor:
        """Which lines of the image a view takes along an axis."""
        first = ratio * (offset - self.padding[axis]) - (ratio - 1) * (self.factor - 1) // 2
        lines = first + self.factor * torch.arange(self.size[axis] * ratio, device=device)
        return lines.clamp(0, self.canvas[axis] * ratio - 1)

    def merger(self) -> LatticeFill:
        """Puts views together again, some at a time."""
        return LatticeFill(self)

    def merge(self, stacked: Tensor) -> Tensor:
        """Put all views back on the canvas, (B, ..., H, W)."""
        fill = self.merger()
        fill.add(stacked, ALL)
        return self.unpad(fill.result())


class LatticeFill:
    """Lattices put back on their places, some at a time."""

    def __init__(self, views: LatticeSet):
        self.views = views
        self.canvas: Tensor | None = None

    def add(self, stacked: Tensor, chosen: slice) -> None:
        """Add the chosen views, (V*B, ..., h, w)."""
        offsets, step = self.views.offsets[chosen], self.views.factor
        values = stacked.unflatten(0, (len(offsets), -1))
        if self.canvas is None:
            height, width = self.views.size
            self.canvas = values.new_zeros((*values.shape[1:-2], height * step, width * step))
        for value, (a, b) in zip(values, offsets, strict=True):
            self.canvas[..., a::step, b::step] = value

    def result(self) -> Tensor:
        """The padded canvas, once all views are in, (B, ..., H + padding, W + padding)."""
        return self.canvas


def exchange(x: Tensor, factor: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Window interaction of AccDiffusion (arXiv 2407.10738): lattices swap cells at random.

    Cells that lie at the same place of the lattices, which is within one factor x factor block
    of the canvas, are permuted, differently in every channel.

    Args:
        x: (..., H, W), both sides multiples of the factor.
        factor: distance of a lattice's cells.
        generator: on the CPU.

    Returns:
        The permuted tensor, and the index that `exchange_back` takes.
    """
    blocks = rearrange(x, "... (h a) (w b) -> ... h w (a b)", a=factor, b=factor)
    index = torch.rand(blocks.shape, generator=generator).argsort(dim=-1).to(x.device)
    return _from_blocks(blocks.gather(-1, index), factor), index


def exchange_back(x: Tensor, factor: int, index: Tensor) -> Tensor:
    """Undo `exchange` on a tensor (..., H, W) of the same shape."""
    blocks = rearrange(x, "... (h a) (w b) -> ... h w (a b)", a=factor, b=factor)
    return _from_blocks(torch.zeros_like(blocks).scatter(-1, index, blocks), factor)


def _from_blocks(blocks: Tensor, factor: int) -> Tensor:
    return rearrange(blocks, "... h w (a b) -> ... (h a) (w b)", a=factor, b=factor)


def dilation_factor(canvas: tuple[int, int], native: int) -> int:
    """round(longer side / native side), at least 1: the lattices are then of native size."""
    return max(1, round(max(canvas) / native))
