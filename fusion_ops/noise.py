"""Noise that is not drawn afresh: what a model finds in a picture, and mixtures."""

from __future__ import annotations

import math

from torch import Tensor


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """cos(a) first + sin(a) second, a = share pi / 2: the variance of unit noises stays 1.

    The spherical interpolation of independent Gaussians, which are all but orthogonal in as many
    dimensions. A share of .95 of predicted noise (PixelRush) is `share` .05 of fresh noise.

    Args:
        first, second: of one shape; the ends are exact.
        share: of the second, 0..1.
    """
    if share in (0, 1):
        return second if share else first
    angle = share * math.pi / 2
    return math.cos(angle) * first + math.sin(angle) * second


def predicted_noise(x: Tensor, denoised: Tensor, sigma: float, flow: bool = False) -> Tensor:
    """The unit noise in x, if `denoised` is its picture: x = z + s n, or x = (1 - s) z + s n.

    Args:
        x: what the model was given, in model space.
        denoised: what it made of it, of the same shape.
        sigma: noise level of x, > 0.
        flow: x is a rectified flow's.
    """
    picture = (1 - sigma) * denoised if flow else denoised
    return (x - picture) / sigma
