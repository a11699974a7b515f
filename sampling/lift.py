"""LATENT operations that need a model or a VAE: lift, diffuse, match statistics."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.utils
import torch
from comfy.model_sampling import CONST
from torch import Tensor

from ..fusion_ops import filters
from ..fusion_ops.upsample import resize
from .latents import noised, with_samples


def upsample(latent: dict, size: tuple[int, int], method: str, vae: Any = None) -> dict:
    """Enlarge a LATENT to `size` cells, in latent or in pixel space.

    Args:
        latent: its `samples` are (B, C, H, W) or (B, C, T, H, W).
        size: (height, width) in cells.
        method: one of `fusion_ops.stages.LIFTS`.
        vae: needed for the pixel methods.

    Raises:
        ValueError: a pixel method without a VAE.
    """
    samples = latent["samples"]
    space, mode = method.split()
    if space == "latent":
        out = resize(samples, size, mode)
    else:
        out = _through_pixels(samples, size, mode, vae)
    lifted = with_samples(latent, out)
    if "noise_mask" in latent:
        mask = latent["noise_mask"]
        mask = mask.reshape((-1, 1, *mask.shape[-2:]))
        lifted["noise_mask"] = resize(mask, size, "bilinear")
    return lifted


def _through_pixels(samples: Tensor, size: tuple[int, int], mode: str, vae: Any) -> Tensor:
    if vae is None:
        raise ValueError(f"'pixel {mode}' goes through a VAE: connect one, or use 'latent bicubic'")
    pixels = vae.decode(samples)
    frames = pixels.ndim == 5  # (B, T, H, W, C)
    if frames and pixels.shape[1] > 1:
        raise ValueError("pixel upsampling takes pictures, not video: use 'latent bicubic'")
    pixels = pixels.flatten(0, 1) if frames else pixels
    ratio = vae.spacial_compression_decode()
    height, width = (side * ratio for side in size)
    channels_first = pixels.movedim(-1, 1)
    if mode == "lanczos":
        large = comfy.utils.lanczos(channels_first, width, height)
    else:
        large = resize(channels_first, (height, width), mode)
    large = large.movedim(1, -1).clamp(0, 1)
    # A VAE of video takes a batch of pictures for the frames of one.
    return torch.cat([vae.encode(one) for one in large.split(1)]) if frames else vae.encode(large)


def diffuse(model: Any, latent: dict, noise: Any, sigma: Tensor) -> dict:
    """Forward diffusion of a LATENT to a noise level, ready for a sampler without noise.

    Args:
        model: MODEL whose noise schedule and latent format count.
        latent: the LATENT to noise.
        noise: NOISE object.
        sigma: scalar noise level, >= 0.

    Raises:
        ValueError: a flow model at its first sigma, where nothing of the latent is left.
    """
    base = model.model
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, CONST) and sigma >= 1:
        raise ValueError(
            "this model's schedule starts at pure noise, which holds nothing of the picture: "
            "lower the scheduler's denoise, or let the sampler add the noise with RandomNoise"
        )
    # As the host's samplers do: some models of pictures have latents with a time axis.
    clean = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    latent = latent | {"samples": clean}
    clean = base.process_latent_in(clean) if clean.any() else clean  # empty latents as the host
    x = noised(sampling, sigma, noise.generate_noise(latent).to(clean), clean)
    # Samplers of flow models undo this scaling when they are handed the latent without noise.
    x = sampling.inverse_noise_scaling(sigma, x)
    return with_samples(latent, base.process_latent_out(x))


def match_statistics(latent: dict, reference: dict) -> dict:
    """Give a LATENT the mean and deviation of another one (DemoFusion, end of a phase).

    Raises:
        ValueError: the two have different channels or batches that don't fit, or several parts.
    """
    check_latent(latent)
    check_latent(reference)
    x, target = latent["samples"], reference["samples"]
    if x.shape[1] != target.shape[1]:
        raise ValueError(
            f"the latents have {x.shape[1]} and {target.shape[1]} channels: "
            "both must come from the same kind of model"
        )
    if target.shape[0] not in (1, x.shape[0]):
        raise ValueError(
            f"the reference holds {target.shape[0]} latents for {x.shape[0]}: "
            "give it one, or as many as there are"
        )
    out = filters.match_statistics(x.float(), target.float().to(x.device))
    return with_samples(latent, out.to(x.dtype))


def check_latent(latent: dict) -> tuple[int, int]:
    """(height, width) in cells of a LATENT of pictures.

    Raises:
        ValueError: nested or packed latents, which have no height and width.
    """
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or not torch.is_tensor(samples) or samples.ndim < 4:
        raise ValueError(
            "this LATENT has several parts or no height and width: use one of pictures"
        )
    return tuple(samples.shape[-2:])
