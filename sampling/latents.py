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
from .masks import kept, mask_of

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

    Raises:
        ValueError: the given side is smaller than a picture that the model can take.
    """
    cell = cell_pixels(model)
    least = smallest_view(model)
    if 0 < pixels < least * cell:
        raise ValueError(
            f"native is {pixels} pixels, and {model_name(model)} takes no pictures below "
            f"{least * cell}: give the longer side that it was trained on, or 0 for "
            f"{native_cells(model) * cell}"
        )
    pixels = pixels or getattr(model.model_config, "native_size", None) or _family_pixels(model)
    return max(pixels // cell, 1)


def model_name(model: Any) -> str:
    """What the host calls a BaseModel's family, such as SDXL."""
    return type(model.model_config).__name__


def smallest_view(model: Any) -> int:
    """Side in cells below which a BaseModel's network has nothing left at its deepest level."""
    config = getattr(model.model_config, "unet_config", None) or {}
    levels = config.get("channel_mult") or (1,)
    return max(2 ** (len(levels) - 1), patch_cells(model))


def check_side(model: Any, size: tuple[int, int], canvas: tuple[int, int], fix: str) -> None:
    """Raise ValueError for views of `size` cells that a BaseModel's network cannot take; a canvas
    that is smaller itself is the host's business."""
    least = smallest_view(model)
    if min(size) < min(least, *canvas):
        raise ValueError(
            f"views of {size[0]} x {size[1]} latent cells are too small for {model_name(model)}, "
            f"which takes {least} on a side: choose {fix}"
        )


def check_channels(model: Any, samples: Tensor, name: str) -> None:
    """Raise ValueError, with the fix, for latents that a BaseModel cannot take.

    Empty ones of any kind pass, as the host fits them to the model.

    Args:
        samples: (B, C, ..., H, W).
        name: of the input, for the message.
    """
    if samples.shape[1] != model.latent_format.latent_channels and samples.any():
        check_shape(model, samples.shape, name)


def check_shape(model: Any, shape: tuple[int, ...], name: str) -> None:
    """The same of the shape (B, C, ..., H, W) that is sampled, where nothing is fitted any more."""
    wanted = model.latent_format.latent_channels
    if len(shape) >= 4 and shape[1] != wanted:
        raise ValueError(
            f"{name} is a latent of {shape[1]} channels, {shape[-2]} x {shape[-1]} cells, and the "
            f"model ({model_name(model)}) takes {wanted}: encode the picture with this model's "
            "VAE, or connect the model that made the latent"
        )


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
    """The LATENT with other samples, but for what its noise mask keeps.

    Every other key survives, but the empty latent's marker. Samples of another size are another
    picture, of which nothing can be kept.
    """
    if samples.shape == latent["samples"].shape:
        samples = kept(latent["samples"].to(samples.device), samples, mask_of(latent))
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
