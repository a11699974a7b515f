"""Dual-latent fusion: how much of a refined latent is taken at each cell of a base latent.

Adaptive Global Fusion and Dynamic Spatial Fusion of DLSF (Chen and Yang, MVA 2025). Both are a
per-cell weighted mean of two finished latents; they differ in what the weight is computed from.
The authors published no trained weights: their results were made with freshly initialised layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AGF, DSF = "agf", "dsf"
DSF_KERNEL = 7

Weights = dict[str, Tensor]


def weight_shapes(kind: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a fuser's tensors for latents of `channels` channels.

    Args:
        kind: "agf" (a 1 x 1 convolution of both latents to 2 logits) or "dsf" (a 7 x 7
            convolution of 2 pooled maps to 1 logit).
    """
    if kind == AGF:
        return {"agf.weight": (2, 2 * channels, 1, 1), "agf.bias": (2,)}
    if kind == DSF:
        return {"dsf.weight": (1, 2, DSF_KERNEL, DSF_KERNEL), "dsf.bias": (1,)}
    raise ValueError(f"unknown fuser '{kind}': choose {AGF} or {DSF}")


def check_weights(kind: str, channels: int, weights: Weights) -> None:
    """Raise ValueError, naming the tensors that a fuser needs, if `weights` are not those."""
    expected = weight_shapes(kind, channels)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        some = dict(sorted(found.items())[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise ValueError(
            f"these are not the weights of a {kind.upper()} fuser for latents of {channels} "
            f"channels: expected the keys {expected}, found {some}{more}; choose "
            "another file, or the latent format that it was trained on"
        )


def published_weights(kind: str, channels: int, seed: int) -> Weights:
    """A fuser as the authors' results were made: initialised and not trained.

    PyTorch's default of a convolution, weight and bias uniform in +-1/sqrt(fan_in), drawn from
    `seed` in the order in which `torch.nn.Conv2d` draws them.
    """
    shapes = weight_shapes(kind, channels)
    first = next(iter(shapes.values()))
    bound = (first[1] * first[2] * first[3]) ** -0.5
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.empty(shape).uniform_(-bound, bound, generator=generator)
        for name, shape in shapes.items()
    }


def refined_share(kind: str, base: Tensor, refined: Tensor, weights: Weights) -> Tensor:
    """The weight of the refined latent at each cell, in 0..1.

    AGF: W = softmax(Conv1x1(concat(base, refined))) over its two channels, of which the second is
    the refined latent's. DSF: M = sigmoid(Conv7x7(concat(mean_c(refined), max_c(base)))), with
    zeros outside the picture.

    Args:
        kind: "agf" or "dsf".
        base, refined: (B, C, H, W) in the model's scaled latent space; the fusers are not
            equivariant to scale, so raw VAE latents would give other maps.
        weights: tensors as `weight_shapes` names them.

    Returns:
        (B, 1, H, W), float32.
    """
    base, refined = base.float(), refined.float()
    weight, bias = (w.to(base) for w in (weights[f"{kind}.weight"], weights[f"{kind}.bias"]))
    if kind == AGF:
        logits = F.conv2d(torch.cat([base, refined], dim=1), weight, bias)
        return logits.softmax(dim=1)[:, 1:]
    pooled = torch.cat([refined.mean(1, keepdim=True), base.amax(1, keepdim=True)], dim=1)
    return torch.sigmoid(F.conv2d(pooled, weight, bias, padding=DSF_KERNEL // 2))


def blend(base: Tensor, refined: Tensor, share: Tensor | float) -> Tensor:
    """base + share * (refined - base), exact at shares of 0 and 1 and for equal latents.

    Works in any affine latent space, raw or scaled, with the same result: the two shares of a
    cell sum to 1. Computed in float32, returned in the dtype of `refined`.

    Args:
        base, refined: (B, C, ..., H, W), of one shape.
        share: a number, or a tensor that broadcasts to them.
    """
    share = torch.as_tensor(share, dtype=torch.float32, device=refined.device)
    return torch.lerp(base.float(), refined.float(), share).to(refined.dtype)
