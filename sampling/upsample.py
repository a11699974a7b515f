"""Upsample Guidance: what the model makes of the whole canvas at native size corrects x0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from comfy.model_sampling import CONST
from torch import Tensor

from ..fusion_ops.lattices import dilation_factor
from ..fusion_ops.pooled import PooledSet, lowered
from . import conditioning
from .control import links
from .latents import native_cells, patch_cells
from .plan import ViewPlan

ALWAYS, NEVER = (float("inf"), 0.0), (-1.0, 0.0)  # of a ControlNet: first and last sigma


def pooled_set(plan: ViewPlan, canvas: tuple[int, int], model: Any) -> PooledSet | None:
    """How this canvas is shrunk; None where it is of native size already, or has no effect."""
    settings = plan.upsample
    if settings is None or settings.weight == 0:
        return None
    factor = settings.factor or dilation_factor(canvas, native_cells(model, settings.native))
    return PooledSet(factor, canvas, patch_cells(model)) if factor > 1 else None


def correct(call: Any, x: Tensor, x0: list[Tensor], pooled: PooledSet, weight: float) -> list:
    """x0 + weight U(D(pool(x), sigma') - pool(x0)) for every cond list (arXiv 2404.01709).

    One model call of native size. sigma' is the level of the pooled x, whose noise is `factor`
    times weaker: sigma / factor, and for flow models see `fusion_ops.pooled.lowered`. On each
    half of CFG apart, which is the same as on their result, so that what is not evaluated stays
    so.

    Args:
        call: the evaluation that `x0` comes from, a `denoiser._ViewCall`.
        x: the canvas, (B, C, ..., H, W).
        x0: its prediction for every cond list.
        pooled: how the canvas is shrunk.
        weight: theta.
    """
    sigma = call.timestep
    flow = isinstance(call.model.model_sampling, CONST)
    level, share = lowered(sigma, pooled.shrinks_noise, flow)
    conds = at_level(call.conds, float(sigma.flatten()[0]))
    with controls_at(conds, float(sigma.flatten()[0])):
        small = call.at(conds, level).alone(x / share.view(-1, *[1] * (x.ndim - 1)), pooled)
    return [
        # A half of CFG that is not evaluated is empty, and stays what it is.
        big if listed is None else big + weight * pooled.enlarge(few - pooled.stack(big))
        for listed, big, few in zip(call.conds, x0, small, strict=True)
    ]


def at_level(conds: list[list[dict] | None], sigma: float) -> list[list[dict] | None]:
    """The conds that hold at a noise level, for a call at another one."""
    ends = ("timestep_start", "timestep_end")
    return [
        None
        if listed is None
        else [
            {key: value for key, value in cond.items() if key not in ends}
            for cond in listed
            if cond.get(ends[1], 0.0) <= sigma <= cond.get(ends[0], float("inf"))
        ]
        for listed in conds
    ]


@contextmanager
def controls_at(conds: list[list[dict] | None], sigma: float) -> Iterator[None]:
    """Within it, the ControlNets of the conds act, or don't, as they do at this noise level."""
    changed = [(link, link.timestep_range) for link in links(conds) if link.timestep_range]
    try:
        for link, (first, last) in changed:
            link.timestep_range = ALWAYS if last <= sigma <= first else NEVER
        yield
    finally:
        for link, known in changed:
            link.timestep_range = known


def check(conds: dict[str, list[dict]]) -> None:
    """Raise ValueError, with the fix, for what can't be evaluated at two levels in one step.

    Args:
        conds: the guider's conds, {"positive": [cond, ...], ...}.
    """
    hooks = [hook for group in conditioning.hooks(conds) for hook in group.hooks]
    if any(len(hook.hook_keyframe.keyframes) > 1 for hook in hooks):
        raise ValueError(
            "Upsample Guidance evaluates a step at two noise levels, and hook keyframes change "
            "with the noise level: use hooks without keyframes, or Dilated Sampling instead"
        )
