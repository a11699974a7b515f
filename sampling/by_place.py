"""Two prompts in one evaluation: each place of the picture attends to its own.

The CONDITIONING brings all of it: the second text and the mask as entries of its cond, and a hook
with the wrappers that use them. The mask is a model cond of the canvas while a run lasts, so that
views and areas cut it as they cut the latent.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.conds
import comfy.hooks
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .cuts import origin
from .networks import UNet, network_of
from .table import DETAIL, PLACE

KEY = "hires_fusion_by_place"


def prompts_by_place(whole: list, detail: list, mask: Tensor) -> list:
    """The CONDITIONING that says `whole` where the mask is 1 and `detail` where it is 0.

    Args:
        whole: CONDITIONING; its areas, controls and pooled text stay.
        detail: CONDITIONING of one text.
        mask: (M, h, w) in 0..1, M pictures of a batch or 1. One that is 1 everywhere leaves
            `whole` as it is.

    Raises:
        ValueError: `detail` is not one text, or the mask is no mask.
    """
    if len(detail) != 1:
        raise ValueError(
            f"'detail' holds {len(detail)} prompts, and with a mask it must be one text: wire one "
            "CLIP Text Encode, without Combine"
        )
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    if not (mask.isfinite().all() and mask.min() >= 0 and mask.max() <= 1):
        raise ValueError("the mask must lie between 0 and 1: normalise it before View Prompts")
    if (mask == 1).all():
        return whole
    wrappers = {kind: {KEY: [function]} for kind, function in WRAPPERS.items()}
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.TransformerOptionsHook({"wrappers": wrappers}))
    return [
        [
            embedding,
            {
                **options,
                PLACE: mask,
                DETAIL: detail[0][0],
                "hooks": comfy.hooks.HookGroup.combine_all_hooks([options.get("hooks"), group]),
            },
        ]
        for embedding, options in whole
    ]


def lay_out(executor, noise: Tensor, *args, **kwargs) -> Any:
    """OUTER_SAMPLE wrapper: the masks at the size of the canvas, before the first step."""
    guider = executor.class_obj
    network = network_of(guider.model_patcher.model)
    if not isinstance(network, UNet):
        raise ValueError(
            "prompts by place need the cross-attention of SD 1.5, SD 2 or SDXL, which this model "
            "does not have: take the mask off View Prompts"
        )
    options = guider.model_options["transformer_options"]
    if others := [*options.get("patches_replace", {}).get("attn2", {}).values()]:
        raise ValueError(
            f"{origin(others[0])} replaces the cross-attention that prompts by place divide: take "
            "the mask off View Prompts, or leave that node out"
        )
    guider.conds = {
        name: [_laid_out(cond, tuple(noise.shape[-2:])) for cond in listed]
        for name, listed in guider.conds.items()
    }
    return executor(noise, *args, **kwargs)


def _laid_out(cond: dict[str, Any], canvas: tuple[int, int]) -> dict[str, Any]:
    if PLACE not in cond:
        return cond
    cond = {**cond}
    hooks = cond.get("hooks")
    if hooks is not None and all(map(_is_ours, hooks.hooks)):
        del cond["hooks"]  # its wrappers run already, and a cond with hooks is one of its own
    extra = {
        PLACE: comfy.conds.CONDNoiseShape(_resized(cond[PLACE], canvas)),
        DETAIL: comfy.conds.CONDCrossAttn(cond[DETAIL]),
    }
    return {**cond, "model_conds": {**cond.get("model_conds", {}), **extra}}


def _resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (B, 1, h, w) at another size: the mean of what a cell covers, or interpolated."""
    if size[0] <= mask.shape[-2] and size[1] <= mask.shape[-1]:
        return F.adaptive_avg_pool2d(mask.float(), size)
    return F.interpolate(mask.float(), size, mode="bilinear", align_corners=False)


def _is_ours(hook: Any) -> bool:
    return any(
        KEY in found
        for found in (getattr(hook, "transformers_dict", None) or {}).get("wrappers", {}).values()
    )


def divide(
    executor,
    x,
    t,
    c_concat=None,
    c_crossattn=None,
    control=None,
    transformer_options=None,
    **kwargs,
) -> Tensor:
    """APPLY_MODEL wrapper: the text of both prompts to every layer, and its own to every place."""
    mask, detail = kwargs.pop(PLACE, None), kwargs.pop(DETAIL, None)
    options = {**(transformer_options or {})}
    if mask is not None:
        options = _divided(network_of(executor.class_obj), options, mask, detail)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _divided(
    network: UNet, options: dict[str, Any], mask: Tensor, detail: Tensor
) -> dict[str, Any]:
    """The options of a call with our patches of cross-attention."""

    def both(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple:
        longer = (torch.cat([part, detail.to(part)], dim=1) for part in (context, value))
        return n, *longer

    def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        words = k.shape[1] - detail.shape[1]

        def plain(chosen: slice) -> Tensor:
            precision = extra["attn_precision"]
            return optimized_attention(
                *(q, k[:, chosen], v[:, chosen], extra["n_heads"]),
                attn_precision=precision,
                transformer_options=extra,
            )

        grid = tuple(extra["activations_shape"][-2:])
        if math.prod(grid) != q.shape[1]:
            raise ValueError(
                f"the cross-attention has {q.shape[1]} places on a grid of {grid[1]} x {grid[0]}: "
                "take the mask off View Prompts, or the node out that merges tokens"
            )
        share = _resized(mask, grid).flatten(1)[..., None].to(q)
        return share * plain(slice(words)) + (1 - share) * plain(slice(words, None))

    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    longer = [both, *patches.get("attn2_patch", [])]
    return options | {
        "patches": {**patches, "attn2_patch": longer},
        "patches_replace": {**replaced, "attn2": dict.fromkeys(network.levels, attend)},
    }


WRAPPERS = {WrappersMP.OUTER_SAMPLE: lay_out, WrappersMP.APPLY_MODEL: divide}
