"""Weights that follow the diffusion time: DemoFusion's three cosine schedules.

`time` is t/T throughout: 1 at pure noise, 0 at the finished picture.
"""

from __future__ import annotations

import math


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


def skipped_steps(steps: int, init_rate: float) -> int:
    """Steps of a schedule that a stage leaves out at its start, at most all but one.

    Args:
        steps: of the whole schedule, >= 1 (AP-LDM's `num_resample_timesteps`).
        init_rate: share of them, 0..1, rounded down as in the published code.
    """
    # Half a millionth of a step is what a share like 0.58 may fall short of its decimal.
    return min(int(steps * init_rate + 1e-6), steps - 1)
