"""Runs a plan of views inside the denoiser and fuses their predictions of x0.

For Euler and DDIM the mean of stepped views is one step with the mean of their x0, so the
fusion happens on x0 and any sampler, and any of eps, v and flow models, can be used.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops import filters, schedule
from ..fusion_ops.lattices import LatticeSet, dilation_factor, exchange, exchange_back
from ..fusion_ops.pooled import PooledSet
from ..fusion_ops.shifted import shifted_windows
from ..fusion_ops.windows import WindowSet, windows
from . import conditioning, patches, upsample
from .cuts import origin
from .latents import check_shape, check_side, diffusion_time, native_cells, patch_cells
from .memory import even_batches, fitting_views, is_out_of_memory
from .plan import KEY, LocalViews, ViewPlan
from .view_run import ViewRun

RUN = f"{KEY}_run"


def add_views(model: ModelPatcher, **paths: Any) -> ModelPatcher:
    """A clone of the MODEL whose plan has the given fields of ViewPlan changed.

    The wrappers are added once, whichever view node comes first, so that order doesn't matter.
    """
    model = model.clone()
    plan = model.model_options.get(KEY, ViewPlan())
    model.model_options[KEY] = dataclasses.replace(plan, **paths)
    for kind, wrapper in WRAPPERS.items():
        if not model.get_wrappers(kind, KEY):
            model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def denoise_views(executor, model, conds, x: Tensor, timestep: Tensor, model_options: dict) -> list:
    """CALC_COND_BATCH wrapper: x0 of every cond list, fused from the plan's views.

    local = mean over windows of D(window); global = D(lattices of blur(x)) + (x - blur(x));
    x0 = (1 - c2) local + c2 global (DemoFusion, arXiv 2311.16973, in x0 space); and x0 is
    corrected by the shrunk canvas where the plan has one, see `upsample.correct`.
    """
    plan: ViewPlan = model_options[KEY]
    run: ViewRun = model_options.get(RUN) or ViewRun()
    sigma = float(timestep.flatten()[0])
    time = diffusion_time(model.model_sampling, timestep)
    canvas = tuple(x.shape[-2:])
    local, dilated = _view_sets(plan, canvas, model, run.rng(sigma))
    pooled = upsample.pooled_set(plan, canvas, model)
    share = schedule.cosine_factor(time, plan.dilated.cosine_scale_2) if dilated else 0.0
    counts = [len(views.origins) for views in (local, dilated) if views] or [1]
    run.start_call(sigma, sum(counts) + (pooled is not None))

    call = _ViewCall(executor, model, conds, timestep, model_options, plan, run)
    x0 = _fused(call, x, time, local, dilated, share)
    if pooled is None or not plan.upsample.span.holds(model.model_sampling, sigma):
        return x0
    return upsample.correct(call, x, x0, pooled, plan.upsample.weight)


def _fused(
    call: _ViewCall,
    x: Tensor,
    time: float,
    local: WindowSet | None,
    dilated: LatticeSet | None,
    share: float,
) -> list[Tensor]:
    """x0 of windows, or of the whole canvas, mixed with that of lattices by their `share`."""
    near = None
    if share < 1:
        near = call.views(x, local) if local else call.canvas(x)
    if share == 0:
        return near
    settings = call.plan.dilated
    width = schedule.blur_sigma(time, settings.sigma, settings.cosine_scale_3)
    far = _dilated_x0(call, x, dilated, width)
    if near is None:
        return far
    return [(1 - share) * a + share * b for a, b in zip(near, far, strict=True)]


def _view_sets(
    plan: ViewPlan, canvas: tuple[int, int], model: Any, rng: random.Random
) -> tuple[WindowSet | None, LatticeSet | None]:
    """Windows and lattices of this canvas; None where one view would be the whole canvas."""
    local = dilated = None
    align = patch_cells(model)
    if plan.local:
        local = _window_set(plan.local, canvas, native_cells(model), rng, align)
        local = local if len(local.places) > 1 else None
    if plan.dilated:
        native = native_cells(model, plan.dilated.native)
        factor = plan.dilated.factor or dilation_factor(canvas, native)
        dilated = LatticeSet(factor, canvas, align) if factor > 1 or local else None
    return local, dilated


def _window_set(
    settings: LocalViews, canvas: tuple[int, int], native: int, rng: random.Random, align: int
) -> WindowSet:
    window, stride = settings.sizes(native, align)
    jitter = rng if settings.jitter else None
    if settings.grid == "shifted":
        # Each cell is one window's, so weights would divide by what they multiply with.
        return WindowSet(shifted_windows(canvas, window, jitter, align), canvas, "uniform")
    places = windows(canvas, window, stride, jitter, settings.border, align)
    return WindowSet(places, canvas, settings.weights, settings.border)


def check_views(
    plan: ViewPlan, canvas: tuple[int, int], model: Any
) -> tuple[WindowSet | None, LatticeSet | None, PooledSet | None]:
    """All views that a run on this canvas of (H, W) cells may have.

    Raises:
        ValueError: they are too small for the BaseModel, or leave gaps; says the fix.
    """
    local, dilated = _view_sets(plan, canvas, model, random.Random(0))
    pooled = upsample.pooled_set(plan, canvas, model)
    fixes = (
        (local, "a larger window"),
        (dilated, "a smaller factor, or a larger native"),
        (pooled, "a smaller factor, or a larger native"),
    )
    for views, fix in fixes:
        if views:
            check_side(model, views.size, canvas, fix)
    return local, dilated, pooled


def _dilated_x0(call: _ViewCall, x: Tensor, lattices: LatticeSet, sigma: float) -> list[Tensor]:
    """D(blur(x)) + (x - blur(x)) for every cond list, evaluated on the lattices."""
    padded = lattices.pad(x)
    blurred = padded
    if lattices.factor > 1:
        blurred = filters.blur(padded, 2 * lattices.factor - 1, sigma)
        blurred = filters.match_statistics(blurred, padded)
    detail = padded - blurred
    if not call.plan.dilated.interaction:
        return [lattices.unpad(x0 + detail) for x0 in call.views(blurred, lattices)]
    seed = call.run.rng(float(call.timestep.flatten()[0])).getrandbits(63)
    generator = torch.Generator().manual_seed(seed)
    exchanged, index = exchange(blurred, lattices.factor, generator)
    found = call.views(exchanged, lattices)
    return [lattices.unpad(exchange_back(x0, lattices.factor, index) + detail) for x0 in found]


class _ViewCall:
    """One evaluation of the denoiser on the canvas."""

    def __init__(self, executor, model, conds, timestep, model_options, plan, run):
        self.executor = executor
        self.model = model
        self.conds = conds
        self.timestep = timestep
        self.model_options = model_options
        self.plan: ViewPlan = plan
        self.run: ViewRun = run

    def canvas(self, x: Tensor) -> list[Tensor]:
        """x0 of the whole canvas at once: the host's own evaluation."""
        conds = conditioning.for_path(self.conds, conditioning.GLOBAL)
        out = self.executor(self.model, conds, x, self.timestep, self.model_options)
        self.run.advance(1)
        return out

    def at(self, conds: list, timestep: Tensor) -> _ViewCall:
        """The same with other conds at another noise level."""
        parts = (self.executor, self.model, conds, timestep, self.model_options)
        return _ViewCall(*parts, self.plan, self.run)

    def alone(self, x: Tensor, views: PooledSet) -> list[Tensor]:
        """x0 of the one view that there is, for every cond list, of the view's size."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        parts = self._evaluate(x, views, slice(0, 1))
        if parts is None:
            self._shrink(1)
        finite = torch.stack([part.isfinite().all() for part in parts])
        self._check_finite(x, views, finite[:, None])
        self.run.advance(1)
        return parts

    def views(self, x: Tensor, views: WindowSet | LatticeSet) -> list[Tensor]:
        """x0 of x from its views, merged, for every cond list; few model calls. Of lattices it
        is as large as the padded canvas."""
        count = len(views.origins)
        mergers = [views.merger() for _ in self.conds]
        finite: list[Tensor] = []
        done = 0
        while done < count:
            most = self._most_views(x, views)
            first = even_batches(count - done, most)[0]
            chosen = slice(done, done + first.stop)
            comfy.model_management.throw_exception_if_processing_interrupted()
            parts = self._evaluate(x, views, chosen)
            if parts is None:
                self._shrink(chosen.stop - chosen.start)
                continue
            for merger, part in zip(mergers, parts, strict=True):
                merger.add(part, chosen)
            by_view = [part.unflatten(0, (-1, len(x))).flatten(1) for part in parts]
            finite.append(torch.stack([part.isfinite().all(1) for part in by_view]))
            done = chosen.stop
            self.run.advance(chosen.stop - chosen.start)
        self._check_finite(x, views, torch.cat(finite, dim=1))
        return [merger.result() for merger in mergers]

    def _evaluate(self, x: Tensor, views, chosen: slice) -> list[Tensor] | None:
        """x0 of the chosen views for every cond list; None if the device ran out of memory."""
        is_window = isinstance(views, WindowSet)
        path = conditioning.LOCAL if is_window else conditioning.GLOBAL
        crop = self.plan.local.crop_offset(native_cells(self.model)) if is_window else None
        conds = conditioning.for_path(self.conds, path)
        conds = conditioning.for_views(self.model, conds, views, x, chosen, crop)
        options = patches.for_views(self.model_options, views, len(x), chosen)
        timestep = self.timestep.repeat(chosen.stop - chosen.start)
        try:
            with self.run.hints.shown(conds, views, len(x), chosen):
                stacked = views.stack(x, chosen)
                return self.executor(self.model, conds, stacked, timestep, options)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
        return None  # outside the except clause, so that the failed call's tensors are free

    def _check_finite(self, x: Tensor, views, finite: Tensor) -> None:
        """Say where the model broke; `finite` is (cond lists, views)."""
        if finite.all() or not x.isfinite().all():
            return
        number = int((~finite).any(0).nonzero()[0])
        place = (
            f"window at row {views.origins[number][0]}, column {views.origins[number][1]}"
            if isinstance(views, WindowSet)
            else "shrunk canvas of Upsample Guidance"
            if isinstance(views, PooledSet)
            else f"lattice {views.offsets[number]}"
        )
        raise ValueError(
            f"the model returned NaN or infinity for the {place} (latent cells): its precision "
            "overflows; start ComfyUI with --fp32-unet or --bf16-unet, or lower cfg"
        )

    def _most_views(self, x: Tensor, views: WindowSet | LatticeSet) -> int:
        used = sum(listed is not None for listed in self.conds)
        shape = (*x.shape[:-2], *views.size)
        asked = self.plan.view_batch_size or fitting_views(
            self.model, shape, x.device, used, len(views.origins)
        )
        return min(asked, self.run.most_views or asked)

    def _shrink(self, views: int) -> None:
        """Halve the views of a call for the rest of the run, after the device ran out of memory."""
        if views == 1:
            raise comfy.model_management.OOM_EXCEPTION(
                "one view alone does not fit in memory: choose a smaller window in "
                "HRF_TiledDiffusion, a smaller picture, or start ComfyUI with --lowvram"
            )
        self.run.most_views = views // 2
        logging.warning("HiRes Fusion: out of memory, going on with %d views a call", views // 2)
        comfy.model_management.soft_empty_cache()


def start_run(executor, guider, sigmas: Tensor, extra_args: dict, *args, **kwargs) -> Tensor:
    """SAMPLER_SAMPLE wrapper: refuses conds that views cannot be given, then gives the views a
    fresh state with the run's seed."""
    _check_processed(guider, extra_args["model_options"][KEY], noise=args[1])
    run = ViewRun(extra_args.get("seed") or 0, sigmas)
    options = extra_args["model_options"]  # CFG++ samplers put another one in its place
    strange = patches.stranger(guider.model_patcher, options, conditioning.hooks(guider.conds))
    if strange is not None:
        run.most_views = 1
        logging.info("HiRes Fusion: one view a call, for the sake of %s", origin(strange))
    options[RUN] = run
    try:
        return executor(guider, sigmas, extra_args, *args, **kwargs)
    finally:
        options.pop(RUN, None)


def _check_processed(guider: Any, plan: ViewPlan, noise: Tensor) -> None:
    """Refuse before the first step what the views of this canvas could not be given."""
    model = guider.inner_model
    for views in check_views(plan, tuple(noise.shape[-2:]), model):
        if views:
            is_window = isinstance(views, WindowSet)
            crop = plan.local.crop_offset(native_cells(model)) if is_window else None
            conditioning.check_processed(model, guider.conds, views, noise, crop)


def estimate_view_memory(executor, model: ModelPatcher, noise_shape, conds, *args, **kwargs) -> Any:
    """PREPARE_SAMPLING wrapper: refuses what views cannot do, and asks memory for views only."""
    plan: ViewPlan = kwargs["model_options"][KEY]
    if len(noise_shape) < 4:
        raise ValueError(
            "HiRes Fusion views need latents with height and width; packed latents of several "
            "parts (audio with video) have none: use the model without the view nodes."
        )
    canvas = tuple(noise_shape[-2:])
    check_shape(model.model, noise_shape, "latent_image")
    found = check_views(plan, canvas, model.model)
    sets = [views for views in found if views]
    if not sets:
        return executor(model, noise_shape, conds, *args, **kwargs)
    conditioning.check(conds, kwargs["model_options"], model)
    for views in sets:
        conditioning.check_sizes(model.model, conds, views, noise_shape[0])
    if found[2]:
        upsample.check(conds)
    sizes = [views.size for views in sets] + ([] if found[0] else [canvas])
    height, width = max(sizes, key=math.prod)
    batch = min(plan.view_batch_size or 1, max(len(views.origins) for views in sets))
    shape = [noise_shape[0] * batch, *noise_shape[1:-2], height, width]
    return executor(model, shape, conds, *args, **kwargs)


WRAPPERS = {
    WrappersMP.CALC_COND_BATCH: denoise_views,
    WrappersMP.SAMPLER_SAMPLE: start_run,
    WrappersMP.PREPARE_SAMPLING: estimate_view_memory,
}
