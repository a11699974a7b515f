"""Where in a picture a word is: from the probabilities of cross-attention to a mask.

Source: AccDiffusion, arXiv 2407.10738, section 3.2, reads the attention of a word's tokens; the
mask here is soft, and relative to the mean: min-max normalisation finds a subject in anything.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 4  # blocks a side in which a subject must be missing somewhere
LITTLE = 0.05  # of the subject: what a block without it holds at most
FOUND = 2.0  # means: attention that is nowhere higher has found nothing


def word_share(q: Tensor, k: Tensor, heads: int, tokens: list[int]) -> Tensor:
    """How much of its attention each place gives to some tokens of the text, mean over heads.

    Args:
        q: (B, N, heads * width), of the places.
        k: (B, T, heads * width), of the text.
        tokens: which of the T.

    Returns:
        (B, N) in 0..1, float32.
    """
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return logits.softmax(-1)[..., tokens].sum(-1).mean(1)


def mean_map(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Mean of maps (B, h, w) of several sizes, each resized bilinearly, (B, *size)."""
    resized = [
        F.interpolate(found[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        for found in maps
    ]
    return torch.stack(resized).mean(0)


def place_mask(share: Tensor, threshold: float = 1.0, softness: float = 0.5) -> Tensor:
    """clamp((r - threshold) / softness + 1/2, 0, 1) with r = share / its mean over the picture.

    Args:
        share: (B, h, w), >= 0.
        threshold: r where the mask is one half.
        softness: how far r goes from a mask of 0 to one of 1; 0 cuts at the threshold.
    """
    mean = share.mean((-2, -1), keepdim=True)
    r = share / mean.clamp_min(torch.finfo(share.dtype).tiny)
    if softness == 0:
        return (r >= threshold).to(share.dtype)
    return ((r - threshold) / softness + 0.5).clamp(0, 1)


def is_placed(share: Tensor) -> Tensor:
    """Whether a share of attention (B, h, w) has a place in each picture, (B,), true or false.

    It must reach FOUND means somewhere, and more than half of GRID x GRID blocks must hold less
    than LITTLE of what is above the mean. What is nowhere, and what is everywhere, has no place.
    """
    share = share.float()
    mean = share.mean((-2, -1), keepdim=True)
    blocks = F.adaptive_avg_pool2d((share - mean).clamp_min(0)[:, None], GRID).flatten(1)
    empty = (blocks < LITTLE * blocks.sum(1, keepdim=True)).sum(1)
    found = share.amax((-2, -1)) >= FOUND * mean.flatten()
    return found & (mean.flatten() > 0) & (empty > GRID**2 // 2)
