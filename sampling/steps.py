"""A SAMPLER around a SAMPLER: transforms of x between its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from comfy.samplers import KSAMPLER
from torch import Tensor

from ..fusion_ops.schedule import cosine_factor
from .latents import diffusion_time, noised

# Samplers whose first model call of each step gets the sampler's own x at sigmas[i], and which
# never call the model at sigmas[i + 1] within step i: there x may be changed in place. (The
# midpoint of dpm_2_ancestral and dpmpp_2s_ancestral is sigmas[i + 1].)
STEPWISE = {
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "dpm_2",
    "lms",
    "dpmpp_sde",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun",
    "dpmpp_3m_sde",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_ancestral",
    "er_sde",
    "gradient_estimation",
}


class Steps:
    """What a transform may know of the run it is in.

    Attributes:
        model_sampling: the model's noise schedule.
        sigmas: (N + 1,) of the run.
        noise: the run's noise, (B, C, H, W).
        latent: what is sampled from, in model space, (B, C, H, W).
    """

    def __init__(self, model_sampling: Any, sigmas: Tensor, noise: Tensor, latent: Tensor):
        self.model_sampling = model_sampling
        self.sigmas = sigmas
        self.noise = noise
        self.latent = latent

    def time(self, step: int) -> float:
        """t/T at the start of a step."""
        return diffusion_time(self.model_sampling, self.sigmas[step])

    def reference(self, step: int) -> Tensor:
        """The latent noised to the start of a step: always with the same noise."""
        return noised(self.model_sampling, self.sigmas[step], self.noise, self.latent)


# (x at the start of a step, step, the run) -> x
Transform = Callable[[Tensor, int, Steps], Tensor]


def between_steps(sampler: KSAMPLER, transform: Transform) -> StepSampler:
    """The SAMPLER with one more transform, run after those that it already has.

    Raises:
        ValueError: the sampler keeps no x of its own at the start of each step.
    """
    check_stepwise(sampler)
    transforms = getattr(sampler, "transforms", ())
    return StepSampler(sampler, (*transforms, transform))


def check_stepwise(sampler: Any) -> None:
    """Raise ValueError, with the fix, for a sampler that keeps no x between its steps."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__)
    name = name.removeprefix("sample_").removesuffix("_gpu")
    if name not in STEPWISE:
        raise ValueError(
            f"the sampler '{name}' gives no access to its picture between steps: "
            "choose euler, ddim, dpmpp_2m or another one-call sampler"
        )


class StepSampler(KSAMPLER):
    """A host sampler with transforms of x at the start of its steps."""

    def __init__(self, inner: KSAMPLER, transforms: tuple[Transform, ...]):
        super().__init__(inner.sampler_function, inner.extra_options, inner.inpaint_options)
        self.transforms = transforms

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs
    ) -> Tensor:
        steps = Steps(model_wrap.inner_model.model_sampling, sigmas, noise, latent_image)
        function = self.sampler_function

        def stepped(model, x, sigmas, **options):
            return function(_SteppedModel(model, steps, self.transforms), x, sigmas, **options)

        inner = KSAMPLER(stepped, self.extra_options, self.inpaint_options)
        return inner.sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs
        )


class _SteppedModel:
    """The denoiser that a sampler function calls; edits its x at the start of each step."""

    def __init__(self, model: Any, steps: Steps, transforms: tuple[Transform, ...]):
        self._model = model
        self._steps = steps
        self._transforms = transforms
        self._next = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        if self._starts_step(float(sigma.flatten()[0])):
            new = x
            for transform in self._transforms:
                new = transform(new, self._next, self._steps)
            # In place: the sampler goes on from its own x, not from what the model was given.
            x.copy_(new)
            self._next += 1
        elif self._next == 0:
            raise ValueError(
                "the sampler does not start its steps at the given sigmas: set s_churn to 0"
            )
        return self._model(x, sigma, **kwargs)

    def _starts_step(self, sigma: float) -> bool:
        """Is this call the next step's first? Half precision rounds sigmas a little, and SDE
        samplers of flow models begin just below the first one."""
        sigmas = self._steps.sigmas
        if self._next >= len(sigmas) - 1:
            return False
        tolerance = 2e-3 if self._next == 0 else 1e-3
        return math.isclose(sigma, float(sigmas[self._next]), rel_tol=tolerance)


def skip_residual(cosine_scale_1: float) -> Transform:
    """x <- (1 - c1) x + c1 * reference, c1 = C(t)^cosine_scale_1 (DemoFusion 3.3, eq. 4 and 5).

    The reference is the upsampled latent noised to the step's sigma; it is made from the run's
    own noise and latent when it is needed, so nothing is kept but those two.
    """

    def mix(x: Tensor, step: int, steps: Steps) -> Tensor:
        if step == 0:
            _check_reference(steps)
        share = cosine_factor(steps.time(step), cosine_scale_1)
        return (1 - share) * x + share * steps.reference(step)

    return mix


def _check_reference(steps: Steps) -> None:
    if steps.latent is None or not steps.latent.any():
        raise ValueError(
            "the skip residual needs the upsampled picture as latent_image of the sampler; "
            "an empty latent has nothing to follow"
        )
    if not steps.noise.any():
        raise ValueError(
            "the skip residual needs the sampler's own noise: connect RandomNoise "
            "instead of DisableNoise"
        )
