"""One stage of a progressive run: a row of numbers and switches, and what each of them may be."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .bands import LOW_PASSES
from .rows import short
from .schedule import ANCHORS
from .shifted import GRIDS
from .upsample import LIFTS
from .windows import BORDERS, CROPS, WINDOW_WEIGHTS


@dataclass(frozen=True)
class Stage:
    """One resolution of a progressive run, and how the picture before it is lifted to it.

    Where the run starts is said in one of two ways: `start`, a share of the schedule's steps, or
    `sigma`, a noise level. Places (`*_start`, `*_end`) are shares of the schedule as the host
    counts them, 0 at pure noise and 1 at the finished picture.

    Attributes:
        scale: size against the native stage, >= 1; None lets the preset's plan choose it.
        lift: upsampler, one of `fusion_ops.upsample.LIFTS`. "none" where the size stays.
        unsharp, unsharp_sigma, lfm: of the lift's pixels, see `fusion_ops.upsample.Lift`.
        start: share of the schedule that is skipped, 0 (from pure noise) .. < 1; the papers'
            `init_rate`.
        end: share of the schedule where it ends; its last step then goes straight to the finished
            picture. 1 for the whole.
        sigma: noise level to start from instead, in the model's own terms; None for `start`.
        gamma: raises `sigma` by how much the picture grows, see `schedule.lifted_sigma`.
        end_sigma: noise level of the last step, which goes straight to the finished picture; 0 for
            all steps. Of a run that starts at a `sigma`.
        steps: with `start` those of the whole schedule, with `sigma` those that are run. None for
            the node's, of which a run from a `sigma` has its share.
        cfg: guidance scale, None for the node's.
        cfg_start, cfg_end: places between which cfg acts; it is 1 elsewhere, at half the cost.
        cfg_low, cfg_high: cfg of low and of high frequencies, None for the stage's own.
        cfg_low_pass: what tells them apart, one of `bands.LOW_PASSES`.
        cfg_cutoff: where low ends, see `bands.LowPass`; 0 for the side before against this one's.
        fresh_noise: share of noise that is drawn; the model finds the rest in the picture.
        added_noise: deviation of noise on the finished picture, in the model's space.
        tiled: sample through windows (MultiDiffusion).
        grid: windows that overlap, or others that shift, one of `fusion_ops.shifted.GRIDS`.
        jitter: move windows and blocks of windowed attention at random in every step.
        weights: how windows count where they overlap, see `fusion_ops.windows.window_weight`.
        border: where windows move to, see `fusion_ops.windows.windows`.
        crop: SDXL's crop coordinates of a window, see `sampling.plan.LocalViews`.
        stride: distance of windows as share of a window, so that a row fits any native size.
        dilated: add dilated global views.
        cosine_scale_2: decay of the dilated views' share.
        cosine_scale_3: decay of the blur.
        blur_sigma: largest blur in cells.
        interaction: dilated views exchange cells, as in AccDiffusion.
        windowed_attention: self-attention in windows of native size (ScaleDiff).
        attention_window: side of these windows, in native sides.
        query_block: side of the blocks that share one, as a share of it.
        structure: how much of the low frequencies is drawn to those of the lifted picture, 0..1.
        structure_schedule, structure_low_pass, structure_cutoff, structure_end: see
            `sampling.prediction.structure_guidance`.
        upsample: weight of Upsample Guidance, 0 for none.
        upsample_end: where it ends.
        skip_residual: follow the upsampled picture (needs steps, so a start below 1).
        cosine_scale_1: decay of the skip residual.
        match: give the result the mean and deviation of the native latent.
    """

    scale: float | None = None
    lift: str = "latent bicubic"
    unsharp: float = 0.0
    unsharp_sigma: float = 1.0
    lfm: float = 0.0
    start: float = 0.0
    end: float = 1.0
    sigma: float | None = None
    gamma: float = 0.0
    end_sigma: float = 0.0
    steps: int | None = None
    cfg: float | None = None
    cfg_start: float = 0.0
    cfg_end: float = 1.0
    cfg_low: float | None = None
    cfg_high: float | None = None
    cfg_low_pass: str = "resize_aliased"
    cfg_cutoff: float = 0.0
    fresh_noise: float = 1.0
    added_noise: float = 0.0
    tiled: bool = True
    grid: str = "overlapped"
    jitter: bool = True
    weights: str = "cosine"
    border: str = "clamp"
    crop: str = "position"
    stride: float = 0.5
    dilated: bool = True
    cosine_scale_2: float = 1.0
    cosine_scale_3: float = 1.0
    blur_sigma: float = 0.8
    interaction: bool = False
    windowed_attention: bool = False
    attention_window: float = 1.0
    query_block: float = 0.5
    structure: float = 0.0
    structure_schedule: str = "scalediff"
    structure_low_pass: str = "resize"
    structure_cutoff: float = 0.125
    structure_end: float = 1.0
    upsample: float = 0.0
    upsample_end: float = 0.6
    skip_residual: bool = True
    cosine_scale_1: float = 3.0
    match: bool = True

    def stride_cells(self, window: int) -> int:
        """Distance of windows of so many cells."""
        # A share like 0.29 may fall short of its decimal.
        return max(1, int(self.stride * window + 1e-6))

    @property
    def needs_vae(self) -> bool:
        """Whether its lift goes through pixels."""
        return self.lift.startswith("pixel")

    @property
    def split_cfg(self) -> bool:
        """Whether low and high frequencies have a cfg of their own."""
        return self.cfg_low is not None or self.cfg_high is not None


# The smallest and largest number each field takes.
LIMITS = {
    "scale": (1, 16),
    "unsharp": (0, 4),
    "unsharp_sigma": (0.1, 10),
    "lfm": (0, 1),
    "start": (0, 0.99),
    "end": (0.01, 1),
    "sigma": (0.0001, 1000),
    "gamma": (0, 6),
    "end_sigma": (0, 1000),
    "steps": (1, 1000),
    "cfg": (0, 100),
    "cfg_start": (0, 1),
    "cfg_end": (0, 1),
    "cfg_low": (0, 100),
    "cfg_high": (0, 100),
    "cfg_cutoff": (0, 1),
    "fresh_noise": (0, 1),
    "added_noise": (0, 0.1),
    "stride": (0.01, 1),
    "cosine_scale_2": (0, 10),
    "cosine_scale_3": (0, 10),
    "blur_sigma": (0.01, 10),
    "attention_window": (1, 2),
    "query_block": (0.05, 1),
    "structure": (0, 1),
    "structure_cutoff": (0.01, 1),
    "structure_end": (0.001, 1),
    "upsample": (0, 2),
    "upsample_end": (0.001, 1),
    "cosine_scale_1": (0, 100),
}
INTEGERS = ("steps",)
CHOICES = {
    "lift": LIFTS,
    "grid": GRIDS,
    "weights": WINDOW_WEIGHTS,
    "border": BORDERS,
    "crop": CROPS,
    "cfg_low_pass": LOW_PASSES,
    "structure_schedule": ANCHORS,
    "structure_low_pass": LOW_PASSES,
}
NAMES = tuple(f.name for f in fields(Stage))
# What starts a run in one of the two ways, and what then has no say.
STARTS = {"start": ("sigma", "end_sigma", "gamma"), "sigma": ("start", "end")}


def checked_row(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row that a user wrote, with what it says of the start alone kept of the preset's.

    Raises:
        ValueError: fields that there are none of, values that they don't take, two starts; says
            which stage and what to write.
    """
    for name, value in row.items():
        if name not in NAMES:
            raise ValueError(f"stage {number} has no field {short(name)}: use {', '.join(NAMES)}")
        _check_value(name, value, number)
    if row.get("scale") is None:
        raise ValueError(f'stage {number} has no scale: add "scale": 2 (times the native size)')
    for name, others in STARTS.items():
        if name in row and (twice := next((o for o in others if o in row), None)):
            raise ValueError(
                f'stage {number} has both "{name}" and "{twice}": a run starts at a share of the '
                "schedule (start, end) or at a noise level (sigma, gamma, end_sigma); leave one out"
            )
    return row


def check_stage(stage: Stage, number: int) -> None:
    """Raise ValueError, with the fix, for fields that do not go together."""
    start, end = stage.cfg_start, stage.cfg_end
    if start >= end:
        raise ValueError(
            f"stage {number}: cfg_start {start:g} and cfg_end {end:g} leave nothing between them: "
            "raise cfg_end, or set the stage's cfg to 1"
        )
    if stage.sigma is None and (stage.gamma or stage.end_sigma):
        name = "gamma" if stage.gamma else "end_sigma"
        raise ValueError(
            f'stage {number} has "{name}" and no "sigma": {name} goes with a noise level to start '
            "from; add one, or leave it out"
        )
    if stage.sigma is None and stage.start >= stage.end:
        raise ValueError(
            f"stage {number}: start {stage.start:g} and end {stage.end:g} leave nothing between "
            "them: lower start, or raise end"
        )


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
