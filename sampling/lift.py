"""LATENT operations that need a model or a VAE: lift, diffuse, match statistics."""

from __future__ import annotations

from typing import Any

import comfy.sample
import torch
from comfy.model_sampling import CONST
from torch import Tensor

from ..fusion_ops import filters
from ..fusion_ops.bands import LowPass, refine
from ..fusion_ops.upsample import MODEL_LIFT, Lift, check_lift, fit, resize, unsharp_mask
from . import masks, memory
from .latents import check_channels, noised, with_samples


def upsample(
    latent: dict,
    size: tuple[int, int],
    lift: Lift | str,
    vae: Any = None,
    upscale_model: Any = None,
    image: Tensor | None = None,
) -> dict:
    """Enlarge a LATENT to `size` cells, in latent or in pixel space.

    Args:
        latent: its `samples` are (B, C, H, W) or (B, C, T, H, W).
        size: (height, width) in cells.
        lift: how; a string is its method alone.
        vae: needed for the pixel methods.
        upscale_model: UPSCALE_MODEL, needed for the method of that name.
        image: (B, H, W, C) in 0..1, what the latent decodes to, for the pixel methods to enlarge
            in place of decoding it.

    Raises:
        ValueError: what `check_upsample` refuses.
    """
    lift = Lift(lift) if isinstance(lift, str) else lift
    check_latent(latent)
    check_upsample(latent["samples"], size, lift, vae, upscale_model, image)
    if lift.method == "none":
        out = latent["samples"]
    elif lift.through_pixels():
        out = _through_pixels(latent, size, lift, vae, upscale_model, image)
    else:
        out = resize(latent["samples"], size, lift.mode())
    lifted = with_samples(latent, out)
    if "noise_mask" in latent:
        lifted["noise_mask"] = masks.enlarged(latent["noise_mask"], size)
    return lifted


def check_upsample(
    samples: Tensor,
    size: tuple[int, int],
    lift: Lift,
    vae: Any = None,
    upscale_model: Any = None,
    image: Tensor | None = None,
) -> None:
    """Raise ValueError, with the fix, for what `upsample` cannot do, before anything is tried.

    A lift that can't be, a pixel method without a VAE or with one of other latents or on video,
    a model that is missing, an image that is not the latent's, and a result for which there is no
    memory.
    """
    check_lift(lift, tuple(samples.shape[-2:]), size)
    if lift.method == "none":
        return
    what = f"a latent of {size[0]} x {size[1]} cells"
    if lift.through_pixels():
        _check_pixels(samples, lift, vae, upscale_model)
        ratio = vae.spacial_compression_decode()
        if image is not None:
            _check_image(image, samples, ratio)
        need = memory.picture_bytes(samples.shape[0], size, ratio)
        what = f"enlarging to {size[0] * ratio} x {size[1] * ratio} pixels"
    else:
        need = memory.resized_bytes(samples.shape, size, samples.dtype)
    memory.refuse_beyond(need, what, "choose a smaller scale or size", samples.device)


def _check_pixels(samples: Tensor, lift: Lift, vae: Any, upscale_model: Any) -> None:
    if vae is None:
        raise ValueError(
            f"'{lift.method}' goes through a VAE: connect a VAE, or use 'latent bicubic'"
        )
    if lift.method == MODEL_LIFT and upscale_model is None:
        raise ValueError(
            f"'{lift.method}' needs one: connect Load Upscale Model, or use 'pixel bicubic'"
        )
    if hasattr(vae, "throw_exception_if_invalid"):
        vae.throw_exception_if_invalid()
    channels = getattr(vae, "latent_channels", samples.shape[1])
    if samples.shape[1] != channels and samples.any():
        raise ValueError(
            f"the VAE decodes latents of {channels} channels, and this one has "
            f"{samples.shape[1]}: connect the VAE of the model that made it"
        )
    if samples.ndim == 5 and samples.shape[2] > 1:
        raise ValueError("pixel upsampling takes pictures, not video: use 'latent bicubic'")


def _check_image(image: Tensor, samples: Tensor, ratio: int) -> None:
    count, height, width = image.shape[:3]
    if (count, height // ratio, width // ratio) != (len(samples), *samples.shape[-2:]):
        wanted = " x ".join(str(side * ratio) for side in samples.shape[-2:])
        raise ValueError(
            f"image must be what samples decodes to, {len(samples)} of {wanted} pixels, and it is "
            f"{count} of {height} x {width}: connect the IMAGE that samples was encoded from or "
            "decoded to, or none"
        )


def _cropped(image: Tensor, ratio: int) -> Tensor:
    """The middle of a picture (B, H, W, C) that fills whole cells, as the host's VAE encodes it."""
    for axis in (1, 2):
        rest = image.shape[axis] % ratio
        image = image.narrow(axis, rest // 2, image.shape[axis] - rest)
    return image[..., :3]


def _through_pixels(
    latent: dict,
    size: tuple[int, int],
    lift: Lift,
    vae: Any,
    upscale_model: Any,
    image: Tensor | None,
) -> Tensor:
    """The samples of a LATENT of pictures, decoded, enlarged and encoded again."""
    samples, ratio = latent["samples"], vae.spacial_compression_decode()
    if image is None:
        pixels = vae.decode(samples)
        frames = pixels.ndim == 5  # (B, T, H, W, C)
        pixels = pixels.flatten(0, 1) if frames else pixels
    else:
        pixels, frames = _cropped(image, ratio), getattr(vae, "latent_dim", samples.ndim - 2) == 3
    height, width = (side * ratio for side in size)
    if lift.method == MODEL_LIFT:
        large = _by_model(pixels, (height, width), upscale_model)
    else:
        large = resize(pixels.movedim(-1, 1), (height, width), lift.mode())
    sharp = unsharp_mask(large, lift.unsharp, lift.unsharp_sigma)
    large = masks.kept(large, sharp, masks.mask_of(latent, large.shape))
    large = large.movedim(1, -1).clamp(0, 1)
    # A VAE of video takes a batch of pictures for the frames of one.
    out = torch.cat([vae.encode(one) for one in large.split(1)]) if frames else vae.encode(large)
    if not lift.lfm:
        return out
    slow = resize(samples, size, "bicubic").to(out)
    mixed = refine(slow, out, 1, LowPass("resize", lift.lfm))
    return masks.kept(out, mixed, masks.mask_of(latent, out.shape))


def _by_model(pixels: Tensor, size: tuple[int, int], upscale_model: Any) -> Tensor:
    """Pictures (B, H, W, C) enlarged by an UPSCALE_MODEL, as often as needed, and then brought to
    `size` by bicubic interpolation; (B, C, H, W)."""
    # Late: spandrel, which it brings, is slow to import.
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

    while True:
        pixels = ImageUpscaleWithModel.execute(upscale_model, pixels[..., :3]).result[0]
        large = all(have >= want for have, want in zip(pixels.shape[1:3], size, strict=True))
        if large or upscale_model.scale <= 1:
            return fit(pixels.movedim(-1, 1), size)


def diffuse(model: Any, latent: dict, noise: Any, sigma: Tensor) -> dict:
    """Forward diffusion of a LATENT to a noise level, ready for a sampler without noise.

    Where a noise mask keeps a cell, even by half, the sampler goes on holding it as it is given;
    so it gets no noise.

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
    check_channels(base, latent["samples"], "samples")
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
    x = base.process_latent_out(sampling.inverse_noise_scaling(sigma, x))
    return with_samples(latent, masks.only_free(latent["samples"], x, masks.mask_of(latent)))


def match_statistics(latent: dict, reference: dict) -> dict:
    """Give a LATENT the mean and deviation of another one (DemoFusion, end of a phase).

    With a noise mask, what may change gets the numbers that its part of the reference has: those
    of the whole would move it against what is kept beside it.

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
    target = target.float().to(x.device)
    free = masks.mask_of(latent), masks.mask_of(latent, (len(x), *target.shape[1:]))
    out = filters.match_statistics(x.float(), target, *free)
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
