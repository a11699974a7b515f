"""Conditioning of the canvas -> conditioning of a batch of views."""

from __future__ import annotations

from typing import Any

import comfy.model_base
import comfy.utils
import torch
from torch import Tensor

from ..fusion_ops.views import LatticeSet, WindowSet
from .latents import cell_pixels

Views = WindowSet | LatticeSet

# What cannot be cut for a view, and what its users can do instead.
UNCUT = {
    "area": "set the area as a mask with 'Conditioning (Set Mask)'",
    "gligen": "leave GLIGEN out of the high-resolution stages",
    "control": "apply the ControlNet to the native-size stage only",
}


def check(conds: dict[str, list[dict]]) -> None:
    """Raise ValueError, with the fix, if some conditioning cannot be cut for views.

    Args:
        conds: the guider's conds, {"positive": [cond, ...], ...}.
    """
    for name, cond in ((n, c) for n, listed in conds.items() for c in listed):
        for kind, fix in UNCUT.items():
            if cond.get(kind) is not None:
                raise ValueError(
                    f"HiRes Fusion views cannot cut '{kind}' of the {name} conditioning yet: {fix}."
                )


def for_views(
    model: Any, conds: list[list[dict] | None], views: Views, batch: int, chosen: slice
) -> list[list[dict] | None]:
    """The processed conds of the canvas, cut for some of its views.

    What has the canvas' height and width is cut as the latent is; SDXL's crop coordinates
    become the window's place (DemoFusion 3.2); everything else is shared by all views.

    Args:
        model: the BaseModel.
        conds: one list of cond dictionaries for positive, negative, ... (None where unused).
        views: all views.
        batch: latents on the canvas.
        chosen: which of the views.
    """
    cut = _Cut(model, views, batch, chosen)
    return [None if listed is None else [cut.cond(c) for c in listed] for listed in conds]


class _Cut:
    """Cuts conds for the chosen views."""

    def __init__(self, model: Any, views: Views, batch: int, chosen: slice):
        self.model = model
        self.views = views
        self.batch = batch
        self.origins = views.origins[chosen]
        self.rows = slice(chosen.start * batch, chosen.stop * batch)

    def cond(self, cond: dict) -> dict:
        out = cond.copy()
        out["model_conds"] = {
            key: self._model_cond(key, value, cond) for key, value in cond["model_conds"].items()
        }
        if "mask" in cond:
            mask = comfy.utils.repeat_to_batch_size(cond["mask"], self.batch)
            out["mask"] = self.views.stack(mask)[self.rows]
            out.pop("area", None)  # the mask's bounding box: the mask is zero outside it anyway
        return out

    def _model_cond(self, key: str, value: Any, cond: dict) -> Any:
        data = getattr(value, "cond", None)
        if not torch.is_tensor(data):
            return value
        if data.ndim >= 4 and tuple(data.shape[-2:]) == tuple(self.views.canvas):
            stacked = self.views.stack(comfy.utils.repeat_to_batch_size(data, self.batch))
            return value._copy_with(stacked[self.rows])
        if key == "y" and isinstance(self.views, WindowSet):
            return value._copy_with(self._crop_embedding(data, cond))
        return value

    def _crop_embedding(self, y: Tensor, cond: dict) -> Tensor:
        """SDXL's vector (.., pooled | 256 each of height, width, crop_h, crop_w, ...) per view."""
        sizes = _size_embeddings(self.model)
        if sizes == 0:
            return y
        y = comfy.utils.repeat_to_batch_size(y, self.batch)
        first = y.shape[-1] - 256 * sizes + 512
        scale = cell_pixels(self.model)
        user = torch.tensor([cond.get("crop_h", 0), cond.get("crop_w", 0)], dtype=torch.float32)
        places = user + scale * torch.tensor(self.origins, dtype=torch.float32).clamp_min(0)
        out = y.expand(len(places), *y.shape).clone()  # (V, B, D)
        out[..., first : first + 512] = self.model.embedder(places.flatten()).view(-1, 1, 512)
        return out.flatten(0, 1)


def _size_embeddings(model: Any) -> int:
    """How many sizes the model's vector ends with: SDXL 6, its refiner 5, others none."""
    if isinstance(model, comfy.model_base.SDXL):
        return 6
    return 5 if isinstance(model, comfy.model_base.SDXLRefiner) else 0
