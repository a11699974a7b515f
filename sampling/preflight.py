"""What any stage of a progressive run would refuse, said before the first of them takes a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..fusion_ops.presets import PRESETS
from ..fusion_ops.stage import Stage
from ..fusion_ops.upsample import Lift
from . import conditioning, memory, upsample
from .denoiser import check_views
from .latents import check_channels
from .lift import check_upsample
from .networks import network_of
from .plan import KEY, DilatedViews, LocalViews, UpsampleViews, ViewPlan
from .renoise import renoise_sigmas
from .samplers import access
from .span import span

FIX = "choose a smaller scale or long_side"


@dataclass(frozen=True)
class Step:
    """One stage as it will be sampled.

    Attributes:
        stage: what it does, settled.
        size: (height, width) in cells.
        before: size of the stage before it.
        views: the plan on the MODEL that it samples with.
    """

    stage: Stage
    size: tuple[int, int]
    before: tuple[int, int]
    views: ViewPlan

    @property
    def has_views(self) -> bool:
        """Does it sample anything but the whole canvas?"""
        return bool(self.views.local or self.views.dilated or self.views.upsample)

    @property
    def lift(self) -> Lift:
        """How the picture before it is enlarged."""
        stage = self.stage
        return Lift(stage.lift, stage.unsharp, stage.unsharp_sigma, stage.lfm)

    @property
    def cfg_cutoff(self) -> float:
        """Where the low frequencies of its cfg end: what the smaller picture can show."""
        return self.stage.cfg_cutoff or min(1.0, max(self.before) / max(self.size))


def known_views(model: ModelPatcher) -> ViewPlan:
    """The view plan that nodes before this one have put on a MODEL; an empty one without any."""
    return model.model_options.get(KEY, ViewPlan())


def stage_views(stage: Stage, known: ViewPlan, cells: int, native: int) -> ViewPlan:
    """The view plan that a stage's nodes make of a MODEL's.

    Args:
        known: the MODEL's; its window, its factor and its native size stay, and so does the path
            that the stage has not.
        cells: native side of the model in cells.
        native: the same in pixels where the user gives it, else 0.
    """
    local, dilated = known.local, known.dilated
    if stage.tiled:
        window = (local.window if local else 0) or (cells if native else 0)
        stride = stage.stride_cells(window or cells)
        names = ("jitter", "weights", "border", "crop", "grid")
        local = LocalViews(window, stride, **_fields(stage, *names))
    if stage.dilated:
        dilated = DilatedViews(
            factor=dilated.factor if dilated else 0,
            native=native or (dilated.native if dilated else 0),
            sigma=stage.blur_sigma,
            **_fields(stage, "cosine_scale_2", "cosine_scale_3", "interaction"),
        )
    upsample = known.upsample
    if stage.upsample:
        upsample = UpsampleViews(
            stage.upsample,
            span(0.0, stage.upsample_end),
            factor=upsample.factor if upsample else 0,
            native=native or (upsample.native if upsample else 0),
        )
    return replace(known, local=local, dilated=dilated, upsample=upsample)


def _fields(stage: Stage, *names: str) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in names}


def check_vae(preset: str, stages: list[Stage], own: bool = False) -> None:
    """Raise ValueError if a stage needs the VAE that is not there; names the preset, or the stage
    where the user has listed the stages (`own`)."""
    first = next((n for n, stage in enumerate(stages, 1) if stage.needs_vae), None)
    if first is None:
        return
    if own:
        raise ValueError(
            f"stage {first} has a pixel lift: connect a VAE, or lift it in latent space"
        )
    latent = [name for name, one in PRESETS.items() if not any(row.needs_vae for row in one.rows)]
    raise ValueError(
        f"the preset {preset} enlarges the picture as pixels: connect a VAE to the input vae, or "
        f"choose one that stays in latent space ({', '.join(latent)})"
    )


def check_steps(
    model: ModelPatcher,
    steps: list[Step],
    samples: Tensor,
    *,
    conds: dict[str, list],
    sampler_name: str,
    scheduler: str,
    vae: Any = None,
    upscale_model: Any = None,
    image: Tensor | None = None,
) -> None:
    """Raise ValueError, with the fix and the stage's number where one is to blame.

    Args:
        model: the MODEL, before any stage's views.
        steps: all stages, in order.
        samples: the native latent, (B, C, ..., H, W).
        conds: CONDITIONINGs by their names.
        sampler_name, scheduler: of all stages.
        vae: for pixel lifts.
        upscale_model: UPSCALE_MODEL, for lifts by it.
        image: what the native latent decodes to, for the first stage's lift.
    """
    check_channels(model.model, samples, "samples")
    if any(step.stage.skip_residual for step in steps):
        access(comfy.samplers.sampler_object(sampler_name))
    first = steps[0].stage
    if not (samples.any() or first.needs_vae):
        for name, needed in (
            ("the skip residual", first.skip_residual),
            ("structure guidance", first.structure),
            ("noise found by inversion", first.fresh_noise < 1),
        ):
            if needed:
                raise ValueError(
                    f"samples is an empty latent, and {name} needs a finished picture to follow: "
                    "sample it first, or encode a picture"
                )
    content = samples.new_full((), bool(samples.any()))
    listed = {name: [c[1] for c in conds[name]] for name in conds}
    for number, step in enumerate(steps, 1):
        try:
            # Of a stand-in: only its kind and its size are looked at.
            enlarged = content.expand(*samples.shape[:-2], *step.before)
            picture = image if number == 1 else None
            check_upsample(enlarged, step.size, step.lift, vae, upscale_model, picture)
            _check_room(samples, [s.size for s in steps[:number]])
            _check_guidance(model, step, scheduler)
            if step.has_views:
                for views in check_views(step.views, step.size, model.model):
                    if views:
                        conditioning.check_sizes(model.model, listed, views, len(samples))
        except ValueError as problem:
            raise ValueError(f"stage {number}: {problem}") from problem
    if any(step.has_views for step in steps):
        conditioning.check(listed, run_options(model), model)
        if any(step.views.upsample for step in steps):
            upsample.check(listed)


def _check_guidance(model: ModelPatcher, step: Step, scheduler: str) -> None:
    """What the network, the schedule and cfg must be for what a stage does."""
    stage = step.stage
    if stage.windowed_attention:
        without = [n for n, p in PRESETS.items() if not any(r.windowed_attention for r in p.rows)]
        network_of(
            model.model,
            f"choose a preset without it ({', '.join(without)}), or list stages without it",
        )
    if stage.sigma is not None:
        renoise_sigmas(model, stage.sigma, stage.steps, scheduler, end_sigma=stage.end_sigma)
    if stage.split_cfg and stage.cfg == 1:
        raise ValueError(
            "cfg_low and cfg_high split cfg, and at cfg 1 the negative prompt is not evaluated: "
            "raise cfg, or leave both out"
        )


def _check_room(samples: Tensor, sizes: list[tuple[int, int]]) -> None:
    """Latents live in float32: every stage's lifted and finished one stay in the host's cache, and
    the last one samples with noise of its own."""
    held = [memory.resized_bytes(samples.shape, size, samples.dtype) for size in sizes]
    height, width = sizes[-1]
    what = f"a picture of {height} x {width} latent cells"
    memory.refuse_beyond(2 * sum(held) + held[-1], what, FIX, samples.device)


def run_options(model: ModelPatcher) -> dict[str, Any]:
    """The model options of a MODEL as a run sees them, with the wrappers that the host keeps on
    the patcher until then."""
    options = dict(model.model_options)
    transformer = dict(options.get("transformer_options", {}))
    wrappers = {kind: dict(keyed) for kind, keyed in transformer.get("wrappers", {}).items()}
    for kind, keyed in model.wrappers.items():
        for key, listed in keyed.items():
            known = wrappers.setdefault(kind, {})
            known[key] = [*known.get(key, []), *listed]
    return options | {"transformer_options": transformer | {"wrappers": wrappers}}
