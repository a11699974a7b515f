"""Linear filters and statistics of latents."""

from __future__ import annotations

import torch
from torch import Tensor


def statistics(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each sample over all its elements, (B, 1, 1, ...).

    Args:
        x: (1 or B, C, ...).
        weights: (B, C, ...), how much each element counts, >= 0; None counts all alike. A sample
            without any weight has a mean and a deviation of 0.
    """
    axes = tuple(range(1, x.ndim))
    if weights is None:
        return x.mean(axes, keepdim=True), x.std(axes, keepdim=True)
    total = weights.sum(axes, keepdim=True)
    tiny = torch.finfo(total.dtype).tiny
    mean = (weights * x).sum(axes, keepdim=True) / total.clamp_min(tiny)
    # As many elements as would have these weights, less the one that the mean took.
    freedom = total - weights.square().sum(axes, keepdim=True) / total.clamp_min(tiny)
    squares = (weights * (x - mean).square()).sum(axes, keepdim=True)
    return mean, (squares / freedom.clamp_min(tiny)).sqrt()


def match_statistics(
    x: Tensor,
    reference: Tensor,
    weights: Tensor | None = None,
    reference_weights: Tensor | None = None,
) -> Tensor:
    """Shift and scale each sample of `x` to the mean and deviation of `reference`.

    Global scalars over all channels, as DemoFusion does at the end of a phase and after its blur.

    Args:
        x: (B, C, ...).
        reference: (1 or B, C, ...), any size, with or without a time axis.
        weights: (B, C, ...), how much each element of `x` counts; None for all alike.
        reference_weights: (B, C, ...), as `weights`, for the reference; where a sample has none
            of them it stays as it is.
    """
    mean, std = statistics(x, weights)
    numbers = (-1, *[1] * (x.ndim - 1))
    reference_mean, reference_std = (
        number.view(numbers) for number in statistics(reference, reference_weights)
    )
    # A constant latent has no contrast to scale; leaving it flat beats dividing by zero.
    scale = torch.where(std > 0, reference_std / std, torch.ones_like(std))
    out = (x - mean) * scale + reference_mean
    if reference_weights is None:
        return out
    return torch.where(reference_weights.flatten(1).any(1).view(numbers), out, x)


def blur(x: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """Gaussian blur with zeros outside the picture (DemoFusion 3.4).

    Args:
        x: (B, C, ..., H, W).
        kernel_size: odd; 1 returns `x` itself.
        sigma: standard deviation in cells, > 0.
    """
    if kernel_size == 1:
        return x
    from kornia.filters import gaussian_blur2d  # late: kornia is slow to import

    size, deviation = (kernel_size, kernel_size), (sigma, sigma)
    return gaussian_blur2d(x.flatten(1, -3), size, deviation, border_type="constant").view_as(x)
