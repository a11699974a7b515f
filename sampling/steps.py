"""A SAMPLER around a SAMPLER: transforms of x between its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from comfy.samplers import KSAMPLER
from torch import Tensor

from .latents import check_shape, diffusion_time, noised
from .masks import kept
from .samplers import Access, access

Change = Callable[[Tensor, int], Tensor]


class Steps:
    """What a transform may know of the run it is in.

    Attributes:
        model_sampling: the model's noise schedule.
        sigmas: (N + 1,) of the run.
        noise: the run's noise, (B, C, H, W).
        latent: what is sampled from, in model space, (B, C, H, W).
        mask: step -> where x may change in it, (B, C, H, W) in 0..1, or None for everywhere.
    """

    def __init__(
        self,
        model_sampling: Any,
        sigmas: Tensor,
        noise: Tensor,
        latent: Tensor,
        mask: Callable[[int], Tensor | None] = lambda step: None,
    ):
        self.model_sampling = model_sampling
        self.sigmas = sigmas
        self.noise = noise
        self.latent = latent
        self.mask = mask

    def time(self, step: int) -> float:
        """t/T at the start of a step."""
        return diffusion_time(self.model_sampling, self.sigmas[step])

    def reference(self, step: int) -> Tensor:
        """The latent noised to the start of a step: always with the same noise."""
        return noised(self.model_sampling, self.sigmas[step], self.noise, self.latent)


class Transform(NamedTuple):
    """Something that changes x once in every step.

    Attributes:
        begin: called when a run starts, before the model is; returns (x, step) -> x for that run.
            What it raises costs no sampling.
        after: acts on what a step has made, and not on what it starts from. Between two steps
            those of the first come before those of the second.
    """

    begin: Callable[[Steps], Change]
    after: bool = False


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
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        *args,
        **kwargs,
    ) -> Tensor:
        patches = extra_args.get("model_options", {})
        mask = _mask_of_steps(denoise_mask, patches, model_wrap, sigmas)
        check_shape(model_wrap.inner_model, noise.shape, "latent_image")
        steps = Steps(model_wrap.inner_model.model_sampling, sigmas, noise, latent_image, mask)
        function = self.inner.sampler_function

        def stepped(model, x, sigmas, callback=None, **options):
            stepped_model = _SteppedModel(model, steps, self)
            out = function(
                stepped_model, x, sigmas, callback=stepped_model.checked(callback), **options
            )
            return stepped_model.finish(out)

        inner = KSAMPLER(stepped, self.extra_options, self.inpaint_options)
        run = (model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask)
        return inner.sample(*run, *args, **kwargs)


def _mask_of_steps(
    mask: Tensor | None, model_options: dict[str, Any], model_wrap: Any, sigmas: Tensor
) -> Callable[[int], Tensor | None]:
    """The run's noise mask at each step: some models have a function of it and the noise level,
    such as Differential Diffusion's."""
    function = model_options.get("denoise_mask_function")
    if mask is None or function is None:
        return lambda step: mask
    known = {"model": model_wrap, "sigmas": sigmas}
    return lambda step: function(sigmas[step].expand(len(mask)), mask, extra_options=known)


def _only_by_sample(*args: Any, **kwargs: Any) -> Tensor:
    """In place of the inner function, which other packs' samplers would run without transforms."""
    raise ValueError(
        "a sampler with Skip Residual or Attentive Guidance can't be run inside another pack's "
        "sampler: connect it straight to the node that samples"
    )


class _SteppedModel:
    """The denoiser that a sampler function calls; changes its x once in each step."""

    def __init__(self, model: Any, steps: Steps, sampler: StepSampler):
        self._model = model
        self._steps = steps
        self._access: Access = sampler.access
        self._starts = [t.begin(steps) for t in sampler.transforms if not t.after]
        self._ends = [t.begin(steps) for t in sampler.transforms if t.after]
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
            # In place: the sampler goes on from its own x, not from what the model was given.
            x.copy_(self._start(self._end(x, self._step - 1), self._step))
        return self._model(x, sigma, **kwargs)

    def _start(self, x: Tensor, step: int) -> Tensor:
        return self._changed(x, step, self._starts)

    def _end(self, x: Tensor, step: int) -> Tensor:
        return self._changed(x, step, self._ends) if step >= 0 else x

    def _changed(self, x: Tensor, step: int, changes: list[Change]) -> Tensor:
        """x after the changes, but for what the step's noise mask keeps."""
        before = x
        for change in changes:
            x = change(x, step)
        return kept(before, x, self._steps.mask(step)) if changes else x

    def checked(self, callback: Callable[[dict], None] | None) -> Callable[[dict], None]:
        """The callback, which samplers call after the first model call of each step."""

        def check(info: dict) -> None:
            self._expect((info["i"], 1) == (self._step, self._call))
            if callback is not None:
                callback(info)

        return check

    def finish(self, x: Tensor) -> Tensor:
        """The run's result. Every step must have had its transforms."""
        self._expect(self._step == len(self._steps.sigmas) - 2 and self._call == self._calls)
        return self._end(x, self._step)

    def _expect(self, known: bool) -> None:
        if not known:
            raise ValueError(
                "the sampler's steps are not those that HiRes Fusion knows of it, so its picture "
                "can't be changed between them: leave its options at their defaults, or choose "
                "euler"
            )
