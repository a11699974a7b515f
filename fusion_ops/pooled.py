"""A whole canvas shrunk to the size that a model was trained on, and a correction brought back.

Upsample Guidance, arXiv 2404.01709. Sizes are in latent cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .lattices import LatticeSet
from .windows import ALL


class PooledSet(LatticeSet):
    """The mean of all lattices as one view: the canvas, `factor` times smaller.

    Every cell of it is the mean of factor x factor cells of the canvas, never of fewer: white
    noise gets exactly 1 / `shrinks_noise` of its deviation. A canvas that does not divide has
    blocks that overlap a little, evenly, instead of padding.
    """

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """One view, with no offset."""
        return [(0, 0)]

    @property
    def origins(self) -> list[tuple[int, int]]:
        """(0, 0): it shows the whole picture."""
        return [(0, 0)]

    @property
    def shrinks_noise(self) -> float:
        """Root of the cells in a block: the factor, but for sides that are shorter than it."""
        return math.sqrt(math.prod(min(self.factor, side) for side in self.canvas))

    def stack(self, x: Tensor, chosen: slice = ALL) -> Tensor:
        """x (B, ..., H, W) shrunk, (B, ..., h, w)."""
        return shrink(x, self.size, self.factor)

    def stack_image(self, image: Tensor, ratio: int, chosen: slice = ALL) -> Tensor:
        """The same of an image with ratio x ratio pixels a cell."""
        height, width = self.size
        return shrink(image, (height * ratio, width * ratio), self.factor)

    def enlarge(self, small: Tensor) -> Tensor:
        """Every cell of the canvas takes the value of its block, (B, ..., H, W)."""
        for axis, length in zip((-2, -1), self.canvas, strict=True):
            count = small.shape[axis]
            place = (torch.arange(length, device=small.device) * 2 + 1) * count // (2 * length)
            small = small.index_select(axis, place)
        return small


def shrink(x: Tensor, size: tuple[int, int], factor: int) -> Tensor:
    """Means of factor x factor cells, evenly spread over x (..., H, W): (..., *size).

    Whole numbers name places and have no mean: of them a block's middle is taken.
    """
    for axis, count in zip((-2, -1), size, strict=True):
        length = x.shape[axis]
        block = min(factor, length)
        first = _starts(length, block, count, x.device)
        if not x.is_floating_point():
            x = x.index_select(axis, first + block // 2)
            continue
        cells = first[:, None] + torch.arange(block, device=x.device)
        x = x.index_select(axis, cells.flatten()).unflatten(axis, cells.shape).mean(axis)
    return x


def _starts(length: int, block: int, count: int, device: torch.device) -> Tensor:
    """First cells of `count` blocks, the first and last of them at the ends."""
    number = torch.arange(count, device=device)
    gaps = max(count - 1, 1)
    return (number * (length - block) * 2 + gaps) // (2 * gaps)


def lowered(sigma: Tensor, factor: float, flow: bool) -> tuple[Tensor, Tensor]:
    """Noise level of a shrunk x, and what it must be divided by to be the model's at that level.

    Means divide the noise's deviation by the factor and leave the picture: sigma / factor. A flow
    model's x = (1 - t) z + t n becomes (1 - t) z + (t / factor) n, whose parts must again sum to
    one: it is divided by N = 1 - t + t / factor, and its level is (t / factor) / N.

    Args:
        sigma: of the canvas, (B,).
        flow: a flow model's t.
    """
    small = sigma / factor
    share = 1 - sigma + small if flow else torch.ones_like(sigma)
    return small / share, share
