"""Conditioning of the canvas -> conditioning of a batch of views."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops.lattices import LatticeSet
from ..fusion_ops.windows import WindowSet
from .control import gligen_for_views, links
from .latents import cell_pixels

Views = WindowSet | LatticeSet

# A cond dictionary's key, and which views the cond speaks to; those without it speak to all.
PATH = "hires_fusion_path"
LOCAL, GLOBAL = "local", "global"

# The host fades an area to its edges over so many cells.
FADE = 8


def check(conds: dict[str, list[dict]], model_options: dict | None = None) -> None:
    """Raise ValueError, with the fix, if something cannot be cut for views.

    Args:
        conds: the guider's conds, {"positive": [cond, ...], ...}.
        model_options: of the MODEL, with its patches and wrappers.
    """
    for link in links(list(conds.values())):
        if getattr(link, "cond_hint_original", None) is None:
            raise ValueError(
                f"HiRes Fusion views cannot cut what '{type(link).__name__}' shows: it keeps no "
                "hint image; apply it to the native-size stage only"
            )
    options = model_options or {}
    patches = options.get("transformer_options", {}).get("patches", {})
    for patch in (p for listed in patches.values() for p in listed):
        if hasattr(patch, "encoded_image_size"):
            raise ValueError(
                f"HiRes Fusion views cannot cut the image inside '{type(patch).__name__}': every "
                "view would get the whole image; use it in the native-size stage only"
            )
    wrappers = options.get("transformer_options", {}).get("wrappers", {})
    if "easycache" in wrappers.get(WrappersMP.DIFFUSION_MODEL, {}):
        raise ValueError(
            "EasyCache keeps the last model call, which with views is another part of the "
            "picture: use LazyCache, which keeps whole steps, or leave it out"
        )
    if getattr(options.get("context_handler"), "dim", 0) >= 3:
        raise ValueError(
            "context windows over height or width are views already: remove them, or give them "
            "the dimension of the frames"
        )


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

    What has the canvas' height and width is cut as the latent is; areas act as masks, with the
    host's faded edges; SDXL's crop coordinates become the window's place (DemoFusion 3.2);
    everything else is shared by all views. Conds whose mask leaves nothing are left out.
    ControlNets stay on the conds: see `control.CanvasHints`.

    Args:
        model: the BaseModel.
        conds: one list of cond dictionaries for positive, negative, ... (None where unused).
        views: all views.
        x: the canvas, (B, C, ..., H, W), padded or not.
        chosen: which of the views.
        crop_offset: cells added to a window's place for SDXL's crop coordinates; None leaves
            the coordinates alone.
    """
    cut = _Cut(model, views, x, chosen, crop_offset)
    found = [None if listed is None else [cut.cond(c) for c in listed] for listed in conds]
    return [None if listed is None else [c for c in listed if c is not None] for listed in found]


class _Cut:
    """Cuts conds for the chosen views."""

    def __init__(self, model: Any, views: Views, x: Tensor, chosen: slice, crop: int | None):
        self.model = model
        self.views = views
        self.batch = x.shape[0]
        self.device = x.device
        self.dims = (*x.shape[2:-2], *views.canvas)  # x itself may be padded
        self.chosen = chosen
        self.crop = crop

    def cond(self, cond: dict) -> dict | None:
        out = cond.copy()
        mask = cond_mask(cond, self.dims, self.device)
        if mask is not None:
            out["mask"] = self._stack(mask)
            if not out["mask"].any():
                return None
            out.pop("area", None)
            if "mask" not in cond:
                out.pop("mask_strength", None)
        if "gligen" in cond:
            out["gligen"] = gligen_for_views(cond["gligen"], self.views, self.batch, self.chosen)
        out["model_conds"] = {
            key: self._model_cond(key, value, cond) for key, value in cond["model_conds"].items()
        }
        return out

    def _stack(self, data: Tensor) -> Tensor:
        return self.views.stack(comfy.utils.repeat_to_batch_size(data, self.batch), self.chosen)

    def _model_cond(self, key: str, value: Any, cond: dict) -> Any:
        data = getattr(value, "cond", None)
        if isinstance(data, list):
            return value._copy_with([self._stack(d) if self._fits(d) else d for d in data])
        if not torch.is_tensor(data):
            return value
        if self._fits(data):
            return value._copy_with(self._stack(data))
        if key == "y" and isinstance(self.views, WindowSet) and self.crop is not None:
            return value._copy_with(self._crop_embedding(data, cond))
        return value

    def _fits(self, data: Any) -> bool:
        return torch.is_tensor(data) and data.ndim >= 4 and data.shape[-2:] == self.views.canvas

    def _crop_embedding(self, y: Tensor, cond: dict) -> Tensor:
        """SDXL's vector (.., pooled | 256 each of height, width, crop_h, crop_w, ...) per view."""
        sizes = _size_embeddings(self.model)
        if sizes == 0:
            return y
        y = comfy.utils.repeat_to_batch_size(y, self.batch)
        first = y.shape[-1] - 256 * sizes + 512
        scale = cell_pixels(self.model)
        user = torch.tensor([cond.get("crop_h", 0), cond.get("crop_w", 0)], dtype=torch.float32)
        origins = torch.tensor(self.views.origins[self.chosen], dtype=torch.float32)
        places = user + scale * (origins + self.crop).clamp_min(0)
        out = y.expand(len(places), *y.shape).clone()  # (V, B, D)
        out[..., first : first + 512] = self.model.embedder(places.flatten()).view(-1, 1, 512)
        return out.flatten(0, 1)


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


def _size_embeddings(model: Any) -> int:
    """How many sizes the model's vector ends with: SDXL 6, its refiner 5, others none."""
    if isinstance(model, comfy.model_base.SDXL):
        return 6
    return 5 if isinstance(model, comfy.model_base.SDXLRefiner) else 0
