"""ControlNets, T2I adapters and GLIGEN on views: what they show, cut for each view."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ..fusion_ops.lattices import LatticeSet
from ..fusion_ops.windows import WindowSet
from .cuts import mask_of_views, origin
from .table import NATIVE_ONLY

Views = WindowSet | LatticeSet

# What links of Advanced-ControlNet hold: masks as given, and what is made of them for a call.
HINTS = ("mask_cond_hint_original", "tk_mask_cond_hint_original")
OWN_MASKS = ("mask_cond_hint", "tk_mask_cond_hint", "weight_mask_cond_hint")


def links(conds: list[list[dict] | None]) -> list[Any]:
    """Every ControlNet and T2I adapter of the conds once, with those chained before it and their
    copies on other devices."""
    found: dict[int, Any] = {}
    for cond in (c for listed in conds if listed for c in listed):
        link = cond.get("control")
        while link is not None:
            copies = getattr(link, "multigpu_clones", {}).values()
            found |= {id(one): one for one in (link, *copies)}
            link = link.previous_controlnet
    return list(found.values())


def check_links(conds: list[list[dict] | None]) -> None:
    """Raise ValueError, with the fix, for a ControlNet or adapter that cannot be cut."""
    for link in links(conds):
        why = _hindrance(link)
        if why:
            raise ValueError(f"HiRes Fusion views cannot cut what {origin(link)} shows: {why}")


def _hindrance(link: Any) -> str:
    if not torch.is_tensor(getattr(link, "cond_hint_original", None)):
        return "it keeps no hint image; apply it to the native-size stage only"
    if hasattr(link, "patch_attn1") or "LLLite" in type(link).__name__:
        return "it works by attention patches made of the whole image; " + NATIVE_ONLY
    if hasattr(link, "sparse_settings") or hasattr(link, "ref_opts"):
        return "its images belong to frames or to the whole picture; " + NATIVE_ONLY
    if getattr(link, "vae", None) is not None and not getattr(link, "mult_by_ratio_when_vae", True):
        return "its VAE encodes at another scale than its hint; " + NATIVE_ONLY
    frames = [getattr(link, "latent_keyframe_override", None)]
    frames += [getattr(keyframe, "latent_keyframes", None) for keyframe in _keyframes(link)]
    if any(frame is not None for frame in frames):
        return "latent keyframes count the pictures of a batch, and views are more: remove them"
    known = {*HINTS, *OWN_MASKS, "cond_hint"}
    for name, value in vars(link).items():
        if name not in known and "mask" in name and torch.is_tensor(value):
            return f"its '{name}' is of a kind unknown to us; " + NATIVE_ONLY
    return ""


def _keyframes(link: Any) -> list[Any]:
    """The timestep keyframes of an Advanced-ControlNet link."""
    return getattr(getattr(link, "timestep_keyframes", None), "keyframes", [])


def pack_masks(link: Any) -> list[tuple[Any, str]]:
    """(object, attribute) of every mask that an Advanced-ControlNet link has besides its hint:
    its own, and those of its keyframes and weights. They show the whole picture, at any size."""
    weights = [getattr(keyframe, "control_weights", None) for keyframe in _keyframes(link)]
    weights += [getattr(link, f"weights{kind}", None) for kind in ("", "_default", "_override")]
    held = [(link, "mask_cond_hint_original")]
    held += [(keyframe, "mask_hint_orig") for keyframe in _keyframes(link)]
    held += [(weight, "weight_mask") for weight in weights]
    found = {(id(one), name): (one, name) for one, name in held}
    return [
        (one, name) for one, name in found.values() if torch.is_tensor(getattr(one, name, None))
    ]


class Hint(NamedTuple):
    """What one link shows, at the size of the canvas.

    Attributes:
        image: (b, C, ..., H * ratio, W * ratio).
        ratio: of its pixels (or cells, if latent) to the canvas' cells.
        concat: masks of the same size that the link appends to its image.
        latent: whether `image` is ready for the network, through the link's VAE.
    """

    image: Tensor
    ratio: int
    concat: list[Tensor]
    latent: bool


class CanvasHints:
    """The hints of one sampling run: prepared once for the canvas, cut for the views of a call."""

    def __init__(self) -> None:
        self._hints: dict[int, tuple[Any, Hint]] = {}

    @contextmanager
    def shown(
        self, conds: list[list[dict] | None], views: Views, batch: int, chosen: slice
    ) -> Iterator[None]:
        """Within it, every link of the conds shows the chosen views instead of the whole image.

        The links themselves stay: the host batches conds that share one, and prepares them once
        for a run.
        """
        found = links(conds)
        changed = [(k, k.cond_hint_original, k.extra_concat_orig) for k in found]
        masks = {(id(one), name): (one, name) for k in found for one, name in pack_masks(k)}
        whole = [(one, name, getattr(one, name)) for one, name in masks.values()]
        try:
            for link, _, _ in changed:
                _show(link, self._hint(link, views.canvas), views, batch, chosen)
            for one, name, mask in whole:
                setattr(one, name, mask_of_views(mask, views, batch, chosen))
            yield
        finally:
            for link, image, concat in changed:
                link.cond_hint_original, link.extra_concat_orig = image, concat
                _forget(link)
            for one, name, mask in whole:
                setattr(one, name, mask)

    def _hint(self, link: Any, canvas: tuple[int, int]) -> Hint:
        if id(link) not in self._hints:
            self._hints[id(link)] = (link, canvas_hint(link, canvas))
        return self._hints[id(link)][1]


def canvas_hint(link: Any, canvas: tuple[int, int]) -> Hint:
    """A link's image at the size of the canvas, in latent space if it has a VAE."""
    ratio, concat = link.compression_ratio, link.extra_concat_orig
    height, width = (side * ratio for side in canvas)
    pixels = link.vae.spacial_compression_encode() if link.vae is not None else 1
    image = _resize(link, link.cond_hint_original, height * pixels, width * pixels)
    if link.vae is None:
        return Hint(image, ratio, [_resize(link, mask, height, width) for mask in concat], False)
    loaded = comfy.model_management.loaded_models(only_currently_used=True)
    image = link.vae.encode(link.preprocess_image(image).movedim(1, -1))
    comfy.model_management.load_models_gpu(loaded)
    if link.latent_format is not None:
        image = link.latent_format.process_in(image)
    masks = [_resize(link, mask, height, width).to(image) for mask in concat]
    if image.ndim == 5:  # of a VAE with frames
        framed = [mask.unsqueeze(2) if mask.ndim == 4 else mask for mask in masks]
        masks = [comfy.utils.repeat_to_batch_size(mask, image.shape[2], dim=2) for mask in framed]
    masks = [comfy.utils.repeat_to_batch_size(mask, len(image)) for mask in masks]
    return Hint(torch.cat([image, *masks], dim=1), ratio, [], True)


def _resize(link: Any, image: Tensor, height: int, width: int) -> Tensor:
    return comfy.utils.common_upscale(image, width, height, link.upscale_algorithm, "center")


def _show(link: Any, hint: Hint, views: Views, batch: int, chosen: slice) -> None:
    def cut(image: Tensor) -> Tensor:
        image = comfy.utils.repeat_to_batch_size(image, batch)
        return views.stack_image(image, hint.ratio, chosen)

    _forget(link)
    if hint.latent:
        dtype = link.manual_cast_dtype or link.control_model.dtype
        device = getattr(link, "load_device", None) or hint.image.device
        link.cond_hint = cut(hint.image).to(device=device, dtype=dtype)
    else:
        link.cond_hint_original = cut(hint.image)
        link.extra_concat_orig = [cut(mask) for mask in hint.concat]


def _forget(link: Any) -> None:
    """Drop what a link made of its image and masks for a call."""
    link.cond_hint = None
    for name in OWN_MASKS:
        if getattr(link, name, None) is not None:
            setattr(link, name, None)


def gligen_for_views(gligen: tuple, views: Views, batch: int, chosen: slice) -> tuple:
    """A cond's GLIGEN boxes, (kind, model, [(embedding, height, width, y, x), ...]), for views.

    Windows get the boxes that reach into them, moved and cut; lattices all of them.
    """
    kind, model, *rest = gligen
    if kind != "position":
        return gligen
    boxes = [view_boxes(rest[0], views, number) for number in range(len(views.origins))[chosen]]

    def set_position(shape, _, device) -> Callable:
        one = (batch, *shape[1:])
        patches = [
            model.model.set_position(one, part, device)
            if part
            else model.model.set_empty(one, device)
            for part in boxes
        ]

        def patch(x: Tensor, extra_options: dict) -> Tensor:
            parts = x.split(math.ceil(len(x) / len(patches)))
            return torch.cat(
                [one(part, extra_options) for one, part in zip(patches, parts, strict=True)]
            )

        return patch

    return kind, SimpleNamespace(model=SimpleNamespace(set_position=set_position)), rest[0]


def view_boxes(boxes: list[tuple], views: Views, number: int) -> list[tuple]:
    """The boxes of one view, in its own cells."""
    if isinstance(views, LatticeSet):
        return [(b[0], *(side / views.factor for side in b[1:])) for b in boxes]
    place, found = views.cuts[number], []
    for embedding, height, width, y, x in boxes:
        top, left = max(y - place.top, 0), max(x - place.left, 0)
        bottom = min(y + height - place.top, place.height)
        right = min(x + width - place.left, place.width)
        if bottom > top and right > left:
            found.append((embedding, bottom - top, right - left, top, left))
    return found
