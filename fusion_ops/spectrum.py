"""SpecFusion: mix two finished latents by frequency (CritiFusion, arXiv 2512.22681, section 3.3).

High frequencies come from the refined latent. Inside a box of low frequencies, the published code
takes `rho` of the refined latent and 1 - rho of the base; `rho` sets the size of that box too.
The paper's figure shows a mask of 0 in the box, that is all low frequencies from the base; that is
`low_mix=0` here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .bands import filtered, round_response, with_fallback

EDGES = ("box", "gaussian", "butterworth")


class Band(NamedTuple):
    """Which frequencies are low, and how much of the refined latent they keep.

    Attributes:
        radius: half side of the low band, as a share of each side of the picture, 0..0.5; 0.5 is
            all frequencies.
        low_mix: share of the refined latent in the band, 0..1.
        edge: "box" is as published; "gaussian" and "butterworth" fall smoothly and are round
            (an ellipse on pictures that are not square), with half of the effect at the radius.
        hermitian: leave out the row and column of the published box that have no mirror image.
    """

    radius: float
    low_mix: float
    edge: str = "box"
    hermitian: bool = False


def published_band(
    rho: float, base_c: float, radius: float | None = None, low_mix: float | None = None
) -> Band:
    """The band of `frequency_fusion`: radius base_c * (1 - rho), mixed by rho.

    Args:
        rho: 0..1; 1 is the refined latent, unchanged.
        base_c: 0..1, scales the box.
        radius, low_mix: set one apart from `rho`.
    """
    return Band(
        min(base_c * (1 - rho), 0.5) if radius is None else radius,
        rho if low_mix is None else low_mix,
    )


def check_band(band: Band) -> None:
    """Raise ValueError, with the fix, for a band that is none."""
    if band.edge not in EDGES:
        raise ValueError(f"unknown edge '{band.edge}': choose one of {', '.join(EDGES)}")
    if not 0 <= band.radius <= 0.5 or not 0 <= band.low_mix <= 1:
        raise ValueError(
            f"a radius of {band.radius:g} and a low_mix of {band.low_mix:g}: choose the radius "
            "from 0 to 0.5 and the mix from 0 to 1"
        )


def refined_spectrum_share(height: int, width: int, band: Band) -> Tensor:
    """Share of the refined latent at each frequency, (H, W), in the order of `torch.fft.fft2`."""
    check_band(band)
    if band.edge == "box":
        rows, columns = (torch.fft.fftfreq(n, 1 / n) for n in (height, width))
        inside = _in_box(rows, height, band)[:, None] & _in_box(columns, width, band)[None, :]
        low = inside.float()
    else:
        low = round_response(height, width, band.edge, band.radius)
    return 1 - (1 - band.low_mix) * low


def _in_box(frequency: Tensor, length: int, band: Band) -> Tensor:
    half = math.floor(length * band.radius)
    first = 1 - half if band.hermitian else -half
    return (frequency >= first) & (frequency < half)


def frequency_fusion(base: Tensor, refined: Tensor, band: Band) -> Tensor:
    """Re(IFFT(FFT(refined) * share + FFT(base) * (1 - share))), as published but for its noise.

    Computed as refined + Re(IFFT((1 - share) * FFT(base - refined))), which is the same and keeps
    equal latents, and a band without effect, to the bit. Taking the real part, as published,
    equals a mask that is the mean of itself and its mirror image. Linear and the same in scaled
    and raw latent space. In float32; on the CPU where a device cannot do complex numbers.

    Args:
        base, refined: (..., H, W), of one shape and any real dtype.

    Returns:
        the fused latent in the dtype of `refined`; `refined` itself where the band has no effect.
    """
    share = refined_spectrum_share(*refined.shape[-2:], band)
    if bool((share == 1).all()):
        return refined
    fine = refined.float()
    change = with_fallback(filtered, base.to(fine) - fine, 1 - share)
    return (fine + change).to(refined.dtype)


def log_spectrum(x: Tensor) -> Tensor:
    """log(1 + magnitude) of the spectrum, mean over channels, the mean in the middle: (B, H, W).

    Args:
        x: (B, C, ..., H, W); a time axis is averaged like channels.
    """
    magnitude = torch.fft.fftshift(torch.fft.fft2(x.float().cpu()).abs(), dim=(-2, -1))
    return torch.log1p(magnitude).flatten(1, -3).mean(1)


def spectrum_panels(latents: list[Tensor], side: int = 256, gap: int = 4) -> Tensor:
    """Log spectra side by side on one scale from black to white, (B, h, w, 3) in 0..1.

    Args:
        latents: each (B, C, ..., H, W), of one shape.
        side: the longer side of a panel in pixels is at least this, in whole pixels a frequency.
        gap: pixels of white between panels.
    """
    spectra = torch.stack([log_spectrum(x) for x in latents])
    low, high = spectra.amin((0, 2, 3), keepdim=True), spectra.amax((0, 2, 3), keepdim=True)
    grey = (spectra - low) / (high - low).clamp_min(1e-12)
    zoom = max(1, math.ceil(side / max(grey.shape[-2:])))
    grey = grey.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    bar = torch.ones(*grey.shape[1:3], gap)
    parts = [part for panel in grey for part in (panel, bar)][:-1]
    return torch.cat(parts, dim=-1)[..., None].repeat(1, 1, 1, 3)


class Refinement(NamedTuple):
    """How strongly to refine a picture: settings of an img2img pass and of SpecFusion."""

    strength: float
    guidance: float
    steps: int
    rho: float

    @property
    def run_steps(self) -> int:
        """The steps that img2img runs, 1 or more, as diffusers rounds them."""
        return max(1, int(self.steps * self.strength))


def cadr(score: float) -> Refinement:
    """CritiFusion's settings for a picture that fits its prompt by `score`, 0..100.

    The worse the fit (1 - score / 100), the stronger the refinement: strength 0.12 to 0.30,
    guidance 3.6 to 5.0, steps 16 to 30, rho 0.60 to 0.85. A score beyond the range counts as its
    end. `steps` are those of the whole schedule, of which img2img runs the share `strength`.
    """
    miss = 1 - min(max(score / 100, 0.0), 1.0)
    ranges = ((0.12, 0.30), (3.6, 5.0), (16, 30), (0.60, 0.85))
    strength, guidance, steps, rho = (low + (high - low) * miss for low, high in ranges)
    return Refinement(strength, guidance, round(steps), rho)
