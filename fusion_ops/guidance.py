"""Attentive guidance: self-attention of a latent with itself, without weights.

AP-LDM, arXiv 2410.06055, and RepLDM (NeurIPS 2025). PFSA there, later TFSA: queries, keys and
values are the latent's own vectors, one token a cell.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DECAYS = ("none", "linear", "cosine", "exp")
SCORES = 2**28  # bytes of scores at once, where the device's attention has to write them down
TINY = 1e-6


def self_attention(x: Tensor, attn_scaling: float = 0.0, scores: int = SCORES) -> Tensor:
    """PFSA(x) = softmax(X X^T / lambda) X, in float32 (AP-LDM, 3.2).

    Args:
        x: (B, C, H, W), or (B, C, T, H, W) of which every frame is attended by itself.
        attn_scaling: lambda, 0 for sqrt(C).
        scores: bytes that a block of scores may take: torch's fused kernels write none, its plain
            one does.

    Returns:
        Like x, float32.
    """
    tokens = _tokens(x)
    scale = 1 / (attn_scaling or math.sqrt(tokens.shape[-1]))
    heads = tokens[:, None]  # one head: the kernels want (B, heads, N, C)
    blocks = [
        F.scaled_dot_product_attention(block, heads, heads, scale=scale)
        for block in heads.split(_rows(tokens, scores), dim=2)
    ]
    return _canvas(torch.cat(blocks, 2)[:, 0], x)


def squared_weights(x: Tensor, attn_scaling: float = 0.0, scores: int = SCORES) -> Tensor:
    """Sum over j of A_ij^2 for the attention matrix A of `self_attention`, (B, 1, ..., H, W)."""
    tokens = _tokens(x)
    scale = 1 / (attn_scaling or math.sqrt(tokens.shape[-1]))
    sums = []
    for block in tokens.split(_rows(tokens, scores // 2), dim=1):
        logits = block @ tokens.mT * scale
        sums.append((2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1))
    return _canvas(torch.cat(sums, 1).exp()[..., None], x[:, :1])


def _tokens(x: Tensor) -> Tensor:
    """(B or B*T, H*W, C) in float32."""
    frames = x.movedim(2, 1).flatten(0, 1) if x.ndim == 5 else x
    return frames.flatten(2).mT.float().contiguous()


def _canvas(tokens: Tensor, like: Tensor) -> Tensor:
    frames = tokens.mT.unflatten(2, like.shape[-2:])
    return frames.unflatten(0, (like.shape[0], -1)).movedim(1, 2) if like.ndim == 5 else frames


def _rows(tokens: Tensor, scores: int) -> int:
    return max(1, scores // (4 * tokens.shape[0] * tokens.shape[1]))


def calibrated(attended: Tensor, x: Tensor, weights: Tensor, alpha: float, mode: int) -> Tensor:
    """Give PFSA's result the power that noise of this level has (the published code's option).

    Args:
        attended: PFSA(x).
        weights: `squared_weights(x)`.
        alpha: share of the picture in the noised latent's variance, 1 / (1 + sigma^2).
        mode: 0 changes nothing; 2 divides by the power of an average of independent noise;
            1 estimates the picture's share of it from the result itself.
    """
    if mode == 0:
        return attended
    picture = (attended / (x + TINY)) ** 2 if mode == 1 else 1.0
    return attended / ((alpha * picture + (1 - alpha) * weights).sqrt() + TINY)


@dataclass(frozen=True)
class Guidance:
    """When attentive guidance acts, and how strongly.

    Attributes:
        scale: gamma, the papers' `attn_guidance_scale`.
        density: "all", or shares 0..1 of guided steps, one for each of as many equal parts of the
            schedule, that of the smallest noise first (`attn_guidance_density`). With as many
            numbers as steps, each is a step's switch.
        skip_first: steps at the start that are not guided.
        stop_after: steps from the start after which none is, 0 for all.
        decay: how the scale falls over the guided steps, one of DECAYS (`attn_guidance_decay`).
        decay_min: the scale doesn't fall below it.
        decay_factor: exponent of linear and cosine, base (0..1) of exp.
        filter: how the low-pass opens over the guided steps, one of DECAYS.
        filter_start: share of each half axis of frequencies that it lets through at first.
    """

    scale: float
    density: str = "all"
    skip_first: int = 0
    stop_after: int = 0
    decay: str = "none"
    decay_min: float = 0.0
    decay_factor: float = 1.0
    filter: str = "none"
    filter_start: float = 0.5

    def steps(self, count: int) -> dict[int, tuple[float, float]]:
        """Step -> (scale, share of frequencies) of each guided step of a run of `count` steps.

        Raises:
            ValueError: a density of parts that don't divide the steps.
        """
        last = self.stop_after or count
        guided = [
            step
            for step in guided_steps(parse_density(self.density), count)
            if self.skip_first <= step < last
        ]
        places = [i / max(len(guided) - 1, 1) for i in range(len(guided))]
        return {
            step: (self._scale(i, place), self._share(place))
            for i, (step, place) in enumerate(zip(guided, places, strict=True))
        }

    def _scale(self, index: int, place: float) -> float:
        left = {
            "none": 1.0,
            "linear": (1 - place) ** self.decay_factor,
            "cosine": ((1 + math.cos(math.pi * place)) / 2) ** self.decay_factor,
            "exp": self.decay_factor**index,
        }[self.decay]
        return max(self.scale * left, self.decay_min)

    def _share(self, place: float) -> float:
        start = self.filter_start
        return {
            "none": 1.0,
            "linear": start + (1 - start) * place,
            "cosine": start + (1 - start) * (1 - math.cos(math.pi * place)) / 2,
            "exp": start ** (1 - place),
        }[self.filter]


def guided_steps(density: list[float] | None, count: int) -> list[int]:
    """Steps that are guided, in the order of sampling (AP-LDM's code).

    Args:
        density: see `Guidance`; None for all steps.
        count: steps of the run.
    """
    if density is None:
        return list(range(count))
    parts = len(density)
    if count % parts:
        raise ValueError(
            f"the density has {parts} numbers, which don't divide the {count} steps of this run: "
            f"write one number for each step, or as many as divide {count}"
        )
    size = count // parts
    found = set()
    for part, share in enumerate(density):
        wanted = int(size * share)
        for k in range(wanted):
            # Counted from the last step, as the papers' timesteps are; the part's largest first.
            index = (part + 1) * size - 1 - k * (size // wanted)
            found.add(count - 1 - index)
    return sorted(found)


DENSITY = re.compile(r"\[?\s*(\d*\.?\d+)\s*\]?\s*(?:[*x]\s*(\d+))?")


def parse_density(text: str) -> list[float] | None:
    """The numbers of a density: "all", "0, 0.5, 1", "0*31, 1*16, 0*3" or "[0]*31+[1]*16+[0]*3".

    Raises:
        ValueError: anything else, or numbers outside 0..1.
    """
    if text.strip().lower() in ("all", ""):
        return None
    numbers: list[float] = []
    for part in re.split(r"[,+]", text.strip().strip("()")):
        match = DENSITY.fullmatch(part.strip())
        if not match or not 0 <= float(match[1]) <= 1:
            raise ValueError(
                f"attn_guidance_density has '{part.strip()}': write \"all\", or shares from 0 to "
                "1, the smallest noise first, such as 0*31, 1*16, 0*3"
            )
        numbers += [float(match[1])] * int(match[2] or 1)
    return numbers
