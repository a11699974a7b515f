"""What distances between sets of pictures don't see: seams, fidelity, noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .task import CELL

AROUND = (1, 2, 3)  # cells: how far from a line those are that it is compared with


def line_ratios(x: Tensor, cell: int = CELL) -> Tensor:
    """Logarithm of the gradient across every line between cells against that of those beside it.

    The gradient of a line is the mean absolute difference of the values on its two sides. It is
    compared with the geometric mean of the lines AROUND cells before and behind it, which have
    about the same content and, in a decoded picture, the same place in a cell.

    Args:
        x: (B, C, H, W), H and W multiples of `cell`.
        cell: pixels of a cell, 1 for a latent.

    Returns:
        (B, H / cell - 1) of a square, each the mean of the row and the column of this number;
        otherwise the rows, then the columns. Item k is the line before cell k + 1. The first and
        last line, which have no two neighbours, are 0.
    """
    found = []
    for axis in (-2, -1):
        gradient = x.diff(dim=axis).abs().mean((1, -3 - axis))[:, cell - 1 :: cell]
        log = gradient.clamp_min(1e-12).log()
        ratio = torch.zeros_like(log)
        for line in range(log.shape[-1]):
            near = [k for k in AROUND if k <= line < log.shape[-1] - k]
            beside = [line + k * side for k in near for side in (-1, 1)]
            if beside:
                ratio[:, line] = log[:, line] - log[:, beside].mean(-1)
        found.append(ratio)
    same = found[0].shape == found[1].shape
    return (found[0] + found[1]) / 2 if same else torch.cat(found, -1)


def seam_score(x: Tensor, cell: int = CELL) -> float:
    """Gradient ratio of the line that has the largest, as geometric mean over pictures.

    The outlines of pictures make it larger than 1 without a seam, less with more pictures.

    Args:
        x: (B, C, H, W), see `line_ratios`.
        cell: pixels of a cell, 1 for a latent.
    """
    return line_ratios(x, cell).mean(0).max().exp().item()


def chance(ratios: Tensor, draws: int = 4096) -> float:
    """How often lines without seams would have one as far from 1 as the farthest here.

    A test of all lines at once: the sign of each picture's logarithms is drawn at random.

    Args:
        ratios: (B, lines) of B independent pictures, see `line_ratios`.
        draws: of signs.

    Returns:
        p in 0..1; below 0.05 a line is told apart.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (draws, len(ratios)), generator=generator) * 2.0 - 1
    square = ratios.square().sum(0)

    def farthest(sums: Tensor) -> Tensor:
        # Student's t of each line grows with the sum's share of the squares.
        return (sums.square() / square.clamp_min(1e-12)).amax(-1)

    seen = farthest(ratios.sum(0))
    return ((farthest(signs @ ratios) >= seen * (1 - 1e-6)).sum().item() + 1) / (draws + 1)


def reduce(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) reduced to a size that divides its own, each pixel the mean of its area."""
    return F.interpolate(picture, size=size, mode="area")


def fidelity(picture: Tensor, native: Tensor) -> float:
    """PSNR in decibels of a picture, reduced to the native size, against the native picture.

    Args:
        picture: (B, 3, k h, k w) in 0..1.
        native: (B, 3, h, w) in 0..1.
    """
    error = (reduce(picture, native.shape[-2:]) - native).square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)


def roughness(x: Tensor) -> float:
    """Mean square of the Laplacian: what is finer than a cell or a pixel, noise above all.

    Args:
        x: (B, C, H, W), a latent or a picture.
    """
    kernel = x.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    kernel = kernel.expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, groups=x.shape[1]).square().mean().item()
