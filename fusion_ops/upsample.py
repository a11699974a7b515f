"""Enlarging latents and pictures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Resize the last two axes in float32, without anti-aliasing (DemoFusion's upsampling).

    Args:
        x: (B, C, H, W) or (B, C, T, H, W); frames are resized one by one.
        size: (H, W) wanted.
        mode: "bicubic", "bilinear" or "nearest-exact".
    """
    frames = x.movedim(2, 1).flatten(0, 1) if x.ndim == 5 else x
    corners = None if mode == "nearest-exact" else False
    out = F.interpolate(frames.float(), size=size, mode=mode, align_corners=corners).to(x.dtype)
    return out.unflatten(0, (x.shape[0], -1)).movedim(1, 2) if x.ndim == 5 else out
