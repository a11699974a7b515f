"""Conditioning of the canvas -> conditioning of a batch of views."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from comfy.conds import CONDConstant, CONDRegular
from torch import Tensor

from ..fusion_ops.lattices import LatticeSet
from ..fusion_ops.windows import WindowSet
from . import patches
from .control import check_links, gligen_for_views
from .cuts import Cutter
from .table import SIZED

Views = WindowSet | LatticeSet

# A cond dictionary's key, and which views the cond speaks to; those without it speak to all.
PATH = "hires_fusion_path"
LOCAL, GLOBAL = "local", "global"

# The host fades an area to its edges over so many cells.
FADE = 8


def check(
    conds: dict[str, list[dict]], model_options: dict | None = None, model: Any = None
) -> None:
    """Raise ValueError, with the fix, for what a graph asks of views and they cannot do.

    Args:
        conds: the guider's conds, {"positive": [cond, ...], ...}, processed or not.
        model_options: of the MODEL, with its patches and wrappers.
        model: the MODEL, for the parts of it that nodes replaced.
    """
    check_links([flat(conds)])
    patches.check(model_options or {}, hooks(conds))
    if model is not None:
        patches.check_objects(model.object_patches)


def flat(conds: dict[str, list[dict]]) -> list[dict]:
    """All conds of a guider."""
    return [cond for found in conds.values() for cond in found or []]


def hooks(conds: dict[str, list[dict]]) -> list[Any]:
    """The HookGroups of a guider's conds."""
    return [cond["hooks"] for cond in flat(conds) if cond.get("hooks")]


def check_sizes(model: Any, conds: dict[str, list[dict]], views: Views, batch: int) -> None:
    """Raise ValueError, with the fix, for what nodes made for another size than the canvas'.

    Args:
        model: the BaseModel.
        conds: the guider's conds, not yet processed by the host: nothing is loaded, nothing drawn.
        batch: latents of the canvas.
    """
    cutter = Cutter(model, views, batch, slice(0, 1), None)
    for cond in flat(conds):
        for name, key in SIZED.items():
            given = cond.get(name)
            for value in given if key == "vace_context" and given else [given]:
                if value is not None:
                    kind = CONDRegular if torch.is_tensor(value) else CONDConstant
                    cutter.all({"model_conds": {key: kind(value)}})


def check_processed(
    model: Any, conds: dict[str, list[dict]], views: Views, x: Tensor, crop_offset: int | None
) -> None:
    """Raise ValueError, with the fix, for model conds that cannot be cut: cuts them for one view.

    Args:
        model: the BaseModel.
        conds: the guider's conds once the host has processed them.
        x: anything of the canvas' batch and dtype.
        crop_offset: as for `for_views`.
    """
    cutter = Cutter(model, views, x.shape[0], slice(0, 1), crop_offset)
    for cond in flat(conds):
        cutter.all(cond)


def for_path(conds: list[list[dict] | None], path: str) -> list[list[dict] | None]:
    """The conds that speak to the local or to the global views."""
    return [
        None if listed is None else [c for c in listed if c.get(PATH, path) == path]
        for listed in conds
    ]


def for_views(
    model: Any,
    conds: list[list[dict] | None],
    views: Views,
    x: Tensor,
    chosen: slice,
    crop_offset: int | None = 0,
) -> list[list[dict] | None]:
    """The processed conds of the canvas, cut for some of its views.

    Model conds are cut as `table.MODEL_CONDS` says; areas act as masks, with the host's faded
    edges; SDXL's crop coordinates become the window's place (DemoFusion 3.2). Conds whose mask
    leaves nothing are left out. ControlNets stay on the conds: see `control.CanvasHints`.

    Args:
        model: the BaseModel.
        conds: one list of cond dictionaries for positive, negative, ... (None where unused).
        views: all views.
        x: the canvas, (B, C, ..., H, W), padded or not.
        chosen: which of the views.
        crop_offset: cells added to a window's place for SDXL's crop coordinates; None leaves
            the coordinates alone.

    Raises:
        ValueError: a model cond that views cannot be given.
    """
    cut = _Cut(model, views, x, chosen, crop_offset)
    found = [None if listed is None else [cut.cond(c) for c in listed] for listed in conds]
    return [None if listed is None else [c for c in listed if c is not None] for listed in found]


class _Cut:
    """Cuts conds for the chosen views."""

    def __init__(self, model: Any, views: Views, x: Tensor, chosen: slice, crop: int | None):
        self.views = views
        self.batch = x.shape[0]
        self.device = x.device
        self.dims = (*x.shape[2:-2], *views.canvas)  # x itself may be padded
        self.chosen = chosen
        self.cutter = Cutter(model, views, self.batch, chosen, crop)

    def cond(self, cond: dict) -> dict | None:
        out = cond.copy()
        mask = cond_mask(cond, self.dims, self.device)
        if mask is not None:
            mask = comfy.utils.repeat_to_batch_size(mask, self.batch)
            out["mask"] = self.views.stack(mask, self.chosen)
            if not out["mask"].any():
                return None
            out.pop("area", None)
            if "mask" not in cond:
                out.pop("mask_strength", None)
        if "gligen" in cond:
            out["gligen"] = gligen_for_views(cond["gligen"], self.views, self.batch, self.chosen)
        out["model_conds"] = self.cutter.all(cond)
        return out


def cond_mask(cond: dict, dims: tuple[int, ...], device: torch.device) -> Tensor | None:
    """The share of every cell that a cond with a mask or an area speaks for, (b, *dims).

    The same as the host's for a whole canvas: an area without a mask fades to its edges.
    """
    mask, area = cond.get("mask"), cond.get("area")
    if area is None:
        return mask
    sizes, starts = area[: len(area) // 2], area[len(area) // 2 :]
    missing = len(dims) - len(sizes)
    sizes = [*dims[: max(missing, 0)], *sizes][: len(dims)]
    starts = [0] * max(missing, 0) + list(starts)[: len(dims)]
    share = torch.ones((), device=device)
    for axis, (length, size, start) in enumerate(zip(dims, sizes, starts, strict=True)):
        fade = FADE if mask is None else 0
        size = max(min(size, length - start), 0)
        line = _axis_share(length, size, start, fade).to(device)
        share = share * line.view([-1 if i == axis else 1 for i in range(len(dims))])
    return share[None] if mask is None else mask * share


def _axis_share(length: int, size: int, start: int, fade: int) -> Tensor:
    line = torch.zeros(length)
    steps = min(fade, size // 4)
    inside = torch.ones(size)
    ramp = torch.arange(1, steps + 1) / max(steps, 1)
    if start > 0:
        inside[:steps] *= ramp
    if start + size < length:
        inside[size - steps :] *= ramp.flip(0)
    line[start : start + size] = inside
    return line
