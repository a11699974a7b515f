"""Linear filters and statistics of latents."""

from __future__ import annotations

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each sample over all its elements, (B, 1, 1, ...)."""
    axes = tuple(range(1, x.ndim))
    return x.mean(axes, keepdim=True), x.std(axes, keepdim=True)


def match_statistics(x: Tensor, reference: Tensor) -> Tensor:
    """Shift and scale each sample of `x` to the mean and deviation of `reference`.

    Global scalars over all channels, as DemoFusion does at the end of a phase and after its blur.

    Args:
        x: (B, C, ...).
        reference: (1 or B, C, ...), any size, with or without a time axis.
    """
    mean, std = statistics(x)
    numbers = (-1, *[1] * (x.ndim - 1))
    reference_mean, reference_std = (number.view(numbers) for number in statistics(reference))
    # A constant latent has no contrast to scale; leaving it flat beats dividing by zero.
    scale = torch.where(std > 0, reference_std / std, torch.ones_like(std))
    return (x - mean) * scale + reference_mean


def blur(x: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Gaussian blur with zeros outside the picture (DemoFusion 3.4).

    Args:
        x: (B, C, ..., H, W).
        kernel_size: odd; 1 returns `x` itself.
        sigma: standard deviation in cells, > 0.
    """
    if kernel_size == 1:
        return x
    size, deviation = (kernel_size, kernel_size), (sigma, sigma)
    return gaussian_blur2d(x.flatten(1, -3), size, deviation, border_type="constant").view_as(x)
