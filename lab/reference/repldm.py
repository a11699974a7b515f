"""AP-LDM (arXiv 2410.06055) and RepLDM (NeurIPS 2025) as one plain torch loop, without ComfyUI.

An explicit re-statement for tests: Euler in the space of k-diffusion, attentive guidance by the
whole attention matrix, pixel-space stages. Nothing is shared with the pack.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .demofusion import Denoise, euler

# (1, C, H, W) in model space -> (1, 3, H * f, W * f) in -1..1, and back
Decode = Callable[[Tensor], Tensor]
Encode = Callable[[Tensor], Tensor]


def pfsa(x: Tensor) -> Tensor:
    """softmax(X X^T / sqrt(C)) X of one latent (1, C, H, W)."""
    tokens = x.flatten(2)[0].T
    weights = torch.softmax(tokens @ tokens.T / tokens.shape[1] ** 0.5, dim=-1)
    return (weights @ tokens).T.view_as(x)


def denoised(
    x: Tensor, sigmas: Sequence[float], denoise: Denoise, gammas: Sequence[float] | None = None
) -> Tensor:
    """Sample x (1, C, H, W) down the sigmas, with gamma of guidance after each step."""
    for step, (s0, s1) in enumerate(itertools.pairwise(sigmas)):
        x = euler(x, denoise(x, s0), s0, s1)
        if gammas is not None:
            x = x + gammas[step] * (pfsa(x) - x)
    return x


def stage(
    latent: Tensor,
    size: tuple[int, int],
    noise: Tensor,
    sigmas: Sequence[float],
    denoise: Denoise,
    decode: Decode,
    encode: Encode,
) -> Tensor:
    """Lift a finished latent to `size` pixels and sample it again from sigmas[0]."""
    large = F.interpolate(decode(latent), size=size, mode="bicubic").clip(-1, 1)
    return denoised(encode(large) + sigmas[0] * noise, sigmas, denoise)


def repldm(
    start: Tensor,
    gammas: Sequence[float],
    sigmas: Sequence[float],
    stages: Sequence[tuple[tuple[int, int], float, Tensor]],
    denoise: Denoise,
    decode: Decode,
    encode: Encode,
    match: bool = True,
) -> list[Tensor]:
    """The finished latents of both stages' parts, in model space.

    Args:
        start: pure noise of the native size, at sigmas[0].
        gammas: scale of attentive guidance of each step of the first stage.
        stages: (size in pixels, init rate, noise) of each part of the second stage.
        match: give each part the native latent's mean and deviation (RepLDM; AP-LDM does not).
    """
    native = latent = denoised(start, sigmas, denoise, gammas)
    finished = [native]
    for size, init_rate, noise in stages:
        left = sigmas[int((len(sigmas) - 1) * init_rate) :]
        latent = stage(latent, size, noise, left, denoise, decode, encode)
        if match:
            latent = (latent - latent.mean()) / latent.std() * native.std() + native.mean()
        finished.append(latent)
    return finished
