"""The published methods as data: one row for each stage after the native picture.

A new method adds a row, not code. Noise levels (`sigma`) are those of eps and v models here; for
flow models they are converted. Constants are the papers', of SDXL where they differ by model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .stage import Stage


@dataclass(frozen=True)
class Preset:
    """A method's stages after the native one.

    Attributes:
        rows: one for each stage; the last serves all further ones.
        sizes: how stages lie between the native size and the target, a key of SIZES.
        count: stages of a method that does not derive their number from the target; 0 derives it.
            Fewer stages than rows take the last ones.
        single_below: targets below this scale are reached in one stage.
        steps, cfg: its own, where the user leaves them to it. Steps that rows name are for this
            number, and grow and shrink with the user's.
        flow: fields of all rows that differ for flow models.
        flow_steps, flow_cfg: its own for them.
        distilled_steps: its own for models without cfg, that is at cfg 1.
        larger: what takes its place from a scale on.
    """

    rows: tuple[Stage, ...]
    sizes: str = "whole"
    count: int = 0
    single_below: float = 0.0
    steps: int = 50
    cfg: float = 7.5
    flow: Mapping[str, Any] = field(default_factory=dict)
    flow_steps: int = 30
    flow_cfg: float = 4.0
    distilled_steps: int = 8
    larger: Mapping[float, Preset] = field(default_factory=dict)

    def reaching(self, target: float) -> Preset:
        """The preset that serves a target size."""
        known = [scale for scale in self.larger if target >= scale]
        return self.larger[max(known)] if known else self

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
PLAIN = replace(WHOLE, match=False)


def rectified(
    stages: int, t_min: int, cfg_max: float, m_t: float = 1.0, m_cfg: float = 1.0
) -> tuple[Stage, ...]:
    """RectifiedHR's noise refresh and energy rectification as rows (arXiv 2503.02537).

    With u = i / (stages - 1): stage i begins at step (50 - t_min) u'^m_t + t_min of 50, u' being
    that of the stage before it, ends where the next one begins, and has a cfg of
    (cfg_max - 5) u^m_cfg + 5.

    Args:
        stages: with the native one, >= 2.
        t_min: step where the native one ends.
        cfg_max: of the last stage.
        m_t, m_cfg: the paper's exponents.
    """
    shares = [i / (stages - 1) for i in range(stages)]
    ends = [int((50 - t_min) * u**m_t + t_min) for u in shares]
    cfgs = [(cfg_max - 5) * u**m_cfg + 5 for u in shares]
    return tuple(
        replace(PLAIN, start=ends[i - 1] / 50, end=ends[i] / 50, cfg=cfgs[i])
        for i in range(1, stages)
    )


# FreCaS (arXiv 2410.18410) with its cfg by frequency, without reuse of attention maps.
FRECAS = replace(PLAIN, lift="pixel nearest", cfg_high=35.0)
FRECAS_FLOW = {"sigma": 0.0526, "gamma": 1.0, "end_sigma": 0.0, "steps": 8}

# What both of our own have: pixels, the end of the schedule, attention in windows.
OURS = replace(PLAIN, windowed_attention=True)

PRESETS: dict[str, Preset] = {
    # arXiv 2311.16973 with the constants of all its examples (its code defaults to a sigma of 1.0).
    "DemoFusion": Preset((Stage(),)),
    # The same from an enlarged picture instead of an enlarged latent, which is off what the model
    # knows: it is half as far again from the truth in SD 3's latents, and a seventh in SDXL's.
    "DemoFusion, pixel lift": Preset((Stage(lift="pixel bicubic"),)),
    # Without the steps that hardly change the picture, of which the skip residual leaves little but
    # the noised picture: what another seed changes is 18 dB more than what three tenths do.
    "DemoFusion lean": Preset((Stage(lift="pixel bicubic", start=0.3),)),
    # DemoFusion for few-step models (Minniti and Sabel, 2024): windows 96 of 128 cells apart, steps
    # and CFG (1 to 2.5) from the node. Their code starts at pure noise, which takes more steps than
    # there are; this skips the first .3 of the schedule, as FreeScale's code does at its restart.
    "DemoFusion-Turbo": Preset(
        (Stage(stride=0.75, start=0.3),), steps=10, cfg=1.0, distilled_steps=10
    ),
    # RepLDM (NeurIPS 2025): one stage with the last fifth of the schedule, two from 4x on.
    "RepLDM": Preset(
        (replace(WHOLE, start=0.9), replace(WHOLE, start=0.8)), "side", 2, single_below=4
    ),
    # AP-LDM, arXiv 2410.06055: areas evenly apart, and no match of statistics.
    "AP-LDM": Preset(
        (replace(PLAIN, start=0.9), replace(PLAIN, start=0.8)), "area", 2, single_below=4
    ),
    # FreeScale (ICCV 2025), its restart and skip residual without its changes to the network.
    "FreeScale-style restart": Preset(
        (replace(PLAIN, start=0.3, skip_residual=True, cosine_scale_1=2.0),), "double"
    ),
    # The steps of the paper's table; 3x with the paper's constants, 4x with the released ones.
    "RectifiedHR": Preset(
        rectified(2, 40, 30),
        *("side", 1),
        cfg=5.0,
        larger={
            2.5: Preset(rectified(3, 40, 40), "side", 2, cfg=5.0),
            3.5: Preset(rectified(3, 40, 50, m_t=0.5, m_cfg=0.5), "side", 2, cfg=5.0),
        },
    ),
    # The steps of the released configuration at 2x: a third of the noise more.
    "RectifiedHR (released)": Preset(
        rectified(2, 30, 30),
        *("side", 1),
        cfg=5.0,
        larger={2.5: Preset(rectified(3, 40, 50, m_t=0.5, m_cfg=0.5), "side", 2, cfg=5.0)},
    ),
    # Of SDXL at 2048; from there on those at 4096, whose stages hand over at t = 200.
    "FreCaS": Preset(
        (replace(FRECAS, sigma=0.572, gamma=1.5, steps=10),),
        "double",
        flow=FRECAS_FLOW,
        larger={
            2.01: Preset(
                (
                    replace(FRECAS, sigma=1.164, gamma=2.0, end_sigma=0.572, steps=5),
                    replace(FRECAS, sigma=0.572, gamma=2.0, steps=15),
                ),
                "double",
                flow=FRECAS_FLOW,
            )
        },
    ),
    # ScaleDiff, arXiv 2510.25818, with the blocks' borders moving as in its code for FLUX.
    "ScaleDiff": Preset(
        (replace(PLAIN, start=0.6, lfm=0.125, structure=1.0, windowed_attention=True),),
        "double",
        flow={"start": 0.4, "lfm": 0.25, "structure_cutoff": 0.25},
        flow_cfg=3.5,
    ),
    # DiffuseHigh, arXiv 2406.18459: the last 15 steps of 50, of which the first 5 keep a wavelet's
    # LL band; of the latent here, of decoded pixels in its code.
    "DiffuseHigh": Preset(
        (
            replace(
                replace(PLAIN, start=0.7, unsharp=1.0, structure=1.0, structure_end=0.81),
                **{"structure_schedule": "constant", "structure_low_pass": "haar"},
                structure_cutoff=0.5,
            ),
        ),
    ),
    # PixelRush, arXiv 2602.12769, for distilled models: one to four steps.
    "Rush": Preset(
        (
            replace(
                replace(PLAIN, sigma=0.693, steps=1, fresh_noise=0.0, added_noise=0.05),
                **{"tiled": True, "stride": 0.75, "jitter": False},
            ),
        ),
        "double",
        steps=1,
        cfg=1.0,
        flow_steps=1,
        flow_cfg=1.0,
        distilled_steps=1,
    ),
    # Ours: every doubling takes the last steps up again, at cfg 1, with detail from sharp edges.
    "HiRes Fusion fast": Preset((replace(OURS, start=0.82, unsharp=1.0, cfg=1.0),), "double"),
    # Ours: more steps, guided while they draw shapes, and held to the layout that is there.
    "HiRes Fusion best": Preset(
        (replace(OURS, start=0.7, unsharp=1.0, structure=0.5, cfg_end=0.85, attention_window=1.5),),
        "double",
        cfg=4.0,
    ),
    # Each stage through windows only, arXiv 2302.08113: the baseline that repeats objects.
    "MultiDiffusion": Preset((Stage(dilated=False, skip_residual=False, match=False),)),
}
