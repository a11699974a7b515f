"""What fits in memory: the views of one model call, a result before it is tried."""

from __future__ import annotations

import itertools
import math
from typing import Any

import comfy.model_management
import psutil
import torch

# The published view_batch_size; larger ones no longer make SDXL faster on large cards.
MOST_VIEWS = 16
# The host asks for the same reserve before it batches conds.
RESERVE = 1.5


def fitting_views(
    model: Any, view_shape: tuple[int, ...], device: torch.device, conds: int, count: int
) -> int:
    """Views of one call that fit in the free memory by the host's own estimate, at least 1.

    Args:
        model: the BaseModel.
        view_shape: (B, C, h, w) of one view.
        device: where the views are.
        conds: predictions per view, 2 with CFG.
        count: views there are.
    """
    # Newer hosts stream weights, and only the patcher knows which of them may go.
    ask = getattr(model.current_patcher, "get_free_memory", comfy.model_management.get_free_memory)
    free = ask(device)
    one = model.memory_required([view_shape[0] * conds, *view_shape[1:]]) * RESERVE
    return max(1, min(MOST_VIEWS, count, int(free / max(one, 1))))


def even_batches(count: int, most: int) -> list[slice]:
    """Split `count` views into as few calls of at most `most` as possible, of even size."""
    calls = math.ceil(count / most)
    edges = [round(i * count / calls) for i in range(calls + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def is_out_of_memory(problem: Exception) -> bool:
    """Whether an exception says that the device ran out of memory, on any host version."""
    known = getattr(comfy.model_management, "is_oom", None)
    return known(problem) if known else isinstance(problem, comfy.model_management.OOM_EXCEPTION)


def attainable(device: torch.device) -> int:
    """Bytes that a device can give at most: of a card all it has, as the host unloads models;
    of the computer what is free, with the swap space."""
    if device.type in ("cpu", "mps"):
        return int(comfy.model_management.get_free_memory(device)) + psutil.swap_memory().free
    return int(comfy.model_management.get_total_memory(device))


def refuse_beyond(need: float, what: str, fix: str, device: torch.device | None = None) -> None:
    """Raise ValueError if something needs more bytes than can be had, before it is tried.

    Args:
        need: bytes that it takes for certain.
        what: begins the message, such as "a latent of 8192 x 8192 cells".
        fix: ends it.
        device: where, the CPU without one.
    """
    most = attainable(device or torch.device("cpu"))
    if need > most:
        raise ValueError(
            f"{what} needs {need / 1e9:.1f} GB of memory, and {most / 1e9:.1f} GB can be had: {fix}"
        )


def resized_bytes(shape: tuple[int, ...], size: tuple[int, int], dtype: torch.dtype) -> int:
    """Bytes that `fusion_ops.upsample.resize` of (..., H, W) to a size allocates: it works in
    float32, and copies the result to any other dtype."""
    cell = 4 + (0 if dtype == torch.float32 else dtype.itemsize)
    return math.prod(shape[:-2]) * math.prod(size) * cell


def picture_bytes(batch: int, size: tuple[int, int], pixels: int) -> int:
    """Bytes of pictures in float32, of latents of a size in cells with so many pixels a cell."""
    return batch * math.prod(size) * pixels**2 * 3 * 4
