"""What a noise mask keeps: the one place through which every change of a latent passes."""

from __future__ import annotations

import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fusion_ops.latent_fusion import blend

# A mask may fall this short of 1 by the rounding of its interpolation.
ROUNDING = 1e-3


def mask_of(latent: dict, shape: torch.Size | None = None) -> Tensor | None:
    """The noise mask of a LATENT, 1 where it may change, as the host's samplers would use it.

    Args:
        latent: its `noise_mask` may be of any size, with a mask for each picture; without a time
            axis the host takes several masks of a video latent for its frames.
        shape: (B, C, ..., H, W) of another picture to make it for, see `enlarged`; None for that
            of the LATENT's own samples.

    Returns:
        a mask of that shape, None where there is none.
    """
    mask = latent.get("noise_mask")
    if mask is None:
        return None
    samples = latent["samples"]
    if shape is None:
        shape = samples.shape
    else:
        mask = enlarged(mask, shape[-2:])
    # Resizing by bicubic or Lanczos interpolation overshoots, and a change is no more than whole.
    return comfy.utils.reshape_mask(mask.float(), shape).clamp(0, 1).to(samples.device)


def kept(before: Tensor, after: Tensor, mask: Tensor | None) -> Tensor:
    """A change of a latent, as far as its mask allows: exactly `before` where the mask is 0.

    Args:
        before, after: (B, C, ..., H, W), of one shape.
        mask: broadcasts to them; None allows everything.
    """
    return after if mask is None else blend(before, after, mask)


def only_free(before: Tensor, after: Tensor, mask: Tensor | None) -> Tensor:
    """A change for the cells that are wholly free, and none for those that are half kept.

    For noise that a sampler is to take away again: it leaves that of half kept cells in them.
    """
    return after if mask is None else torch.where(mask >= 1 - ROUNDING, after, before)


def enlarged(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A noise mask for a picture of `size` cells, of its own rank and batch.

    A mask that is as fine already stays, since samplers scale it themselves. In a coarser one
    each new cell is kept, or free, if the cell that it came from was; what is between is
    interpolated.
    """
    height, width = (max(sides) for sides in zip(mask.shape[-2:], size, strict=True))
    if (height, width) == tuple(mask.shape[-2:]):
        return mask
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    near = F.interpolate(flat, size=(height, width), mode="nearest-exact")
    soft = F.interpolate(flat, size=(height, width), mode="bilinear")
    out = torch.where((near <= 0) | (near >= 1), near, soft)
    return out.reshape(*mask.shape[:-2], height, width).to(mask.dtype)
