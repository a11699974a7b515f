"""What a model's latents mean: cells, patches, native size, diffusion time; LATENT dictionaries."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.supported_models
import torch
from torch import Tensor

from ..fusion_ops.windows import aligned

# Longer side of the training pictures in pixels, for video that of the host's own nodes.
# Subclasses before their bases. Families that are not listed were trained at 1024.
NATIVE_PIXELS = (
    (comfy.supported_models.SD15, 512),
    (comfy.supported_models.QwenImage, 1328),
    (comfy.supported_models.HunyuanImage21, 2048),
    (comfy.supported_models.HunyuanImage21Refiner, 2048),
    (comfy.supported_models.HunyuanVideo, 848),
    (comfy.supported_models.GenmoMochi, 848),
    (comfy.supported_models.WAN22_T2V, 1280),
    (comfy.supported_models.WAN21_T2V, 832),
    (comfy.supported_models.LTXV, 768),
    (comfy.supported_models.CosmosT2V, 1280),
)

# Pixels per cell where hosts that do not know `spacial_downscale_ratio` would be wrong with 8.
CELL_PIXELS = (
    (comfy.latent_formats.SC_Prior, 42),
    (comfy.latent_formats.SC_B, 4),
    (comfy.latent_formats.Flux2, 16),
    (comfy.latent_formats.LTXV, 32),
    (comfy.latent_formats.Wan22, 16),
    (comfy.latent_formats.HunyuanImage21, 32),
    (comfy.latent_formats.HunyuanVideo15, 16),
    (comfy.latent_formats.ChromaRadiance, 1),
)

# Their `timestep` is t/T itself.
UNIT_SAMPLINGS = (
    comfy.model_sampling.StableCascadeSampling,
    comfy.model_sampling.ModelSamplingContinuousV,
    comfy.model_sampling.ModelSamplingCosmosRFlow,
)

# Their `timestep` is a logarithm of sigma, not a place on a schedule.
EDM_SAMPLINGS = (
    comfy.model_sampling.ModelSamplingContinuousEDM,
    comfy.model_sampling.ModelSamplingDiscreteEDM,
)


def cell_pixels(model: Any) -> int:
    """Pixels per latent cell of a BaseModel: 8 for most, more for some newer latents."""
    latent_format = model.latent_format
    known = getattr(latent_format, "spacial_downscale_ratio", None)
    return known or _of_class(latent_format, CELL_PIXELS, 8)


def patch_cells(model: Any) -> int:
    """Side in cells of a BaseModel's patches: what its views must be multiples of. 1 for UNets."""
    network = getattr(model, "diffusion_model", None)
    patch = getattr(network, "patch_size", None) or getattr(network, "patch_spatial", 1)
    return patch[-1] if isinstance(patch, (tuple, list)) else patch


def native_cells(model: Any, pixels: int = 0) -> int:
    """Side in cells of what a BaseModel was trained on.

    Args:
        pixels: that side in pixels; 0 for what the model names as `native_size` of its
            `model_config`, or else its family's.
    """
    pixels = pixels or getattr(model.model_config, "native_size", None) or _family_pixels(model)
    return max(pixels // cell_pixels(model), 1)


def _family_pixels(model: Any) -> int:
    if isinstance(model.model_config, comfy.supported_models.SD20):
        # Only the checkpoints that went on to 768 predict v; "base" and inpainting are 512 ones.
        return 768 if model.model_type == comfy.model_base.ModelType.V_PREDICTION else 512
    return _of_class(model.model_config, NATIVE_PIXELS, 1024)


def _of_class(thing: Any, table: tuple[tuple[type, int], ...], default: int) -> int:
    return next((value for kind, value in table if isinstance(thing, kind)), default)


def diffusion_time(model_sampling: Any, sigma: Tensor) -> float:
    """t/T of a noise level: 1 at pure noise, 0 at none, for discrete, flow and EDM models."""
    sigma = sigma.flatten()[0]
    if isinstance(model_sampling, comfy.model_sampling.CONST):
        time = float(sigma)
    elif isinstance(model_sampling, UNIT_SAMPLINGS):
        time = float(model_sampling.timestep(sigma))
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


def native_latent(model: Any, size: tuple[int, int], batch_size: int) -> tuple[Tensor, float]:
    """The empty latent of a BaseModel's native area in the shape of a larger picture.

    Sides are native * sqrt(H / W) and native / sqrt(H / W), rounded down to cells (AP-LDM's code).

    Args:
        size: (height, width) of the final picture in pixels.

    Returns:
        (B, C, h, w) zeros, with a time axis of 1 where the model's latents have one, and how many
        times larger the final picture is.

    Raises:
        ValueError: the final picture is not larger.
    """
    cell, patch, native = cell_pixels(model), patch_cells(model), native_cells(model)
    ratio = (size[0] / size[1]) ** 0.5
    height, width = (aligned(int(native * side + 1e-6), patch) for side in (ratio, 1 / ratio))
    scale = max(size) / (max(height, width) * cell)
    if scale <= 1:
        raise ValueError(
            f"{size[1]} x {size[0]} is not larger than the model's native {width * cell} x "
            f"{height * cell}: ask for a larger picture, or use an empty latent"
        )
    frames = (1,) if getattr(model.latent_format, "latent_dimensions", 2) == 3 else ()
    shape = (batch_size, model.latent_format.latent_channels, *frames, height, width)
    return torch.zeros(shape, device=comfy.model_management.intermediate_device()), scale
