"""Progressive upscaling as data: stages joined by lifts, and the presets that list them.

A preset is one row of `PRESETS`; a new published method adds a row, not code.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from .windows import BORDERS

LIFTS = ("latent bicubic", "pixel bicubic", "pixel lanczos")


@dataclass(frozen=True)
class Stage:
    """One resolution of a progressive run, and how the picture before it is lifted to it.

    Attributes:
        scale: size against the native stage, > 0; None lets the preset's plan choose it.
        lift: upsampler, one of LIFTS.
        start: share of the schedule that is skipped, 0 (from pure noise) .. < 1; the papers'
            `init_rate`.
        steps: sampling steps of the whole schedule, None for the node's.
        cfg: guidance scale, None for the node's.
        tiled: sample through windows (MultiDiffusion).
        jitter: shift the windows at random.
        border: jittered windows at the edge, see `fusion_ops.windows.windows`.
        dilated: add dilated global views.
        skip_residual: follow the upsampled picture (needs steps, so a start below 1).
        match: give the result the mean and deviation of the native latent.
        stride: distance of windows as share of a window, so that a row fits any native size.
        cosine_scale_1: decay of the skip residual.
        cosine_scale_2: decay of the dilated views' share.
        cosine_scale_3: decay of the blur.
        sigma: largest blur in cells.
        interaction: dilated views exchange cells, as in AccDiffusion.
    """

    scale: float | None = None
    lift: str = "latent bicubic"
    start: float = 0.0
    steps: int | None = None
    cfg: float | None = None
    tiled: bool = True
    jitter: bool = True
    border: str = "clamp"
    dilated: bool = True
    skip_residual: bool = True
    match: bool = True
    stride: float = 0.5
    cosine_scale_1: float = 3.0
    cosine_scale_2: float = 1.0
    cosine_scale_3: float = 1.0
    sigma: float = 0.8
    interaction: bool = False

    def stride_cells(self, window: int) -> int:
        """Distance of windows of so many cells."""
        return max(1, int(self.stride * window))


@dataclass(frozen=True)
class Preset:
    """A published method's stages after the native one.

    Attributes:
        rows: one for each stage; the last serves all further ones.
        sizes: how stages lie between the native size and the target, a key of SIZES.
        count: stages of a method that does not derive their number from the target; 0 derives it.
            Fewer stages than rows take the last ones.
        single_below: targets below this scale are reached in one stage.
    """

    rows: tuple[Stage, ...]
    sizes: str = "whole"
    count: int = 0
    single_below: float = 0.0

    def scales(self, target: float, count: int = 0) -> list[float]:
        """Sizes of the stages, the target last. `count` asks for another number of them."""
        if target < self.single_below:
            count = count or 1
        spread = SIZES[self.sizes if not count or self.sizes == "area" else "side"]
        return spread(target, count or self.count)

    def row(self, index: int, count: int) -> Stage:
        """The row of stage `index` of `count`."""
        return self.rows[min(index + max(len(self.rows) - count, 0), len(self.rows) - 1)]


def _whole(target: float, count: int) -> list[float]:
    return [*map(float, range(2, math.ceil(target))), target]


def _double(target: float, count: int) -> list[float]:
    return [2.0**k for k in range(1, math.ceil(math.log2(target)))] + [target]


def _side(target: float, count: int) -> list[float]:
    return [1 + (target - 1) * k / count for k in range(1, count)] + [target]


def _area(target: float, count: int) -> list[float]:
    return [math.sqrt(1 + (target**2 - 1) * k / count) for k in range(1, count)] + [target]


# Every whole number, every power of two, or a number of stages evenly apart in side or in area.
SIZES: dict[str, Callable[[float, int], list[float]]] = {
    "whole": _whole,
    "double": _double,
    "side": _side,
    "area": _area,
}

# A whole picture at once, lifted as pixels.
WHOLE = Stage(lift="pixel bicubic", tiled=False, dilated=False, skip_residual=False)

PRESETS: dict[str, Preset] = {
    # arXiv 2311.16973 with the constants of all its examples (its code defaults to a sigma of 1.0).
    "DemoFusion": Preset((Stage(),)),
    # DemoFusion for few-step models (Minniti and Sabel, 2024): windows 96 of 128 cells apart, steps
    # and CFG (1 to 2.5) from the node. Their code starts at pure noise, which takes more steps than
    # there are; this skips the first .3 of the schedule, as FreeScale's code does at its restart.
    "DemoFusion-Turbo": Preset((Stage(stride=0.75, start=0.3),)),
    # RepLDM (NeurIPS 2025): one stage with the last fifth of the schedule, two from 4x on.
    "RepLDM": Preset(
        (replace(WHOLE, start=0.9), replace(WHOLE, start=0.8)), "side", 2, single_below=4
    ),
    # AP-LDM, arXiv 2410.06055: areas evenly apart, and no match of statistics.
    "AP-LDM": Preset(
        (replace(WHOLE, start=0.9, match=False), replace(WHOLE, start=0.8, match=False)),
        *("area", 2),
        single_below=4,
    ),
    # FreeScale (ICCV 2025), its restart and skip residual without its changes to the network.
    "FreeScale-style restart": Preset(
        (replace(WHOLE, start=0.3, skip_residual=True, cosine_scale_1=2.0, match=False),), "double"
    ),
    # Each stage through windows only, arXiv 2302.08113: the baseline that repeats objects.
    "MultiDiffusion": Preset(
        (Stage(jitter=False, dilated=False, skip_residual=False, match=False),)
    ),
}


def plan_stages(preset: str, scale: float, rows: str = "", init_rates: str = "") -> list[Stage]:
    """The stages after the native one, smallest first.

    Args:
        preset: a key of PRESETS.
        scale: last size against the native one, > 1.
        rows: JSON list of objects with fields of Stage, which replaces the preset's sizes:
            `[{"scale": 2}, {"scale": 3, "start": 0.3, "cfg": 4}]`. Fields that a row leaves
            out are the preset's. Empty for the preset's own plan.
        init_rates: shares of the schedule to skip, one for each stage ("0.9, 0.8"), which replace
            the preset's number of stages and their `start`. Empty for the preset's.

    Raises:
        ValueError: bad rows or rates, sizes that don't grow; the message says what to write.
    """
    chosen = PRESETS[preset]
    if rows.strip():
        if init_rates.strip():
            raise ValueError(
                'both stages and init_rates are given: write "start" into the stages, or empty one'
            )
        listed = _rows(rows)
        stages = [_stage(chosen.row(i, len(listed)), row, i + 1) for i, row in enumerate(listed)]
        _check_growth(stages)
        return stages
    if scale <= 1:
        raise ValueError(
            f"the target is {scale:g} times the native size: choose a scale or long_side "
            "that is larger than the native picture, or use that one"
        )
    starts = _init_rates(init_rates)
    scales = chosen.scales(scale, len(starts))
    stages = [replace(chosen.row(i, len(scales)), scale=s) for i, s in enumerate(scales)]
    if starts:
        stages = [replace(s, start=start) for s, start in zip(stages, starts, strict=True)]
    return stages


def _init_rates(text: str) -> list[float]:
    rates = []
    for part in text.replace("[", "").replace("]", "").split(","):
        if not part.strip():
            continue
        try:
            rate = float(part)
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= LIMITS["start"][1]:
            raise ValueError(
                f"init_rates has '{part.strip()}': write shares from 0 to 0.99, one for each "
                "stage, such as 0.9, 0.8"
            )
        rates.append(rate)
    return rates


def _check_growth(stages: list[Stage]) -> None:
    for number, (before, after) in enumerate(itertools.pairwise(stages), 2):
        if after.scale < before.scale:
            raise ValueError(
                f"stage {number} is smaller ({after.scale:g}) than the one before it "
                f"({before.scale:g}): list the stages from small to large"
            )


def _rows(text: str) -> list[dict[str, Any]]:
    example = 'write a JSON list such as [{"scale": 2}, {"scale": 3}]'
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as e:
        raise ValueError(f"stages is no JSON ({e.msg}, line {e.lineno}): {example}") from e
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise ValueError(f"stages is no list of objects: {example}")
    return rows


def _stage(base: Stage, row: dict[str, Any], number: int) -> Stage:
    known = {f.name: f for f in fields(Stage)}
    for name, value in row.items():
        if name not in known:
            raise ValueError(f"stage {number} has no field '{name}': use {', '.join(known)}")
        _check_value(name, value, number)
    if row.get("scale") is None:
        raise ValueError(f'stage {number} has no scale: add "scale": 2 (times the native size)')
    return replace(base, **row)


# The smallest and largest number each field takes.
LIMITS = {
    "scale": (0.25, 16),
    "start": (0, 0.99),
    "steps": (1, 1000),
    "cfg": (0, 100),
    "stride": (0.01, 1),
    "cosine_scale_1": (0, 100),
    "cosine_scale_2": (0, 100),
    "cosine_scale_3": (0, 100),
    "sigma": (0.01, 100),
}
INTEGERS = ("steps",)
CHOICES = {"lift": LIFTS, "border": BORDERS}


def _check_value(name: str, value: Any, number: int) -> None:
    if name in LIMITS:
        low, high = LIMITS[name]
        kinds = (int,) if name in INTEGERS else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if name in INTEGERS else "a number"
            raise ValueError(f"stage {number}: {name} must be {kind} from {low} to {high}")
    elif name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(f"stage {number}: {name} must be one of {', '.join(CHOICES[name])}")
    elif not isinstance(value, bool):
        raise ValueError(f"stage {number}: {name} must be true or false")


def stage_size(native: tuple[int, int], scale: float, align: int = 1) -> tuple[int, int]:
    """(height, width) in cells of a stage, the nearest multiples of `align` (a model's patch)."""
    height, width = (max(round(side * scale / align), 1) * align for side in native)
    return height, width
