"""A progressive run as data: stages joined by lifts, as a preset or a user lists them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .presets import PRESETS, Preset
from .rows import MOST_ROWS, read_fields, read_rows, read_shares, short
from .schedule import flow_time, lifted_sigma
from .stage import LIMITS, STARTS, Stage, check_stage, checked_row
from .upsample import LIFTS, MODEL_LIFT

NEW = Stage()
# Fields that say nothing at cfg 1.
UNGUIDED = {n: getattr(NEW, n) for n in ("cfg", "cfg_start", "cfg_end", "cfg_low", "cfg_high")}
# Lifts that do nothing but resize.
RESIZING = tuple(name for name in LIFTS if name != MODEL_LIFT)


class Wish(NamedTuple):
    """What the user says for all stages, and what of the model a preset asks for.

    Attributes:
        steps, cfg: 0 for the preset's own.
        flow: the model is a rectified flow.
        embedded: it is told its guidance by an embedding, so that its own cfg is 1.
    """

    steps: int = 0
    cfg: float = 0.0
    flow: bool = False
    embedded: bool = False


class Plan(NamedTuple):
    """Stages after the native one, smallest first, and what counts where they say nothing."""

    stages: list[Stage]
    steps: int
    cfg: float

    def enlarged_by_model(self) -> Plan:
        """The plan with an UPSCALE_MODEL where pixels are interpolated."""
        by_model = [
            replace(stage, lift=MODEL_LIFT) if stage.needs_vae else stage for stage in self.stages
        ]
        return self._replace(stages=by_model)


class Places(NamedTuple):
    """A model's schedule: the share of it below a noise level, and the level of a share."""

    share: Callable[[float], float]
    sigma: Callable[[float], float]


def plan_run(
    preset: str,
    scale: float,
    rows: str | Sequence[Stage] = "",
    init_rates: str = "",
    wishes: Mapping[str, Any] | None = None,
    wish: Wish | None = None,
) -> Plan:
    """The stages after the native one, and the steps and the cfg of those that name none.

    Args:
        preset: a key of PRESETS.
        scale: last size against the native one, 1 (the same again) to 16.
        rows: JSON list of objects with fields of Stage, which replaces the preset's sizes:
            `[{"scale": 2}, {"scale": 3, "start": 0.3, "cfg": 4}]`. Fields that a row leaves
            out are the preset's. Empty for the preset's own plan. Or stages as of `chained`, of
            which nothing is the preset's.
        init_rates: shares of the schedule to skip, one for each stage ("0.9, 0.8"), which replace
            the preset's number of stages and their `start`. Empty for the preset's.
        wishes: fields of Stage that take the place of the preset's; what a row says goes first.
        wish: of the user and the model; None for nothing.

    Raises:
        ValueError: bad rows or rates, sizes that don't grow; the message says what to write.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset is called {short(preset)}: choose {', '.join(PRESETS)}")
    listed = _listed(rows, init_rates)
    if not listed:
        _check_scale(scale)
    wired = [row for row in listed if isinstance(row, Stage)]
    target = max((s.scale for s in wired), default=scale)
    target = max((row["scale"] for row in listed if isinstance(row, dict)), default=target)
    chosen, steps, cfg = _own(PRESETS[preset].reaching(target), wish or Wish(), wishes or {})
    sharpened = [bool(row.get("unsharp")) for row in listed if isinstance(row, dict)]
    if wired:
        stages, sharpened = wired, [bool(stage.unsharp) for stage in wired]
    elif listed:
        stages = [_stage(chosen.row(i, len(listed)), row) for i, row in enumerate(listed)]
    else:
        starts = read_shares(init_rates, "init_rates", LIMITS["start"][1])
        # The same size again is a stage of its own.
        scales = chosen.scales(scale, len(starts)) if scale > 1 else [scale] * (len(starts) or 1)
        stages = [replace(chosen.row(i, len(scales)), scale=s) for i, s in enumerate(scales)]
        if starts:
            pairs = zip(stages, starts, strict=True)
            stages = [replace(_by_share(stage), start=start, end=NEW.end) for stage, start in pairs]
        sharpened = [False] * len(stages)
    _check_growth(stages)
    for number, stage in enumerate(stages, 1):
        check_stage(stage, number)
    return Plan(_kept_sizes(stages, sharpened), steps, cfg)


def plan_stages(preset: str, scale: float, *args: Any, **options: Any) -> list[Stage]:
    """The stages alone of what `plan_run` plans."""
    return plan_run(preset, scale, *args, **options).stages


# What an input of the Stage node says where it says nothing.
UNSAID = {"steps": 0, "cfg": 0, "sigma": 0, "cfg_high": -1}


def chained(before: Sequence[Stage], said: Mapping[str, Any], more: str = "") -> tuple[Stage, ...]:
    """Stages, and one more after them.

    Args:
        before: smaller ones.
        said: fields of the new one; UNSAID are as good as left out.
        more: JSON object of further fields.

    Raises:
        ValueError: what a row of JSON would be refused for, by the stage's number.
    """
    number = len(before) + 1
    further = read_fields(more) if more.strip() else {}
    if twice := next((name for name in further if name in said), None):
        raise ValueError(f'more has "{twice}", which is an input of its own: set it there')
    row = {name: value for name, value in said.items() if value != UNSAID.get(name)}
    for name in ("start",) if "sigma" in row else ("gamma",):
        row.pop(name, None)
    stage = replace(NEW, **checked_row(row | further, number))
    check_stage(stage, number)
    stages = (*before, stage)
    _check_growth(stages)
    if len(stages) > MOST_ROWS:
        raise ValueError(f"{len(stages)} stages: chain at most {MOST_ROWS}")
    return stages


def _listed(rows: str | Sequence[Stage], init_rates: str) -> list[Any]:
    if not rows or (isinstance(rows, str) and not rows.strip()):
        return []
    if init_rates.strip():
        raise ValueError(
            'both stages and init_rates are given: write "start" into the stages, or empty one'
        )
    if not isinstance(rows, str):
        return list(rows)
    return [checked_row(row, number) for number, row in enumerate(read_rows(rows), 1)]


def _check_scale(scale: float) -> None:
    most = LIMITS["scale"][1]
    if not 1 <= scale <= most:  # NaN too
        raise ValueError(
            f"the target is {scale:g} times the native size: choose a scale or long_side "
            f"that is no smaller than the native picture, up to {most} times"
        )


def _own(preset: Preset, wish: Wish, wishes: Mapping[str, Any]) -> tuple[Preset, int, float]:
    """A preset for a kind of model, its rows following the wishes, with its steps and cfg."""
    known, cfg, rows = preset.steps, preset.cfg, preset.rows
    if wish.flow:
        known, cfg = preset.flow_steps, 1.0 if wish.embedded else preset.flow_cfg
        rows = [_as_flow(replace(row, **preset.flow)) for row in rows]
    cfg, own = wish.cfg or cfg, known
    if cfg == 1 and not wish.embedded:
        own = min(known, preset.distilled_steps)
        rows = [replace(row, **UNGUIDED) for row in rows]
    steps = wish.steps or own
    # In proportion, as the steps that a share of the schedule takes.
    rows = [replace(r, steps=r.steps and max(1, round(r.steps * steps / known))) for r in rows]
    # Of a row without windows, jitter is that of its attention.
    still = {name: value for name, value in wishes.items() if name != "jitter"}
    rows = tuple(replace(row, **(wishes if row.tiled else still)) for row in rows)
    return replace(preset, rows=rows), steps, cfg


def _as_flow(row: Stage) -> Stage:
    """A row whose noise levels are those of eps models, for a flow."""
    sigma = None if row.sigma is None else flow_time(row.sigma)
    return replace(row, sigma=sigma, end_sigma=flow_time(row.end_sigma))


def _by_share(stage: Stage) -> Stage:
    """A stage that starts at a share of the schedule, with nothing left of another start."""
    level = {name: getattr(NEW, name) for name in STARTS["start"]}
    return stage if stage.sigma is None else replace(stage, **level, steps=None)


def _stage(base: Stage, row: dict[str, Any]) -> Stage:
    """A user's row over a preset's, of whose start nothing is left where the row has its own."""
    if any(name in row for name in STARTS["sigma"]):
        base = replace(_by_share(base), end=NEW.end)
    elif "sigma" in row:
        steps = base.steps if base.sigma else None
        base = replace(base, start=NEW.start, end=NEW.end, end_sigma=NEW.end_sigma, steps=steps)
    return replace(base, **row)


def _check_growth(stages: Sequence[Stage]) -> None:
    for number, (before, after) in enumerate(itertools.pairwise(stages), 2):
        if after.scale < before.scale:
            raise ValueError(
                f"stage {number} is smaller ({after.scale:g}) than the one before it "
                f"({before.scale:g}): list the stages from small to large"
            )


def _kept_sizes(stages: Sequence[Stage], sharpened: Sequence[bool]) -> list[Stage]:
    """Stages of the size of the one before, through no VAE: nothing is enlarged there, and what
    is sharp already is sharpened only if a row says so."""
    before, found = 1.0, []
    for stage, sharp in zip(stages, sharpened, strict=True):
        if stage.scale == before and stage.lift in RESIZING and not sharp:
            stage = replace(stage, lift="none", unsharp=0.0, lfm=0.0)
        found.append(stage)
        before = stage.scale
    return found


def settle(plan: Plan, places: Places, flow: bool, strength: float = 0.0) -> list[Stage]:
    """The stages with all that was left open: steps, cfg, and where each of them starts.

    Args:
        places: of the model.
        flow: its sigmas are times of a rectified flow.
        strength: share of the schedule that the stage with the most noise runs, 0..1, and the
            others in proportion; steps follow. 0 leaves the stages as they are.
    """
    settled, before = [], 1.0
    for stage in plan.stages:
        changes: dict[str, Any] = {"cfg": plan.cfg if stage.cfg is None else stage.cfg}
        if stage.sigma is None:
            changes["steps"] = stage.steps or plan.steps
        else:
            grown = stage.scale / before
            start = lifted_sigma(stage.sigma, grown, stage.gamma, flow)
            length = places.share(start) - places.share(stage.end_sigma)
            changes |= {"sigma": start, "gamma": 0.0}
            changes["steps"] = stage.steps or max(1, round(plan.steps * length))
        settled.append(replace(stage, **changes))
        before = stage.scale
    return settled if not strength else _stronger(settled, places, strength)


def _stronger(stages: list[Stage], places: Places, strength: float) -> list[Stage]:
    most = max(_share(stage, places) for stage in stages)
    factor = strength / most
    if math.isclose(factor, 1):
        return stages

    def scaled(stage: Stage) -> Stage:
        if stage.sigma is None:
            start, end = (1 - (1 - place) * factor for place in (stage.start, stage.end))
            return replace(stage, start=max(start, 0.0), end=end)
        sigma, end = (
            places.sigma(min(places.share(level) * factor, 1.0)) if level else 0.0
            for level in (stage.sigma, stage.end_sigma)
        )
        steps = max(1, round(stage.steps * factor))
        return replace(stage, sigma=sigma, end_sigma=end, steps=steps)

    return [scaled(stage) for stage in stages]


def _share(stage: Stage, places: Places) -> float:
    """Of the schedule, where a settled stage starts."""
    return 1 - stage.start if stage.sigma is None else places.share(stage.sigma)


def stage_size(native: tuple[int, int], scale: float, align: int = 1) -> tuple[int, int]:
    """(height, width) in cells of a stage, the nearest multiples of `align` (a model's patch)."""
    height, width = (max(round(side * scale / align), 1) * align for side in native)
    return height, width
