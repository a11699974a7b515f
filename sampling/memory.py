"""How many views fit in one model call."""

from __future__ import annotations

import itertools
import math
from typing import Any

import comfy.model_management
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
