"""What a model's latents mean: cells, native size, diffusion time; LATENT dictionaries."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import comfy.supported_models
from torch import Tensor

# Side of the training pictures in pixels. Families that are not listed were trained at 1024.
NATIVE_PIXELS = (
    (comfy.supported_models.SD20, 768),  # before SD15, its base class
    (comfy.supported_models.SD15, 512),
)


# Their `timestep` is a logarithm of sigma, not a place on a schedule.
EDM_SAMPLINGS = (
    comfy.model_sampling.ModelSamplingContinuousEDM,
    comfy.model_sampling.ModelSamplingDiscreteEDM,
)


def cell_pixels(model: Any) -> int:
    """Pixels per latent cell of a BaseModel: 8 for most, more for some newer latents."""
    return getattr(model.latent_format, "spacial_downscale_ratio", 8)


def native_cells(model: Any) -> int:
    """Side in cells of what a BaseModel was trained on.

    A model may name its own side in pixels as `native_size` of its `model_config`.
    """
    config = model.model_config
    pixels = getattr(config, "native_size", None)
    if pixels is None:
        pixels = next((side for family, side in NATIVE_PIXELS if isinstance(config, family)), 1024)
    return pixels // cell_pixels(model)


def diffusion_time(model_sampling: Any, sigma: Tensor) -> float:
    """t/T of a noise level: 1 at pure noise, 0 at none, for discrete, flow and EDM models."""
    sigma = sigma.flatten()[0]
    if isinstance(model_sampling, comfy.model_sampling.CONST):
        time = float(sigma)
    elif isinstance(model_sampling, EDM_SAMPLINGS):
        low, high = model_sampling.sigma_min.log(), model_sampling.sigma_max.log()
        time = float((sigma.clamp_min(1e-10).log().to(low) - low) / (high - low))
    else:
        time = float(model_sampling.timestep(sigma)) / model_sampling.num_timesteps
    return min(max(time, 0.0), 1.0)


def noised(model_sampling: Any, sigma: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
    """Forward diffusion of a model-space latent to `sigma`; pure noise is no special case."""
    return model_sampling.noise_scaling(sigma, noise, latent, False)


def with_samples(latent: dict, samples: Tensor) -> dict:
    """The LATENT with other samples: every other key survives, but the empty latent's marker."""
    out = {k: v for k, v in latent.items() if k != "downscale_ratio_spacial"}
    return out | {"samples": samples}
