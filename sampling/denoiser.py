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
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops import filters, schedule
from ..fusion_ops.lattices import LatticeSet, dilation_factor, exchange, exchange_back
from ..fusion_ops.windows import WindowSet, windows
from . import conditioning
from .control import CanvasHints
from .latents import diffusion_time, native_cells, patch_cells
from .memory import even_batches, fitting_views, is_out_of_memory
from .plan import KEY, ViewPlan

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


class ViewRun:
    """State of one sampling run, gone when it ends."""

    def __init__(self, seed: int = 0, sigmas: Tensor | None = None):
        self.seed = seed
        # As numbers: a sampler may write into the tensor (uni_pc does).
        self.sigmas = [] if sigmas is None else sigmas[:-1].tolist()
        self.hints = CanvasHints()
        self.most_views: int | None = None  # set when the device ran out of memory
        self._bar: comfy.utils.ProgressBar | None = None
        self._views = 0
        self._step = 0
        self._done = 0

    def _nearest(self, sigma: float) -> int:
        """The step whose start is nearest to a noise level."""
        return min(range(len(self.sigmas)), key=lambda i: abs(self.sigmas[i] - sigma))

    def rng(self, sigma: float) -> random.Random:
        """Random numbers of one noise level: they depend on nothing but it and the seed.

        Levels within a step take those of the step's nearer end, or else a sampler that chooses
        its levels (dpm_adaptive) would get others after the smallest rounding.
        """
        if self.sigmas:
            sigma = self.sigmas[self._nearest(sigma)]
        return random.Random(f"{self.seed}/{sigma:.6e}")

    def start_call(self, sigma: float, views: int) -> None:
        """A denoiser call of so many views begins."""
        if not self.sigmas:
            return
        if self._bar is None:
            self._views = views
            self._bar = comfy.utils.ProgressBar(len(self.sigmas) * views)
        step = self._nearest(sigma)
        if step > self._step:
            self._step, self._done = step, 0

    def advance(self, views: int) -> None:
        """Views are done: the host's progress bar counts them instead of steps."""
        if self._bar is None:
            return
        self._done = min(self._done + views, self._views)  # second-order samplers call twice
        self._bar.update_absolute(self._step * self._views + self._done)


def denoise_views(executor, model, conds, x: Tensor, timestep: Tensor, model_options: dict) -> list:
    """CALC_COND_BATCH wrapper: x0 of every cond list, fused from the plan's views.

    local = mean over windows of D(window); global = D(lattices of blur(x)) + (x - blur(x));
    x0 = (1 - c2) local + c2 global (DemoFusion, arXiv 2311.16973, in x0 space).
    """
    plan: ViewPlan = model_options[KEY]
    run: ViewRun = model_options.get(RUN) or ViewRun()
    sigma = float(timestep.flatten()[0])
    time = diffusion_time(model.model_sampling, timestep)
    local, dilated = _view_sets(plan, tuple(x.shape[-2:]), model, run.rng(sigma))
    share = schedule.cosine_factor(time, plan.dilated.cosine_scale_2) if dilated else 0.0
    run.start_call(sigma, sum(len(views.origins) for views in (local, dilated) if views) or 1)

    call = _ViewCall(executor, model, conds, timestep, model_options, plan, run)
    near = None
    if share < 1:
        near = call.views(x, local) if local else call.canvas(x)
    if share == 0:
        return near
    width = schedule.blur_sigma(time, plan.dilated.sigma, plan.dilated.cosine_scale_3)
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
        window, stride = plan.local.sizes(native_cells(model), align)
        jitter = rng if plan.local.jitter else None
        places = windows(canvas, window, stride, jitter, plan.local.border, align)
        local = WindowSet(places, canvas, plan.local.weights) if len(places) > 1 else None
    if plan.dilated:
        native = native_cells(model, plan.dilated.native)
        factor = plan.dilated.factor or dilation_factor(canvas, native)
        dilated = LatticeSet(factor, canvas, align) if factor > 1 or local else None
    return local, dilated


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
        timestep = self.timestep.repeat(chosen.stop - chosen.start)
        try:
            with self.run.hints.shown(conds, views, len(x), chosen):
                stacked = views.stack(x, chosen)
                return self.executor(self.model, conds, stacked, timestep, self.model_options)
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
    """SAMPLER_SAMPLE wrapper: gives the views a fresh state with the run's seed."""
    run = ViewRun(extra_args.get("seed") or 0, sigmas)
    options = extra_args["model_options"]  # CFG++ samplers put another one in its place
    options[RUN] = run
    try:
        return executor(guider, sigmas, extra_args, *args, **kwargs)
    finally:
        options.pop(RUN, None)


def estimate_view_memory(executor, model: ModelPatcher, noise_shape, conds, *args, **kwargs) -> Any:
    """PREPARE_SAMPLING wrapper: refuses what views cannot do, and asks memory for views only."""
    plan: ViewPlan = kwargs["model_options"][KEY]
    if len(noise_shape) < 4:
        raise ValueError(
            "HiRes Fusion views need latents with height and width; packed latents of several "
            "parts (audio with video) have none: use the model without the view nodes."
        )
    canvas = tuple(noise_shape[-2:])
    sets = [views for views in _view_sets(plan, canvas, model.model, random.Random(0)) if views]
    if not sets:
        return executor(model, noise_shape, conds, *args, **kwargs)
    conditioning.check(conds, kwargs["model_options"])
    sizes = [views.size for views in sets] + ([] if plan.local else [canvas])
    height, width = max(sizes, key=math.prod)
    batch = min(plan.view_batch_size or 1, max(len(views.origins) for views in sets))
    shape = [noise_shape[0] * batch, *noise_shape[1:-2], height, width]
    return executor(model, shape, conds, *args, **kwargs)


WRAPPERS = {
    WrappersMP.CALC_COND_BATCH: denoise_views,
    WrappersMP.SAMPLER_SAMPLE: start_run,
    WrappersMP.PREPARE_SAMPLING: estimate_view_memory,
}
