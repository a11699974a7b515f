"""What distances between sets of pictures don't see: seams, fidelity, noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .methods import CELL, NATIVE

AROUND = (2, 3, 4)  # cells: how far from a line its surroundings are


def window_edges(length: int, window: int = NATIVE, stride: int = NATIVE // 2) -> list[int]:
    """Cells at which a still window begins or ends inside an axis of `length` cells."""
    from hires_fusion.fusion_ops.windows import window_starts

    starts = window_starts(length, window, stride)
    edges = {*starts, *(start + window for start in starts)}
    return sorted(edge for edge in edges if 0 < edge < length)


def seam_score(x: Tensor, edges: list[int], cell: int = CELL) -> float:
    """Gradient energy across the windows' edges against that of the lines beside them.

    The picture is reduced to cells. For each edge and both axes, the mean squared difference of
    the cells on its two sides is divided by that of the lines AROUND it, which have about the same
    content. Means over lines are geometric, so that no single outline of the picture decides.

    Args:
        x: (B, C, H, W), H and W multiples of `cell`; the same edges hold for both axes.
        edges: cells that begin a window or follow one's end, as of `window_edges`.
        cell: pixels of a cell, 1 for a latent.

    Returns:
        1 without seams, more with them.
    """
    cells = F.avg_pool2d(x, cell) if cell > 1 else x
    ratios = []
    for axis in (-1, -2):
        other = -3 - axis
        # energy[k] belongs to the line between the cells k and k + 1
        energy = cells.diff(dim=axis).square().mean((1, other)).clamp_min(1e-12).log()
        lines = energy.shape[-1]
        for edge in edges:
            beside = [edge - 1 + k * side for k in AROUND for side in (-1, 1)]
            beside = [line for line in beside if 0 <= line < lines]
            ratios.append(energy[:, edge - 1] - energy[:, beside].mean(-1))
    return float(torch.stack(ratios).mean().exp())


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
