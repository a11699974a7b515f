"""Enlarging latents and pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MODEL_LIFT = "pixel upscale model"
# Where to enlarge, and how. "none" leaves the size as it is.
LIFTS = (
    "latent bicubic",
    "pixel bicubic",
    "pixel lanczos",
    "pixel nearest",
    MODEL_LIFT,
    "latent nearest",
    "none",
)


class Lift(NamedTuple):
    """How a finished latent becomes a larger one.

    Attributes:
        method: one of LIFTS.
        unsharp: strength a of `unsharp_mask` on the enlarged pixels, 0 for none, 1 as published.
        unsharp_sigma: its deviation in pixels; DiffuseHigh draws it from 0.1 to 2 for each picture.
        lfm: f of latent frequency mixing (ScaleDiff, arXiv 2510.25818): the frequencies below this
            share come from the bicubically enlarged latent, and those above from the pixels. 0 for
            none; published are 0.125 for SDXL and 0.25 for Flux.
    """

    method: str = "latent bicubic"
    unsharp: float = 0.0
    unsharp_sigma: float = 1.0
    lfm: float = 0.0

    def through_pixels(self) -> bool:
        """Whether it needs a VAE."""
        return self.method.startswith("pixel")

    def mode(self) -> str:
        """How it interpolates, a mode of `resize`."""
        mode = self.method.split()[-1]
        return "nearest-exact" if mode == "nearest" else mode


def check_lift(lift: Lift, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Raise ValueError, with the fix, for a lift that can't be done from `size` to `wanted`."""
    if lift.method not in LIFTS:
        raise ValueError(f"unknown method '{lift.method}': choose one of {', '.join(LIFTS)}")
    if lift.method == "none" and wanted != size:
        raise ValueError(
            f"the method 'none' keeps the size of {size[1]} x {size[0]} cells, but {wanted[1]} x "
            f"{wanted[0]} are asked for: set scale to 1, height and width to 0, or choose a method"
        )
    if not lift.through_pixels() and (lift.unsharp or lift.lfm):
        raise ValueError(
            f"unsharp and lfm work on pixels, and '{lift.method}' makes none: choose a pixel "
            "method, such as 'pixel bicubic', or set both to 0"
        )


def resize(x: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Resize the last two axes in float32, without anti-aliasing (DemoFusion's upsampling).

    Args:
        x: (B, C, H, W) or (B, C, T, H, W); frames are resized one by one.
        size: (H, W) wanted.
        mode: "bicubic", "bilinear", "nearest-exact", or "lanczos".
    """
    frames = x.movedim(2, 1).flatten(0, 1) if x.ndim == 5 else x
    if mode == "lanczos":
        out = _lanczos(frames, size)
    else:
        corners = None if mode == "nearest-exact" else False
        out = F.interpolate(frames.float(), size=size, mode=mode, align_corners=corners)
    out = out.to(x.dtype)
    return out.unflatten(0, (x.shape[0], -1)).movedim(1, 2) if x.ndim == 5 else out


def fit(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic to a size, with anti-aliasing where that is smaller; (B, C, H, W)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    kind = {"mode": "bicubic", "align_corners": False, "antialias": True}
    return F.interpolate(x.float(), size=size, **kind).to(x.dtype)


def _lanczos(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's Lanczos of each channel as float32 numbers: its pictures have only 256 levels."""
    planes = [
        Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.LANCZOS)
        for plane in x.float().cpu().flatten(0, 1).numpy()
    ]
    out = torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))
    return out.unflatten(0, x.shape[:2]).to(x.device)


def unsharp_mask(x: Tensor, amount: float, sigma: float) -> Tensor:
    """x + a (x - G(x)), with a Gaussian G of 3 x 3 pixels (DiffuseHigh, arXiv 2406.18459; HiFlow).

    Args:
        x: (B, C, H, W), mirrored at its edges.
        amount: a, >= 0; 0 returns x itself.
        sigma: of the Gaussian in pixels, > 0.
    """
    if amount == 0:
        return x
    from kornia.filters import gaussian_blur2d  # late: kornia is slow to import

    blurred = gaussian_blur2d(x.float(), (3, 3), (sigma, sigma), border_type="reflect")
    return (x + amount * (x - blurred)).to(x.dtype)
