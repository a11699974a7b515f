"""Radial power spectra: what share of a picture is coarse and what share is fine."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 48
LUMA = (0.299, 0.587, 0.114)  # Rec. 601
FLOOR = 1e-12  # of the power: an image of one colour has none


def radial_spectrum(image: Tensor, bins: int = BINS) -> Tensor:
    """log10 of the mean power of the luminance per ring of spatial frequency.

    The mean is taken off and a Hann window applied, so that the picture's edges do not count as
    detail. Power is per pixel, so that sizes compare.

    Args:
        image: (3, H, W) in 0..1.
        bins: rings of equal width between 0 and 0.5 cycles a pixel.

    Returns:
        (bins,), NaN where the picture is too small to have that frequency.
    """
    luma = torch.einsum("chw,c->hw", image.double(), torch.tensor(LUMA, dtype=torch.float64))
    height, width = luma.shape
    window = torch.outer(
        torch.hann_window(height, dtype=torch.float64),
        torch.hann_window(width, dtype=torch.float64),
    )
    luma = luma - (luma * window).sum() / window.sum()
    power = torch.fft.rfft2(luma * window).abs().square() / window.square().sum()
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    radius = (rows[:, None].square() + columns.square()).sqrt()
    ring = (radius * 2 * bins).long()
    inside = (radius > 0) & (ring < bins)
    # rfft2 holds the columns between the first and the last once instead of twice.
    weight = torch.full_like(power, 2.0)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    total = torch.zeros(bins, dtype=power.dtype)
    count = total.clone()
    total.index_add_(0, ring[inside], (power * weight)[inside])
    count.index_add_(0, ring[inside], weight[inside])
    return torch.where(count > 0, (total / count).clamp_min(FLOOR).log10(), torch.nan)


def frequencies(bins: int = BINS) -> Tensor:
    """(bins,): middle of each ring, cycles a pixel."""
    return (torch.arange(bins) + 0.5) / (2 * bins)


def spectrum_distance(first: Tensor, second: Tensor) -> float:
    """Root mean square difference of two sets' mean log spectra, in decibels.

    Args:
        first, second: (N, bins) of `radial_spectrum`.
    """
    gap = 10 * (first.nanmean(0) - second.nanmean(0))
    return float(gap[gap.isfinite()].square().mean().sqrt())
