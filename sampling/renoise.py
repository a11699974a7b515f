"""How a finished picture is noised again: at which level, and with which noise."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_sampling import CONST
from torch import Tensor

from ..fusion_ops.noise import predicted_noise, slerp
from ..fusion_ops.schedule import lifted_sigma, stretch, tail
from ..fusion_ops.stages import Places
from .latents import with_samples
from .lift import check_latent


def is_flow(model: Any) -> bool:
    """Whether a MODEL's sigmas are times of a rectified flow, 0 to 1."""
    return isinstance(model.get_model_object("model_sampling"), CONST)


def renoise_sigmas(
    model: Any,
    sigma: float,
    steps: int,
    scheduler: str,
    scale: float = 1.0,
    gamma: float = 0.0,
    end_sigma: float = 0.0,
) -> Tensor:
    """The end of a model's schedule from `sigma`, or from what enlarging makes of it, to 0.

    Args:
        model: MODEL whose schedule it is.
        sigma: noise level in the model's own terms, > 0; a flow's is a time below 1.
        steps: to 0, >= 1.
        scheduler: one of the host's.
        scale, gamma: see `fusion_ops.schedule.lifted_sigma`.
        end_sigma: level of the last step, which goes straight to 0; 0 for all steps.

    Returns:
        (steps + 1,) float32, the first one exactly the level that was asked for.

    Raises:
        ValueError: the level is above the schedule, or leaves nothing of a picture; the schedule
            has too few levels below it; it ends above where it starts.
    """
    sampling = model.get_model_object("model_sampling")
    flow, largest = is_flow(model), float(sampling.sigma_max)
    start = lifted_sigma(sigma, scale, gamma, flow)
    if not 0 < sigma <= largest or start > largest * (1 + 1e-6):
        grown = "" if start == sigma else f", which the lift makes {start:g}"
        raise ValueError(
            f"a sigma of {sigma:g}{grown}: this model's go up to {largest:g}"
            + (", 1 being pure noise" if flow else "")
            + "; choose a smaller sigma or gamma"
        )

    def schedule(whole: int) -> list[float]:
        return comfy.samplers.calculate_sigmas(sampling, scheduler, whole).tolist()

    if end_sigma >= start:
        raise ValueError(
            f"end_sigma {end_sigma:g} is not below {start:g}, where the run starts: choose a "
            "smaller one, or 0 for all steps"
        )
    if end_sigma > 0:
        return torch.tensor(stretch(schedule, start, end_sigma, steps))
    return torch.tensor(tail(schedule, start, steps))


def places(model: Any) -> Places:
    """A MODEL's schedule by shares: 1 is pure noise, 0 the finished picture, as the host counts."""
    sampling = model.get_model_object("model_sampling")
    largest = float(sampling.sigma_max)

    def to_sigma(percent: float) -> float:
        return min(float(sampling.percent_to_sigma(percent)), largest)

    def share(sigma: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if to_sigma(1 - middle) < sigma else (low, middle)
        return high if sigma > 0 else 0.0

    return Places(share, lambda part: to_sigma(1 - part))


class InversionNoise:
    """NOISE that a model finds in the very picture that is to be noised: one evaluation, at the
    model's smallest noise level (PixelRush's jump from 0 to the level of the run).

    Args:
        guider: GUIDER that evaluates the model.
        noise: NOISE for the fresh share.
        share: of the fresh noise, 0..1; 1 is that noise itself, without an evaluation.
    """

    def __init__(self, guider: Any, noise: Any, share: float):
        self.guider = guider
        self.noise = noise
        self.share = share
        self.seed = noise.seed

    def generate_noise(self, latent: dict) -> Tensor:
        """Noise of the shape of a LATENT's samples, of unit deviation in model space."""
        fresh = self.noise.generate_noise(latent)
        if self.share == 1:
            return fresh
        check_latent(latent)
        model = self.guider.model_patcher
        samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        if not samples.any():
            raise ValueError(
                "an empty latent has no noise to be found: connect a finished picture, or "
                "RandomNoise to the sampler"
            )
        return slerp(self._found(model, samples).to(fresh), fresh, self.share)

    def _found(self, model: Any, samples: Tensor) -> Tensor:
        sigma = model.get_model_object("model_sampling").sigma_min.detach().cpu().float()
        seen = {}

        def keep(step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
            seen.update(x=x.float().cpu(), denoised=denoised.float().cpu())

        self.guider.sample(
            torch.zeros_like(samples),
            samples,
            comfy.samplers.sampler_object("euler"),
            torch.stack([sigma, torch.zeros_like(sigma)]),
            callback=keep,
            disable_pbar=True,
            seed=self.seed,
        )
        return predicted_noise(seen["x"], seen["denoised"], float(sigma), is_flow(model))


def added_noise(model: Any, latent: dict, noise: Any, std: float) -> dict:
    """A LATENT with noise of deviation `std` in model space on top of what it has.

    It is no part of a noise level that a sampler knows of, and so stays, or becomes detail.

    Args:
        model: MODEL whose latent format says what the model's space is.
        latent: the finished picture.
        noise: NOISE object.
        std: 0 returns the LATENT's own samples.
    """
    check_latent(latent)
    if std == 0:
        return latent
    base = model.model
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    latent = with_samples(latent, samples)
    drawn = std * noise.generate_noise(latent).to(samples.device)
    # Formats shift as well as scale; noise must only be scaled.
    drawn = base.process_latent_out(drawn) - base.process_latent_out(torch.zeros_like(drawn))
    return with_samples(latent, (samples.float() + drawn).to(samples.dtype))
