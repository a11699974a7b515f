"""One model cond of the canvas -> the same of a batch of views, by `table.MODEL_CONDS`."""

from __future__ import annotations

import math
import re
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fusion_ops.lattices import LatticeSet
from ..fusion_ops.windows import WindowSet
from .latents import cell_pixels, patch_cells
from .table import CELLS, MODEL_CONDS, NATIVE_ONLY, SHARED, Refused

Views = WindowSet | LatticeSet

# Masks of packs are made of pixels; what is enlarged to them before it is cut loses nothing.
MASK_PIXELS = 8


def origin(thing: Any) -> str:
    """Where a function or an object comes from, for a message: its name and its pack."""
    if hasattr(thing, "__func__"):
        thing = thing.__func__
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    module = getattr(kind, "__module__", None) or ""
    pack = re.search(r"custom_nodes[./\\]+([^./\\]+)", module)
    return f"'{kind.__qualname__}' ({f'pack {pack[1]}' if pack else module})"


def extended(data: Tensor, size: int) -> Tensor:
    """`size` items, cut off or the last one repeated, as packs do with masks and embeddings."""
    missing = size - len(data)
    return (
        data[:size]
        if missing <= 0
        else torch.cat([data, data[-1:].expand(missing, *data.shape[1:])])
    )


def mask_of_views(mask: Tensor, views: Views, batch: int, chosen: slice) -> Tensor:
    """A pack's own mask (M, .., h, w) of the whole picture at any size, for the chosen views."""
    height, width = views.canvas
    ratio = mask.shape[-1] // width
    if ratio < 1 or mask.shape[-2:] != (height * ratio, width * ratio):
        ratio = MASK_PIXELS
        planes = mask.reshape(-1, 1, *mask.shape[-2:]).float()
        planes = F.interpolate(planes, (height * ratio, width * ratio), mode="bilinear")
        mask = planes.view(*mask.shape[:-2], *planes.shape[-2:]).to(mask.dtype)
    return views.stack_image(extended(mask, batch), ratio, chosen)


def rule_of(key: str, value: Any, canvas: tuple[int, int], patch: int) -> str | Refused:
    """What becomes of a model cond. One that the table lacks is judged by its class and shape."""
    if key in MODEL_CONDS:
        return MODEL_CONDS[key]
    if isinstance(value, comfy.conds.CONDNoiseShape):
        return CELLS  # the host itself cuts it for areas
    if isinstance(value, comfy.conds.CONDCrossAttn):
        return SHARED  # the host itself repeats it for longer texts: its tokens have no places
    data = getattr(value, "cond", value)
    if _without_place(data, {math.prod(canvas), math.prod(-(-side // patch) for side in canvas)}):
        return SHARED
    shape = f"a tensor {tuple(data.shape)}" if torch.is_tensor(data) else type(data).__name__
    return Refused(
        f"it is unknown, and {shape} may depend on the place in the picture; remove the node that "
        f"sets it, or {NATIVE_ONLY}"
    )


def _without_place(data: Any, counts: set[int]) -> bool:
    """Whether a value is made of numbers and vectors that cannot be laid over a picture."""
    if torch.is_tensor(data):
        sides = [side for side in data.shape[1:] if side > 1]
        return not sides or (len(sides) == 1 and sides[0] not in counts)
    if isinstance(data, dict):
        return all(_without_place(part, counts) for part in data.values())
    if isinstance(data, (list, tuple)):
        return len(data) not in counts and all(_without_place(part, counts) for part in data)
    return data is None or isinstance(data, (bool, int, float, str))


class Cutter:
    """Cuts model conds for the chosen views; its methods are the rules of the table.

    Args:
        model: the BaseModel.
        views: all views.
        batch: latents in the batch.
        chosen: which of the views.
        crop: cells added to a window's place for SDXL's crop coordinates, None for none of them.
    """

    def __init__(self, model: Any, views: Views, batch: int, chosen: slice, crop: int | None):
        self.model = model
        self.views = views
        self.batch = batch
        self.chosen = chosen
        self.crop = crop

    def all(self, cond: dict) -> dict[str, Any]:
        """The cond's `model_conds` for the views."""
        return {key: self._one(key, value, cond) for key, value in cond["model_conds"].items()}

    def _one(self, key: str, value: Any, cond: dict) -> Any:
        if not isinstance(value, comfy.conds.CONDRegular):
            raise ValueError(self._refusal(key, f"it is no cond of the host; {NATIVE_ONLY}"))
        patch = patch_cells(self.model) if self.model is not None else 1
        rule = rule_of(key, value, self.views.canvas, patch)
        if isinstance(rule, Refused):
            raise ValueError(self._refusal(key, rule.why))
        if value.cond is None:
            return value
        if rule == SHARED and isinstance(value, comfy.conds.CONDConstant):
            return value  # never of a batch
        cut = getattr(self, rule)
        if isinstance(value, comfy.conds.CONDList):
            return value._copy_with([cut(key, data, cond) for data in value.cond])
        return value._copy_with(cut(key, value.cond, cond))

    def _refusal(self, key: str, why: str) -> str:
        # A pack's model class, or one of the host's with a node's cond.
        return (
            f"HiRes Fusion views cannot use the conditioning '{key}' of "
            f"{origin(type(self.model))}: {why}"
        )

    def shared(self, key: str, data: Any, cond: dict) -> Any:
        """As many as the batch of latents: views would else each get another item of a list."""
        if not torch.is_tensor(data) or data.ndim == 0 or len(data) == 1:
            return data
        return comfy.utils.repeat_to_batch_size(data, self.batch)

    def vector(self, key: str, data: Tensor, cond: dict) -> Tensor:
        data = self.shared(key, data, cond)
        sizes = _size_embeddings(self.model)
        if sizes == 0 or self.crop is None or isinstance(self.views, LatticeSet):
            return data
        return self._crop_embedding(data, sizes, cond)

    def cells(self, key: str, data: Tensor, cond: dict) -> Tensor:
        if data.shape[-2:] == self.views.canvas:
            return self._stack(data)
        if data.shape[-2:] == (1, 1):
            return self.shared(key, data, cond)
        raise ValueError(self._refusal(key, self._size_told(data)))

    def mask(self, key: str, data: Tensor, cond: dict) -> Tensor:
        if (data < 0).any():
            why = f"guides on a sparser grid than the picture's have no place in it; {NATIVE_ONLY}"
            raise ValueError(self._refusal(key, why))
        return self.cells(key, data, cond)

    def reference(self, key: str, data: Tensor, cond: dict) -> Tensor:
        if data.ndim >= 4 and data.shape[-2:] == self.views.canvas:
            return self._stack(data)
        return self.shared(key, data, cond)

    def stretched(self, key: str, data: Tensor, cond: dict) -> Tensor:
        """As Stable Cascade's stage B stretches its prior over the canvas, then cut."""
        size = self.views.canvas
        return self._stack(F.interpolate(data, size, mode="bilinear", align_corners=True))

    def pixels(self, key: str, data: Tensor, cond: dict) -> Tensor:
        ratio = cell_pixels(self.model)
        if data.shape[-2:] != tuple(side * ratio for side in self.views.canvas):
            raise ValueError(self._refusal(key, self._size_told(data, ratio)))
        data = comfy.utils.repeat_to_batch_size(data, self.batch)
        return self.views.stack_image(data, ratio, self.chosen)

    def joint_mask(self, key: str, data: Tensor, cond: dict) -> Tensor:
        """Flux: rows and columns of the text, and of the tokens that a view has."""
        if not isinstance(self.model, comfy.model_base.Flux) or data.ndim != 3:
            return self.shared(key, data, cond)
        patch = patch_cells(self.model)
        height, width = (-(-side // patch) for side in self.views.canvas)
        text = data.shape[-1] - height * width
        if text < 0:
            why = f"it speaks of {data.shape[-1]} tokens, the picture alone has {height * width}"
            raise ValueError(self._refusal(key, f"{why}; set it anew for this size"))
        tokens = torch.arange(height * width).view(1, height, width)
        cells = tokens.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        rows, columns = self.views.canvas
        seen = self.views.stack(cells[:, :rows, :columns], self.chosen)[:, ::patch, ::patch]
        data = comfy.utils.repeat_to_batch_size(data, self.batch)
        out = []
        for view in seen.flatten(1):
            index = torch.cat([torch.arange(text), text + view]).to(data.device)
            out.append(data[:, index][:, :, index])
        return torch.cat(out)

    def guide_tokens(self, key: str, data: Tensor, cond: dict) -> Tensor:
        """Places of a view's guide tokens: those of a picture of its size, at the same times.

        A view is a picture of its own, whose first cell is at 0, wherever it lies in the canvas.
        """
        height, width = self.views.size
        frames = self._guide_frames(key, data.shape[2])
        grid = data.unflatten(2, (frames, *self.views.canvas))[:, :, :, :height, :width]
        return self.shared(key, grid.flatten(2, 4), cond)

    def guide_counts(self, key: str, data: list[dict], cond: dict) -> list[dict]:
        return [self._guide_count(key, guide) for guide in data]

    def _guide_count(self, key: str, guide: dict) -> dict:
        if guide.get("pixel_mask") is not None:
            why = f"a guide's attention mask is of the whole picture; {NATIVE_ONLY}"
            raise ValueError(self._refusal(key, why))
        frames = self._guide_frames(key, guide["pre_filter_count"])
        count = frames * math.prod(self.views.size)
        return {**guide, "pre_filter_count": count, "latent_shape": [frames, *self.views.size]}

    def keyframe_slots(self, key: str, data: dict, cond: dict) -> dict:
        self._guide_frames(key, data["tokens_per_frame"])
        return {**data, "tokens_per_frame": math.prod(self.views.size)}

    def _guide_frames(self, key: str, tokens: int) -> int:
        frames, rest = divmod(tokens, math.prod(self.views.canvas))
        if rest:
            why = (
                f"{tokens} tokens are no whole frames of {self.views.canvas[1]} x "
                f"{self.views.canvas[0]} cells: crop the guides before you enlarge the latent, "
                "and add them again"
            )
            raise ValueError(self._refusal(key, why))
        return frames

    def _stack(self, data: Tensor) -> Tensor:
        data = comfy.utils.repeat_to_batch_size(data, self.batch)
        return self.views.stack(data, self.chosen)

    def _size_told(self, data: Tensor, ratio: int = 1) -> str:
        height, width = (side * ratio for side in self.views.canvas)
        return (
            f"it is {data.shape[-1]} x {data.shape[-2]} and not {width} x {height} as the picture; "
            "make it anew for this size"
        )

    def _crop_embedding(self, y: Tensor, sizes: int, cond: dict) -> Tensor:
        """SDXL's vector (.., pooled | 256 each of height, width, crop_h, crop_w, ...) per view."""
        y = comfy.utils.repeat_to_batch_size(y, self.batch)
        first = y.shape[-1] - 256 * sizes + 512
        scale = cell_pixels(self.model)
        user = torch.tensor([cond.get("crop_h", 0), cond.get("crop_w", 0)], dtype=torch.float32)
        origins = torch.tensor(self.views.origins[self.chosen], dtype=torch.float32)
        places = user + scale * (origins + self.crop).clamp_min(0)
        out = y.expand(len(places), *y.shape).clone()  # (V, B, D)
        out[..., first : first + 512] = self.model.embedder(places.flatten()).view(-1, 1, 512)
        return out.flatten(0, 1)


def _size_embeddings(model: Any) -> int:
    """How many sizes the model's vector ends with: SDXL 6, its refiner 5, others none."""
    if isinstance(model, comfy.model_base.SDXL):
        return 6
    return 5 if isinstance(model, comfy.model_base.SDXLRefiner) else 0
