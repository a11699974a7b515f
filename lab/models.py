"""What the training scripts share: finding the host, initial weights, EMA, checkpoints, grids."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools.host import find_host

ROOT = Path(__file__).resolve().parent.parent


def setup_host() -> Path:
    """Put ComfyUI on `sys.path`, on the CPU when there is no accelerator; returns its folder.

    The host goes first on the path: our own package `nodes` would otherwise shadow the host's
    module of that name.
    """
    host = find_host()
    path = str(host)
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True
    if not torch.cuda.is_available():
        args.cpu = True
    return host


def pick_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trainable(module: nn.Module) -> nn.Module:
    """Turn gradients on for every weight (the host freezes some)."""
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module


def init_weights(module: nn.Module, gain: float = 1.0) -> None:
    """Fan-in initial weights in place; the host's layers come with uninitialised memory."""
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = weight[0].numel()
            nn.init.normal_(weight, std=gain / math.sqrt(fan_in))
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(weight)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(weight, std=0.02)
        if isinstance(getattr(layer, "bias", None), Tensor):
            nn.init.zeros_(layer.bias)


class Ema:
    """Exponential moving average of weights, with a decay that rises as steps accumulate."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Fold the weights after step number `step` (from 0) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = module.state_dict()
        names = list(self.shadow)
        torch._foreach_lerp_(
            [self.shadow[k] for k in names], [state[k].float() for k in names], 1 - decay
        )


def cosine_lr(progress: float, peak: float, warmup: float = 0.01, floor: float = 0.02) -> float:
    """Learning rate at `progress` in [0, 1]: linear warm-up, then cosine to `floor * peak`."""
    if progress < warmup:
        return peak * (progress + 1e-4) / warmup
    t = min(1.0, (progress - warmup) / (1 - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t)))


def save_atomic(obj: object, path: Path) -> None:
    """`torch.save` that never leaves a half-written file."""
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(obj, partial)
    os.replace(partial, path)


def write_json(obj: object, path: Path) -> None:
    """Write JSON atomically."""
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps(obj, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def half_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as contiguous fp16 on the CPU, as the safetensors writer wants them."""
    return {k: v.detach().to("cpu", torch.float16).contiguous().clone() for k, v in state.items()}


def load_images(data: Path) -> np.ndarray:
    """The training images: a memory-mapped uint8 array (N, H, W, 3)."""
    return np.load(data / "images.npy", mmap_mode="r")


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    images = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return images.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()


def save_grid(rows: Iterable[np.ndarray], path: Path) -> None:
    """Write uint8 rows, each (N, H, W, 3), as one PNG."""
    from PIL import Image

    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(path)
