"""What can act on x between steps: the skip residual, attentive guidance."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
from comfy.model_sampling import CONST
from torch import Tensor

from ..fusion_ops import guidance
from ..fusion_ops.bands import box_low_pass
from ..fusion_ops.guidance import Guidance
from ..fusion_ops.schedule import cosine_factor
from .steps import Steps, Transform


def skip_residual(cosine_scale_1: float) -> Transform:
    """x <- (1 - c1) x + c1 * reference, c1 = C(t)^cosine_scale_1 (DemoFusion 3.3, eq. 4 and 5).

    Acts at the start of a step. The reference is the upsampled latent noised to the step's sigma;
    it is made from the run's own noise and latent when it is needed, so nothing is kept but those
    two.
    """

    def begin(run: Steps) -> Callable[[Tensor, int], Tensor]:
        _check_reference(run)

        def mix(x: Tensor, step: int) -> Tensor:
            share = cosine_factor(run.time(step), cosine_scale_1)
            return (1 - share) * x + share * run.reference(step)

        return mix

    return Transform(begin)


def _check_reference(run: Steps) -> None:
    if run.latent is None or not run.latent.any():
        raise ValueError(
            "the skip residual needs the upsampled picture as latent_image of the sampler; "
            "an empty latent has nothing to follow"
        )
    if not run.noise.any():
        raise ValueError(
            "the skip residual needs the sampler's own noise: connect RandomNoise "
            "instead of DisableNoise"
        )


def attentive_guidance(
    plan: Guidance, power_calibrate: int = 0, attn_scaling: float = 0.0
) -> Transform:
    """x <- x + gamma (PFSA(F(x)) - x), after a step (AP-LDM, arXiv 2410.06055, eq. 4 to 6).

    In the space of k-diffusion, x = z + sigma n: a softmax does not bear another scale, and the
    published gammas belong to this one. It is what samplers hold, but for flow models: theirs is
    (1 - s) times it, at s = sigma / (1 + sigma).

    Args:
        plan: which steps are guided, how strongly, behind which low-pass F.
        power_calibrate: see `fusion_ops.guidance.calibrated`.
        attn_scaling: lambda, 0 for the root of the number of channels.
    """

    def begin(run: Steps) -> Callable[[Tensor, int], Tensor]:
        steps = plan.steps(len(run.sigmas) - 1)
        flow = isinstance(run.model_sampling, CONST)

        def guide(x: Tensor, step: int) -> Tensor:
            scale, share = steps.get(step, (0.0, 1.0))
            if scale == 0:
                return x
            shrunk = 1 - float(run.sigmas[step + 1]) if flow else 1.0
            seen = box_low_pass(x / shrunk, share)
            scores = _scores(x)
            attended = guidance.self_attention(seen, attn_scaling, scores)
            if power_calibrate:
                weights = guidance.squared_weights(seen, attn_scaling, scores)
                alpha = _picture_share(run, step)
                attended = guidance.calibrated(attended, seen, weights, alpha, power_calibrate)
            return x + (scale * (shrunk * attended - x.float())).to(x.dtype)

        return guide

    return Transform(begin, after=True)


def _scores(x: Tensor) -> int:
    """Bytes that a block of attention scores may take: a fifth of what is free."""
    return max(guidance.SCORES, int(comfy.model_management.get_free_memory(x.device)) // 5)


def _picture_share(run: Steps, step: int) -> float:
    """alpha-bar at the start of a step, also of a flow model."""
    sigma = float(run.sigmas[step])
    if isinstance(run.model_sampling, CONST):
        return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    return 1 / (1 + sigma**2)
