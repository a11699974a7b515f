"""What the training scripts share: initial weights, EMA, learning rate, pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..pictures import sheet


def pick_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fastest(step: Callable[[Any], object], options: Sequence[Any], device: torch.device,
            repeats: int = 3) -> Any:  # fmt: skip
    """The option with which `step(option)` takes the least time, the first time not counted."""
    took = {}
    for option in options:
        seconds = []
        for _ in range(1 + repeats):
            started = time.perf_counter()
            step(option)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        took[option] = min(seconds[1:])
    best = min(took, key=took.get)
    print(f"{best} of " + ", ".join(f"{k} {v * 1000:.0f} ms" for k, v in took.items()), flush=True)
    return best


def fastest_dtype(step: Callable[[torch.dtype], object], device: torch.device) -> torch.dtype:
    """float32 or bfloat16, whichever takes `step` less time.

    bfloat16 is the faster one on GPUs, and 11 to 15 times slower on CPUs without AVX-512.
    """
    return fastest(step, (torch.float32, torch.bfloat16), device)


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
        self.live = dict(module.state_dict(keep_vars=True))
        self.shadow = {k: v.detach().clone().float() for k, v in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the weights after step number `step` (from 0) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.shadow.values()), [v.detach() for v in self.live.values()], 1 - decay
        )


def cosine_lr(progress: float, peak: float, warmup: float = 0.01, floor: float = 0.02) -> float:
    """Learning rate at `progress` in [0, 1]: linear warm-up, then cosine to `floor * peak`."""
    if progress < warmup:
        return peak * (progress + 1e-4) / warmup
    t = min(1.0, (progress - warmup) / (1 - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t)))


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


def save_grid(rows: Sequence[np.ndarray], path: Path) -> None:
    """Write uint8 rows, each (N, H, W, 3) and as long as the first, as one PNG."""
    cells = [("", Image.fromarray(pixels)) for row in rows for pixels in row]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(cells, len(rows[0])).save(path)
