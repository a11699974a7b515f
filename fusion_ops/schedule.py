"""Weights that follow the diffusion time: DemoFusion's three cosine schedules.

`time` is t/T throughout: 1 at pure noise, 0 at the finished picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

ANCHORS = ("scalediff", "constant", "linear")


def cosine_factor(time: float, scale: float) -> float:
    """C(t)^scale with C = (1 + cos(pi (T - t)/T)) / 2: 1 at pure noise, 0 at the end.

    DemoFusion, arXiv 2311.16973, eq. 4, with the authors' correction of its misprint. It depends
    on the diffusion time and not on the number of the step, so it holds for any schedule.

    Args:
        time: t/T in 0..1.
        scale: exponent, >= 0; the papers' `cosine_scale_1`, `_2` or `_3`. 0 keeps the factor at 1.
    """
    return (0.5 * (1.0 + math.cos(math.pi * (1.0 - time)))) ** scale


def blur_sigma(time: float, sigma: float, cosine_scale_3: float) -> float:
    """Standard deviation in latent cells of the blur before dilated sampling (DemoFusion 3.4).

    Falls from `sigma` to a hundredth of it, so it is never exactly zero.
    """
    return sigma * (0.99 * cosine_factor(time, cosine_scale_3) + 0.01)


def anchor_weight(kind: str, noise: float, first_noise: float, done: float) -> float:
    """How strongly a step is drawn to a reference, 1 at a run's start.

    Args:
        kind: "scalediff": the noise's share against that of the run's start (ScaleDiff, arXiv
            2510.25818, (1 - alpha-bar_t) / (1 - alpha-bar_start)). "constant": always 1
            (DiffuseHigh, within its first steps). "linear": the share of the run's steps that are
            left (HiFlow, arXiv 2504.06232).
        noise, first_noise: the noise's share now and at the start of the run, > 0.
        done: share of the run's steps that are done, 0..1.
    """
    if kind == "scalediff":
        return noise / first_noise
    if kind == "linear":
        return 1 - done
    if kind == "constant":
        return 1.0
    raise ValueError(f"unknown weight schedule '{kind}': choose one of {', '.join(ANCHORS)}")


def steps_done(sigmas: list[float], sigma: float) -> float:
    """Share of a run's steps that are done at a noise level, 0..1, also of levels between steps.

    Args:
        sigmas: of the run, falling, two or more.
    """
    last = len(sigmas) - 1
    for step, (high, low) in enumerate(itertools.pairwise(sigmas)):
        if sigma > low:
            return (step + max(high - sigma, 0.0) / max(high - low, 1e-12)) / last
    return 1.0


def skipped_steps(steps: int, init_rate: float) -> int:
    """Steps of a schedule that a stage leaves out at its start, at most all but one.

    Args:
        steps: of the whole schedule, >= 1 (AP-LDM's `num_resample_timesteps`).
        init_rate: share of them, 0..1, rounded down as in the published code.
    """
    # Half a millionth of a step is what a share like 0.58 may fall short of its decimal.
    return min(int(steps * init_rate + 1e-6), steps - 1)


def end_of_schedule(sigmas: Tensor, steps: int, init_rate: float, end_rate: float = 1.0) -> Tensor:
    """What is left of a schedule after the share of its steps that a stage skips.

    Counted from the end, as published: ComfyUI's ddim_uniform has a step more than asked where
    `steps` does not divide the 1000 of training, and that one is no part of the papers' schedule.

    Args:
        sigmas: (n + 1,) of about `steps` steps, the last one the end of the run.
        steps, init_rate: see `skipped_steps`.
        end_rate: share of the steps after which it ends, in one step to the last sigma; at least
            one step is left. RectifiedHR (arXiv 2503.02537) takes the prediction there.

    Returns:
        (steps run + 1,), fewer where the schedule has fewer.
    """
    skipped = skipped_steps(steps, init_rate)
    left = sigmas[-(steps - skipped + 1) :]
    if end_rate >= 1:
        return left
    run = max(int(steps * end_rate + 1e-6) - skipped, 1)
    return torch.cat([left[:-1][:run], left[-1:]])


def flow_time(sigma: float) -> float:
    """The time of a rectified flow with the noise of a `sigma` of eps and v models: s / (1 + s)."""
    return sigma / (1 + sigma)


def lifted_sigma(sigma: float, scale: float, gamma: float, flow: bool = False) -> float:
    """Noise level at which a picture is taken up again that was at `sigma` before it was enlarged.

    sigma' = sigma m^(gamma / 2) (FreCaS, arXiv 2410.18410). With gamma = 2 each frequency of the
    picture keeps its ratio of signal to noise, because new noise is white at the new size. A flow
    with t / (1 - t) for sigma obeys the same law: t' = q t / (1 + (q - 1) t), q = m^(gamma / 2).

    Args:
        sigma: > 0; of a flow its time, 0 < t < 1.
        scale: m, by how much the longer side grows, > 0.
        gamma: 0 leaves sigma as it is. Published: 1.5 and 2 for SDXL, 3 for SD 2.1, 1 for SD 3.
        flow: sigma is the time of a rectified flow.
    """
    grown = scale ** (gamma / 2)
    if flow:
        return grown * sigma / (1 + (grown - 1) * sigma)
    return grown * sigma


MOST_STEPS = 8192  # of a whole schedule whose end is looked for


def tail(schedule: Callable[[int], list[float]], sigma: float, steps: int) -> list[float]:
    """The end of a schedule, starting at `sigma` and going to its last value in `steps` steps.

    Taken from the schedule whose number of steps puts one of its levels nearest to `sigma`, so
    that the steps keep the schedule's own spacing; that level then becomes `sigma` itself.

    Args:
        schedule: steps of the whole -> its levels, falling, the last one usually 0.
        sigma: > 0.
        steps: >= 1.

    Raises:
        ValueError: the schedule has fewer levels below `sigma` than there are steps.
    """
    ends: dict[int, list[float]] = {}

    def end(whole: int) -> list[float]:
        if whole not in ends:
            ends[whole] = schedule(whole)[-steps - 1 :]
        return ends[whole]

    low, high = steps, steps
    while end(high)[0] > sigma and high < MOST_STEPS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if end(middle)[0] > sigma else (low, middle)
    best = min((low, high), key=lambda whole: abs(math.log(end(whole)[0] / sigma)))
    levels = [sigma, *end(best)[1:]]
    if len(levels) <= steps or any(a <= b for a, b in itertools.pairwise(levels)):
        fewer = f"choose fewer than {steps} steps" if steps > 1 else "choose another scheduler"
        raise ValueError(f"the schedule has too few levels below sigma {sigma:g}: {fewer}")
    return levels


FINE = 1000  # steps of a schedule that stands for its curve


def stretch(
    schedule: Callable[[int], list[float]], sigma: float, end: float, steps: int
) -> list[float]:
    """A part of a schedule in `steps` steps, the first at `sigma`, the last at `end` and straight
    to 0 from there (FreCaS's stages, both of whose ends are steps).

    Args:
        schedule: steps of the whole -> its levels, falling, the last one usually 0.
        sigma, end: levels, sigma > end > 0.
        steps: >= 1; a single one is at `sigma`.
    """
    curve = np.log([level for level in schedule(FINE) if level > 0])
    places = np.arange(len(curve))
    first, last = (np.interp(-math.log(level), -curve, places) for level in (sigma, end))
    between = np.interp(np.linspace(first, last, steps), places, curve)
    inner = np.exp(between[1:-1]).tolist() if steps > 1 else []
    return [sigma, *inner, *([end] if steps > 1 else []), 0.0]
