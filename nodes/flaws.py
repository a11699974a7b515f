"""What can be wrong inside the value of a link that is of the right type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OVERFLOW = (
    "not all of it are numbers (NaN or infinity): the node that made it overflowed; start ComfyUI "
    "with --fp32-vae or --fp32-unet, or lower cfg there"
)


def numbers(values: Tensor) -> str:
    """What is wrong with a picture or a mask, "" for nothing; says the fix."""
    if values.numel() == 0:
        return f"it is empty, {_sides(values)}: connect one with at least one picture and pixel"
    return "" if is_finite(values) else OVERFLOW


def latent(value: dict[str, Any]) -> str:
    """The same of a LATENT. Nested samples are judged by the nodes that need their size."""
    samples = value["samples"]
    if not torch.is_tensor(samples) or samples.is_nested:
        return ""
    if not samples.is_floating_point():
        return f"it is of {_kind(samples)}, and latents are of floats: encode a picture to get one"
    if flaw := numbers(samples):
        return flaw
    mask = value.get("noise_mask")
    if mask is None:
        return ""
    if not torch.is_tensor(mask) or mask.ndim < 2 or mask.is_complex():
        return "its noise_mask is no mask: set it with Set Latent Noise Mask"
    return f"its noise_mask: {flaw}" if (flaw := numbers(mask)) else ""


def sigmas(values: Tensor) -> str:
    """The same of noise levels; none at all are no run, as for the host's samplers."""
    if not is_finite(values):
        return "not all of it are numbers (NaN or infinity): connect a scheduler"
    if values.numel() and values.min() < 0:
        return f"it falls to {float(values.min()):g}, and noise levels are not below 0: correct it"
    return ""


def is_finite(values: Tensor) -> bool:
    """Whether all of them are numbers; of a tensor without values nothing is known."""
    return values.device.type == "meta" or bool(values.isfinite().all())


def _sides(values: Tensor) -> str:
    return " x ".join(map(str, values.shape))


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
