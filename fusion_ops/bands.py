"""Low and high frequencies of a latent, in every way that a method here tells them apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOW_PASSES = ("resize", "resize_aliased", "butterworth", "haar")
BUTTERWORTH_ORDER = 4


class LowPass(NamedTuple):
    """What counts as low.

    Attributes:
        kind: "resize": bilinear down with anti-aliasing, bilinear up (ScaleDiff). "resize_aliased":
            the same without anti-aliasing (FreCaS). "butterworth": of order 4 in the spectrum,
            with half of the effect at the cutoff (HiFlow); opposite edges of the picture touch.
            "haar": the LL band alone, that is means of blocks of 2^level cells; the level is the
            whole one nearest to the cutoff.
        cutoff: share of the highest frequency of each axis, 0 < cutoff <= 1: a half for what a
            picture of half the sides can show.
    """

    kind: str = "resize"
    cutoff: float = 0.125


def check_low_pass(band: LowPass) -> None:
    """Raise ValueError, with the fix, for a low-pass that is none."""
    if band.kind not in LOW_PASSES:
        raise ValueError(f"unknown low-pass '{band.kind}': choose one of {', '.join(LOW_PASSES)}")
    if not 0 < band.cutoff <= 1:
        raise ValueError(f"a cutoff of {band.cutoff:g}: choose one above 0 and up to 1")


def low_pass(x: Tensor, band: LowPass) -> Tensor:
    """The low frequencies of x (..., H, W), in float32. Linear; keeps a constant."""
    check_low_pass(band)
    filters = {"butterworth": _butterworth, "haar": _haar}
    frames = x.float().flatten(0, -3)[None] if x.ndim > 2 else x.float()[None, None]
    return with_fallback(filters.get(band.kind, _resize), frames, band).view_as(x)


def refine(source: Tensor, target: Tensor, weight: float, band: LowPass) -> Tensor:
    """target + weight (LP(source) - LP(target)): the target with low frequencies of the source.

    ScaleDiff, arXiv 2510.25818; DiffuseHigh replaces the wavelet's LL band, which is weight 1.

    Args:
        source: broadcasts to `target`.
        target: (..., H, W).
        weight: 0 returns `target` itself.
        band: what is low.
    """
    if weight == 0:
        return target
    change = low_pass((source.float() - target.float()).expand_as(target), band)
    return (target.float() + weight * change).to(target.dtype)


def weighted(x: Tensor, low: float, high: float, band: LowPass) -> Tensor:
    """low LP(x) + high (x - LP(x)), in float32: FreCaS's bands, arXiv 2410.18410."""
    if low == high:
        return low * x.float()
    slow = low_pass(x, band)
    return low * slow + high * (x.float() - slow)


def with_fallback(function: Callable[..., Tensor], x: Tensor, *args: object) -> Tensor:
    """function(x, ...), on the CPU where x's device cannot do it (complex numbers, mostly)."""
    try:
        return function(x, *args)
    except (RuntimeError, TypeError):
        if x.device.type == "cpu":
            raise
        return function(x.cpu(), *args).to(x.device)


def _resize(x: Tensor, band: LowPass) -> Tensor:
    small = [max(1, int(side * band.cutoff + 1e-6)) for side in x.shape[-2:]]
    smooth = band.kind == "resize"
    down = F.interpolate(x, size=small, mode="bilinear", align_corners=False, antialias=smooth)
    return F.interpolate(down, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _haar(x: Tensor, band: LowPass) -> Tensor:
    block = 2 ** round(-math.log2(band.cutoff))
    height, width = x.shape[-2:]
    sides = (min(block, height), min(block, width))
    # At the far edges a block is the mean of the cells that it has.
    means = F.avg_pool2d(x, sides, ceil_mode=True, count_include_pad=False)
    means = means.repeat_interleave(sides[0], -2).repeat_interleave(sides[1], -1)
    return means[..., :height, :width]


def _butterworth(x: Tensor, band: LowPass) -> Tensor:
    return filtered(x, round_response(*x.shape[-2:], "butterworth", band.cutoff / 2))


def filtered(x: Tensor, response: Tensor) -> Tensor:
    """Re(IFFT(FFT(x) response)); `response` (H, W) in the order of `torch.fft.fft2`."""
    return torch.fft.ifft2(torch.fft.fft2(x) * response.to(x.device)).real


def round_response(height: int, width: int, edge: str, radius: float) -> Tensor:
    """Share that a smooth, round low-pass keeps of each frequency, (H, W).

    Args:
        edge: "gaussian" or "butterworth"; both keep half at the radius.
        radius: as a share of each side of the picture, 0..0.5; 0 keeps nothing.
    """
    if radius == 0:
        return torch.zeros(height, width)
    rows, columns = (torch.fft.fftfreq(side) / radius for side in (height, width))
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    if edge == "gaussian":
        return torch.exp(-math.log(2) * squared)
    return 1 / (1 + squared**BUTTERWORTH_ORDER)


def box_low_pass(x: Tensor, share: float) -> Tensor:
    """Keep a centred box of frequencies, `share` of each half axis (RepLDM's filters).

    1 returns x itself.
    """
    if share >= 1:
        return x
    height, width = x.shape[-2:]
    mask = torch.zeros(height, width)
    rows, columns = (slice(*_box(side, share)) for side in (height, width))
    mask[rows, columns] = 1
    return with_fallback(filtered, x.float(), torch.fft.ifftshift(mask))


def _box(side: int, share: float) -> tuple[int, int]:
    half = max(1, int(side // 2 * share))
    return side // 2 - half, side // 2 + half + side % 2
