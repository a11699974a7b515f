"""DemoFusion (arXiv 2311.16973) as one plain torch loop, without ComfyUI.

An explicit re-statement for the tests: views are cut and stepped one by one, each with its own
Euler step, and the steps are averaged, as the paper says; nothing is shared with the pack but
the random shifts of the windows, which are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# (x (B, C, h, w), sigma) -> x0 after guidance
Denoise = Callable[[Tensor, float], Tensor]
# (sigma, number of windows in y, in x) -> jitter (dy, dx) of every window, row by row
Shifts = Callable[[float], list[tuple[int, int]]]


def gaussian(x: Tensor, size: int, sigma: float) -> Tensor:
    place = torch.arange(size, dtype=x.dtype) - (size - 1) / 2
    line = torch.exp(-(place**2) / (2 * sigma**2))
    line = line / line.sum()
    kernel = (line[:, None] * line[None, :]).expand(x.shape[1], 1, size, size)
    return F.conv2d(x, kernel, padding=size // 2, groups=x.shape[1])


def euler(view: Tensor, x0: Tensor, sigma: float, sigma_next: float) -> Tensor:
    return view + (view - x0) / sigma * (sigma_next - sigma)


def local_path(
    x: Tensor, denoise: Denoise, s0: float, s1: float, window: int, stride: int, shifts: Shifts
) -> Tensor:
    height, width = x.shape[-2:]
    reach = (window - stride) // 4
    rows = math.ceil((height - window) / stride) + 1 if height > window else 1
    columns = math.ceil((width - window) / stride) + 1 if width > window else 1
    padded = F.pad(x, (reach, reach, reach, reach))
    value, count = torch.zeros_like(padded), torch.zeros_like(padded)
    shift = iter(shifts(s0))
    for row in range(rows):
        for column in range(columns):
            dy, dx = next(shift)
            top = min(row * stride, max(height - window, 0)) + dy + reach
            left = min(column * stride, max(width - window, 0)) + dx + reach
            bottom, right = top + min(window, height), left + min(window, width)
            view = padded[..., top:bottom, left:right]
            value[..., top:bottom, left:right] += euler(view, denoise(view, s0), s0, s1)
            count[..., top:bottom, left:right] += 1
    inner = (..., slice(reach, reach + height), slice(reach, reach + width))
    return value[inner] / count[inner]


def global_path(
    x: Tensor, denoise: Denoise, s0: float, s1: float, factor: int, blur_sigma: float
) -> Tensor:
    height, width = x.shape[-2:]
    pad_y, pad_x = -height % factor, -width % factor
    padded = F.pad(x, (pad_x, 0, pad_y, 0))
    blurred = gaussian(padded, 2 * factor - 1, blur_sigma)
    blurred = (blurred - blurred.mean()) / blurred.std() * padded.std() + padded.mean()
    out = torch.zeros_like(padded)
    for a in range(factor):
        for b in range(factor):
            seen, view = blurred[..., a::factor, b::factor], padded[..., a::factor, b::factor]
            eps = (seen - denoise(seen, s0)) / s0
            out[..., a::factor, b::factor] = view + eps * (s1 - s0)
    return out[..., pad_y:, pad_x:]


def demofusion(
    native: Tensor,
    noises: list[Tensor],
    scales: list[int],
    sigmas: list[float],
    times: list[float],
    denoise: Denoise,
    shifts: list[Shifts],
    *,
    window: int,
    stride: int,
    cosine_scale_1: float = 3.0,
    cosine_scale_2: float = 1.0,
    cosine_scale_3: float = 1.0,
    sigma: float = 0.8,
) -> list[Tensor]:
    """The finished latents of all phases after the first, (1, C, H, W) each, in model space."""
    mean, std = native.mean(), native.std()
    latent, finished = native, []
    for scale, noise, shift in zip(scales, noises, shifts, strict=True):
        size = [side * scale for side in native.shape[-2:]]
        upsampled = F.interpolate(latent, size=size, mode="bicubic")
        x = upsampled + sigmas[0] * noise
        for s0, s1, time in zip(sigmas, sigmas[1:], times, strict=False):
            base = 0.5 * (1 + math.cos(math.pi * (1 - time)))
            c1, c2, c3 = base**cosine_scale_1, base**cosine_scale_2, base**cosine_scale_3
            x = (1 - c1) * x + c1 * (upsampled + s0 * noise)
            near = local_path(x, denoise, s0, s1, window, stride, shift)
            far = global_path(x, denoise, s0, s1, scale, sigma * (0.99 * c3 + 0.01))
            x = (1 - c2) * near + c2 * far
        latent = (x - x.mean()) / x.std() * std + mean
        finished.append(latent)
    return finished
