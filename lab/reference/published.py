"""The stages of RectifiedHR, FreCaS, ScaleDiff, DiffuseHigh and PixelRush in plain torch.

Explicit re-statements for tests, without ComfyUI and without anything of the pack: one loop of
Euler steps in k-diffusion's space, and around it what each paper says. Latents are (1, C, H, W) in
the model's space, pictures (1, 3, H, W) in -1..1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .demofusion import euler

# (x, sigma, is the prompt the positive one) -> x0
Denoise = Callable[[Tensor, float, bool], Tensor]
# (x0 with the prompt, x0 without, sigma) -> x0 after guidance
Guide = Callable[[Tensor, Tensor, float], Tensor]
Coder = Callable[[Tensor], Tensor]


def plain(cfg: float) -> Guide:
    """Classifier-free guidance."""
    return lambda yes, no, sigma: no + cfg * (yes - no)


def run(
    z: Tensor, noise: Tensor, sigmas: Sequence[float], denoise: Denoise, guide: Guide
) -> Tensor:
    """Noise a picture to sigmas[0] and sample it down."""
    x = z + sigmas[0] * noise
    for s0, s1 in itertools.pairwise(sigmas):
        x = euler(x, guide(denoise(x, s0, True), denoise(x, s0, False), s0), s0, s1)
    return x


def enlarged(z: Tensor, size: tuple[int, int], decode: Coder, encode: Coder, mode: str) -> Tensor:
    """Through pixels, by a mode of torch's interpolate."""
    return encode(F.interpolate(decode(z), size=size, mode=mode).clip(-1, 1))


def rectifiedhr(
    z: Tensor,
    stages: Sequence[tuple[tuple[int, int], int, int, float, Tensor]],
    sigmas: Sequence[float],
    denoise: Denoise,
    decode: Coder,
    encode: Coder,
) -> Tensor:
    """Noise refresh with the cfg of energy rectification (arXiv 2503.02537).

    Args:
        z: the native picture.
        stages: (size in pixels, first step, first step of the next one, cfg, noise).
        sigmas: of all 50 steps. A stage's last step goes to the prediction itself.
    """
    for size, first, after, cfg, noise in stages:
        z = enlarged(z, size, decode, encode, "bicubic")
        z = run(z, noise, [*sigmas[first:after], 0.0], denoise, plain(cfg))
    return z


def down_up(x: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """What a picture of `size` cells can show of x."""
    small = F.interpolate(x, size=size, mode="bilinear", antialias=antialias)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear")


def frecas(
    z: Tensor,
    stages: Sequence[tuple[tuple[int, int], Sequence[float], Tensor]],
    cfg: tuple[float, float],
    denoise: Denoise,
    decode: Coder,
    encode: Coder,
) -> Tensor:
    """Frequency-aware cascade, without reuse of attention maps (arXiv 2410.18410).

    Args:
        stages: (size in pixels, sigmas, noise).
        cfg: (w_L, w_H).
    """
    low, high = cfg
    for size, sigmas, noise in stages:
        before = z.shape[-2:]

        def guide(yes: Tensor, no: Tensor, sigma: float, cells=before) -> Tensor:
            slow, slow_no = down_up(yes, cells, False), down_up(no, cells, False)
            fast, fast_no = yes - slow, no - slow_no
            return slow_no + low * (slow - slow_no) + fast_no + high * (fast - fast_no)

        z = enlarged(z, size, decode, encode, "nearest")
        z = run(z, noise, sigmas, denoise, guide)
    return z


def scalediff(
    z: Tensor,
    size: tuple[int, int],
    noise: Tensor,
    sigmas: Sequence[float],
    cfg: float,
    denoise: Denoise,
    decode: Coder,
    encode: Coder,
    f: float = 0.125,
) -> Tensor:
    """One stage with latent frequency mixing and structure guidance (arXiv 2510.25818); its
    attention is the network's."""
    sharp = enlarged(z, size, decode, encode, "bicubic")
    slow = F.interpolate(z, size=sharp.shape[-2:], mode="bicubic")
    cells = tuple(round(side * f) for side in sharp.shape[-2:])
    mixed = sharp + down_up(slow, cells, True) - down_up(sharp, cells, True)

    def share(sigma: float) -> float:
        return sigma**2 / (1 + sigma**2)

    def guide(yes: Tensor, no: Tensor, sigma: float) -> Tensor:
        x0, weight = plain(cfg)(yes, no, sigma), share(sigma) / share(sigmas[0])
        return x0 + weight * (down_up(mixed, cells, True) - down_up(x0, cells, True))

    return run(mixed, noise, sigmas, denoise, guide)


def diffusehigh(
    z: Tensor,
    size: tuple[int, int],
    noise: Tensor,
    sigmas: Sequence[float],
    cfg: float,
    denoise: Denoise,
    decode: Coder,
    encode: Coder,
    held: int = 5,
) -> Tensor:
    """One stage: sharpened pixels, and the LL band of a Haar wavelet held in the first steps
    (arXiv 2406.18459; of the latent, where its code takes decoded pixels)."""
    large = F.interpolate(decode(z), size=size, mode="bicubic")
    line = torch.tensor([-1.0, 0.0, 1.0]).square().div(-2).exp()
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 3, 3)
    soft = F.conv2d(F.pad(large, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    base = encode((2 * large - soft).clip(-1, 1))

    def ll(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest")

    def guide(yes: Tensor, no: Tensor, sigma: float) -> Tensor:
        x0 = plain(cfg)(yes, no, sigma)
        return x0 + ll(base) - ll(x0) if sigma > sigmas[held] else x0

    return run(base, noise, sigmas, denoise, guide)


def rush(
    z: Tensor,
    size: tuple[int, int],
    added: Tensor,
    sigma: float,
    least: float,
    denoise: Denoise,
    decode: Coder,
    encode: Coder,
    std: float = 0.05,
) -> Tensor:
    """PixelRush's one jump up and one down, on one view (arXiv 2602.12769).

    Args:
        added: noise on the result, of deviation `std`.
        sigma: where the jump goes to.
        least: the model's smallest noise level, where it finds the noise.
    """
    large = enlarged(z, size, decode, encode, "bicubic")
    found = (large - denoise(large, least, True)) / least
    return denoise(large + sigma * found, sigma, True) + std * added
