"""DemoFusion (arXiv 2311.16973) as one plain torch loop, without ComfyUI.

An explicit re-statement for tests and studies: views are cut and stepped one by one, each with its
own Euler step, and the steps are averaged, as the paper says; nothing is shared with the pack but
the random shifts of the windows, which are handed in. On request it repeats the scaling fault of
the published code (github.com/PRIS-CV/DemoFusion with its default scheduler, Euler).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# (x (B, C, h, w), sigma) -> x0 after guidance
Denoise = Callable[[Tensor, float], Tensor]
# sigma -> jitter (dy, dx) of every window, row by row
Shifts = Callable[[float], list[tuple[int, int]]]


def gaussian(x: Tensor, size: int, sigma: float) -> Tensor:
    place = torch.arange(size, dtype=x.dtype) - (size - 1) / 2
    line = torch.exp(-(place**2) / (2 * sigma**2))
    line = line / line.sum()
    kernel = (line[:, None] * line[None, :]).expand(x.shape[1], 1, size, size)
    return F.conv2d(x, kernel, padding=size // 2, groups=x.shape[1])


def euler(view: Tensor, x0: Tensor, sigma: float, sigma_next: float) -> Tensor:
    return view + (view - x0) / sigma * (sigma_next - sigma)


def misscaled(denoise: Denoise, view: Tensor, sigma: float, scaled_as: float) -> Tensor:
    """x0 of a view whose eps model was given the input of another noise level.

    The model is asked for eps of x / sqrt(sigma^2 + 1). A view that is larger by `factor` makes it
    see x / sqrt(scaled_as^2 + 1), and the rest takes the factor out of x0 = x - sigma eps again.
    """
    factor = math.sqrt((sigma**2 + 1) / (scaled_as**2 + 1))
    return denoise(view * factor, sigma) + (1 - factor) * view


class Looks:
    """x0 of the views of one step, in the published order.

    Args:
        denoise: the model.
        sigma: noise level of the step.
        first: noise level that the first batch of views is scaled for.
        later: the same of all further batches.
        batch: views in the first batch.
    """

    def __init__(self, denoise: Denoise, sigma: float, first: float, later: float, batch: int):
        self.denoise = denoise
        self.sigma = sigma
        self.scales = (first, later)
        self.batch = batch
        self.done = 0

    def __call__(self, view: Tensor) -> Tensor:
        scaled_as = self.scales[self.done >= self.batch]
        self.done += 1
        if scaled_as == self.sigma:
            return self.denoise(view, self.sigma)
        return misscaled(self.denoise, view, self.sigma, scaled_as)

    def end_batch(self) -> None:
        """Views of the other path never share a batch with those before."""
        self.done = max(self.done, self.batch)


def local_path(
    x: Tensor, look: Looks, s0: float, s1: float, window: int, stride: int, shifts: Shifts
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
            value[..., top:bottom, left:right] += euler(view, look(view), s0, s1)
            count[..., top:bottom, left:right] += 1
    inner = (..., slice(reach, reach + height), slice(reach, reach + width))
    return value[inner] / count[inner]


def global_path(
    x: Tensor, look: Looks, s0: float, s1: float, factor: int, blur_sigma: float
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
            eps = (seen - look(seen)) / s0
            out[..., a::factor, b::factor] = view + eps * (s1 - s0)
    return out[..., pad_y:, pad_x:]


def phase(
    upsampled: Tensor,
    noise: Tensor,
    scale: int,
    sigmas: list[float],
    times: list[float],
    denoise: Denoise,
    shifts: Shifts,
    *,
    window: int,
    stride: int,
    cosine_scale_1: float = 3.0,
    cosine_scale_2: float = 1.0,
    cosine_scale_3: float = 1.0,
    sigma: float = 0.8,
    fault_batch: int = 0,
) -> Tensor:
    """One phase after the first, from the upsampled latent (1, C, H, W) in model space.

    With a `fault_batch`, the published view_batch_size, the model's input is scaled as there: its
    scheduler is reset for each batch's step but not for its scaling, which so takes the next sigma
    in all batches but the first, and none in the first batch of the phase, where the scheduler is
    still at the end of the phase before.
    """
    x = upsampled + sigmas[0] * noise
    for step, (s0, s1, time) in enumerate(zip(sigmas, sigmas[1:], times, strict=False)):
        base = 0.5 * (1 + math.cos(math.pi * (1 - time)))
        c1, c2, c3 = base**cosine_scale_1, base**cosine_scale_2, base**cosine_scale_3
        x = (1 - c1) * x + c1 * (upsampled + s0 * noise)
        look = Looks(denoise, s0, s0, s0, 0)
        if fault_batch:
            look = Looks(denoise, s0, s0 if step else 0.0, s1, fault_batch)
        near = local_path(x, look, s0, s1, window, stride, shifts)
        look.end_batch()
        far = global_path(x, look, s0, s1, scale, sigma * (0.99 * c3 + 0.01))
        x = (1 - c2) * near + c2 * far
    return x


def demofusion(
    native: Tensor,
    noises: list[Tensor],
    scales: list[int],
    sigmas: list[float],
    times: list[float],
    denoise: Denoise,
    shifts: list[Shifts],
    **options,
) -> list[Tensor]:
    """The finished latents of all phases after the first, (1, C, H, W) each, in model space.

    `options` are those of `phase`.
    """
    mean, std = native.mean(), native.std()
    latent, finished = native, []
    for scale, noise, shift in zip(scales, noises, shifts, strict=True):
        size = [side * scale for side in native.shape[-2:]]
        upsampled = F.interpolate(latent, size=size, mode="bicubic")
        x = phase(upsampled, noise, scale, sigmas, times, denoise, shift, **options)
        latent = (x - x.mean()) / x.std() * std + mean
        finished.append(latent)
    return finished
