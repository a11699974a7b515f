"""A SAMPLER around a SAMPLER: transforms of x between its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from comfy.samplers import KSAMPLER
from torch import Tensor

from ..fusion_ops.schedule import cosine_factor
from .latents import diffusion_time, noised
from .samplers import Access, access


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
        ValueError: the sampler's x can't be changed between its steps.
    """
    if isinstance(sampler, StepSampler):
        return StepSampler(sampler.inner, (*sampler.transforms, transform))
    return StepSampler(sampler, (transform,))


class StepSampler(KSAMPLER):
    """A host sampler with transforms of x at the start of its steps."""

    def __init__(self, inner: KSAMPLER, transforms: tuple[Transform, ...]):
        self.access = access(inner)
        self.inner = inner
        self.transforms = transforms
        super().__init__(_only_by_sample, inner.extra_options, inner.inpaint_options)

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs
    ) -> Tensor:
        steps = Steps(model_wrap.inner_model.model_sampling, sigmas, noise, latent_image)
        function = self.inner.sampler_function

        def stepped(model, x, sigmas, callback=None, **options):
            stepped_model = _SteppedModel(model, steps, self)
            out = function(
                stepped_model, x, sigmas, callback=stepped_model.checked(callback), **options
            )
            stepped_model.check_end()
            return out

        inner = KSAMPLER(stepped, self.extra_options, self.inpaint_options)
        return inner.sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs
        )


def _only_by_sample(*args: Any, **kwargs: Any) -> Tensor:
    """In place of the inner function, which other packs' samplers would run without transforms."""
    raise ValueError(
        "a sampler with a Skip Residual can't be run inside another pack's sampler: connect "
        "Skip Residual straight to the node that samples"
    )


class _SteppedModel:
    """The denoiser that a sampler function calls; changes its x once in each step."""

    def __init__(self, model: Any, steps: Steps, sampler: StepSampler):
        self._model = model
        self._steps = steps
        self._access: Access = sampler.access
        self._transforms = sampler.transforms
        self._options = sampler.extra_options
        self._step = -1
        self._call = 0  # calls made of this step
        self._calls = 0  # calls that it has

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        sigmas = self._steps.sigmas
        if self._call == self._calls:
            self._step, self._call = self._step + 1, 0
            self._expect(self._step < len(sigmas) - 1)
            self._calls = self._access.calls(sigmas, self._step, self._options)
        self._call += 1
        if self._call == (self._calls if self._access.last else 1):
            # Half precision rounds sigmas a little, and SDE samplers of flow models begin just
            # below the first one.
            given, expected = float(sigma.flatten()[0]), float(sigmas[self._step])
            self._expect(math.isclose(given, expected, rel_tol=1e-2))
            new = x
            for transform in self._transforms:
                new = transform(new, self._step, self._steps)
            # In place: the sampler goes on from its own x, not from what the model was given.
            x.copy_(new)
        return self._model(x, sigma, **kwargs)

    def checked(self, callback: Callable[[dict], None] | None) -> Callable[[dict], None]:
        """The callback, which samplers call after the first model call of each step."""

        def check(info: dict) -> None:
            self._expect((info["i"], 1) == (self._step, self._call))
            if callback is not None:
                callback(info)

        return check

    def check_end(self) -> None:
        """Every step must have had its transform."""
        self._expect(self._step == len(self._steps.sigmas) - 2 and self._call == self._calls)

    def _expect(self, known: bool) -> None:
        if not known:
            raise ValueError(
                "the sampler's steps are not those that HiRes Fusion knows of it, so its picture "
                "can't be changed between them: leave its options at their defaults, or choose "
                "euler"
            )


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
