"""Radial power spectra: what share of a picture is coarse and what share is fine."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 48
LUMA = (0.299, 0.587, 0.114)  # Rec. 601
FLOOR = 1e-12  # of the power: an image of one colour has none


def plane_spectrum(planes: Tensor, bins: int = BINS) -> Tensor:
    """log10 of the mean power per ring of spatial frequency.

    The mean is taken off and a Hann window applied, so that the edges do not count as detail.
    Power is per pixel, so that sizes compare.

    Args:
        planes: (..., H, W): luminance, or channels of a latent.
        bins: rings of equal width between 0 and 0.5 cycles a pixel.

    Returns:
        (..., bins), float64, NaN where the plane is too small to have that frequency.
    """
    height, width = planes.shape[-2:]
    window = torch.outer(
        torch.hann_window(height, dtype=torch.float64),
        torch.hann_window(width, dtype=torch.float64),
    )
    planes = planes.double()
    mean = (planes * window).sum((-2, -1), keepdim=True) / window.sum()
    power = torch.fft.rfft2((planes - mean) * window).abs().square() / window.square().sum()
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    radius = (rows[:, None].square() + columns.square()).sqrt()
    ring = (radius * 2 * bins).long()
    inside = (radius > 0) & (ring < bins)
    # rfft2 holds the columns between the first and the last once instead of twice.
    weight = torch.full(radius.shape, 2.0, dtype=torch.float64)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    total = torch.zeros(*planes.shape[:-2], bins, dtype=torch.float64)
    total.index_add_(-1, ring[inside], (power * weight)[..., inside])
    count = torch.zeros(bins, dtype=torch.float64).index_add_(0, ring[inside], weight[inside])
    return torch.where(count > 0, (total / count).clamp_min(FLOOR).log10(), torch.nan)


def radial_spectrum(image: Tensor, bins: int = BINS) -> Tensor:
    """`plane_spectrum` of the luminance of an image (3, H, W) in 0..1: (bins,)."""
    weights = torch.tensor(LUMA, dtype=torch.float64)
    return plane_spectrum(torch.einsum("chw,c->hw", image.double(), weights), bins)


def frequencies(bins: int = BINS) -> Tensor:
    """(bins,): middle of each ring, cycles a pixel."""
    return (torch.arange(bins) + 0.5) / (2 * bins)


def spectrum_distance(first: Tensor, second: Tensor) -> float:
    """Root mean square difference of two sets' mean log spectra, in decibels.

    Args:
        first, second: (N, bins) of `radial_spectrum`, or (N, channels, bins) of latents.
    """
    gap = 10 * (first.nanmean(0) - second.nanmean(0))
    return float(gap[gap.isfinite()].square().mean().sqrt())


def spectrum_slope(spectrum: Tensor) -> float:
    """Slope of the least-squares line of log power over log frequency; photographs have about -2.

    Args:
        spectrum: (bins,) of `radial_spectrum`. The first ring, which the window blurs, is left out.
    """
    kept = spectrum.isfinite()
    kept[0] = False
    across = frequencies(len(spectrum)).double().log10()[kept]
    across = across - across.mean()
    return float((across * spectrum[kept]).sum() / across.square().sum())


def fine_share(spectrum: Tensor) -> float:
    """Share of the power that lies above half of the highest frequency, 0..1.

    Args:
        spectrum: (bins,) of `radial_spectrum`; a ring counts by its area.
    """
    across = frequencies(len(spectrum)).double()
    power = (across * 10**spectrum).nan_to_num()
    return float(power[across > 0.25].sum() / power.sum())
