"""What acts on a prediction after CFG, or says how strong CFG is: MODEL -> MODEL.

All of it lives in plain functions on a clone of the MODEL, with nothing kept between two calls.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops.bands import LowPass, check_low_pass, refine, weighted
from ..fusion_ops.schedule import anchor_weight, steps_done
from .latents import diffusion_time
from .lift import check_latent
from .span import WHOLE, Span

KEY = "hires_fusion_prediction"
# In the model options of a call outside the interval, for what would act on cfg itself.
UNGUIDED = "hires_fusion_unguided"

# What makes a guider the positive prompt alone, by the function that reads it.
UNGUIDED_SETTINGS: dict[str, dict[str, Any]] = {
    "CFGGuider.predict_noise": {"cfg": 1.0},
    "Guider_DualCFG.predict_noise": {"cfg1": 1.0, "cfg2": 1.0, "nested": False},
    "Guider_PerpNeg.predict_noise": {"cfg": 1.0, "neg_scale": 0.0},
}


def structure_guidance(
    model: ModelPatcher,
    reference: dict,
    weight: float = 1.0,
    schedule: str = "scalediff",
    band: LowPass | None = None,
    span: Span = WHOLE,
) -> ModelPatcher:
    """A clone of the MODEL whose prediction keeps the low frequencies of a finished latent.

    x0 <- x0 + w (LP(reference) - LP(x0)) after CFG (ScaleDiff, arXiv 2510.25818; DiffuseHigh).

    Args:
        reference: LATENT of the size that is sampled, one or as many as there are.
        weight: w at the start of the run, >= 0; 0 changes nothing.
        schedule: how w goes on, one of `fusion_ops.schedule.ANCHORS`.
        band: the low-pass, ScaleDiff's for SDXL if None.
        span: part of the schedule where it acts.

    Raises:
        ValueError: no picture to follow, or an unknown schedule or low-pass; at the start of
            sampling, a reference that doesn't fit.
    """
    band = band or LowPass()
    check_latent(reference)
    check_low_pass(band)
    anchor_weight(schedule, 1.0, 1.0, 0.0)
    samples = reference["samples"]
    if not samples.any():
        raise ValueError(
            "Structure Guidance needs a finished picture as reference: this latent is empty; "
            "enlarge the native picture with Upsample Latent, or encode an image"
        )
    model = model.clone()
    if weight == 0:
        return model

    def guide(args: dict) -> Tensor:
        sampling, sigma = args["model"].model_sampling, float(args["sigma"].flatten()[0])
        x0 = args["denoised"]
        if not span.holds(sampling, sigma):
            return x0
        noise, first, done = _progress(sampling, sigma, args["model_options"])
        share = weight * anchor_weight(schedule, noise, first, done)
        source = args["model"].process_latent_in(_like(samples, x0.ndim).to(x0))
        return refine(source, x0, share, band)

    def fits(executor, noise, *args, **kwargs):
        _check_reference(samples, tuple(noise.shape))
        return executor(noise, *args, **kwargs)

    model.set_model_sampler_post_cfg_function(guide)
    # Not when sampling is prepared: views ask for the memory of their own shape there.
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, fits)
    return model


def _like(samples: Tensor, axes: int) -> Tensor:
    """A picture among latents with a time axis."""
    return samples.unsqueeze(2) if samples.ndim == 4 and axes == 5 else samples


def _check_reference(samples: Tensor, shape: tuple[int, ...]) -> None:
    found = tuple(_like(samples, len(shape)).shape)
    batch, *rest = found
    if batch in (1, shape[0]) and tuple(rest) == shape[1:]:
        return
    if len(found) == len(shape) and found[-2:] != shape[-2:]:
        height, width = shape[-2:]
        fix = (
            f"give it the latent that the sampler starts from, or enlarge it to {width} x "
            f"{height} cells with Upsample Latent"
        )
    else:
        fix = "give it one latent, or as many as are sampled, of the same kind of model"
    sizes = (" x ".join(map(str, size)) for size in (found, shape))
    raise ValueError(
        "the reference of Structure Guidance is {}, the picture {}: ".format(*sizes) + fix
    )


def _progress(sampling: Any, sigma: float, model_options: dict) -> tuple[float, float, float]:
    """(share of noise now, at the run's start, share of steps done)."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if isinstance(sampling, CONST):
        noise, first = sigma, 1.0  # ScaleDiff's weight for FLUX is the flow's time itself
    else:
        start = math.inf if sigmas is None else float(sigmas[0])
        noise, first = (_noise_share(level) for level in (sigma, start))
    if sigmas is None or len(sigmas) < 2:
        return noise, first, 1 - diffusion_time(sampling, torch.tensor(sigma))
    return noise, first, steps_done(sigmas.tolist(), sigma)


def _noise_share(sigma: float) -> float:
    """1 - alpha-bar."""
    return 1 - 1 / (1 + sigma**2)


def frequency_guidance(
    model: ModelPatcher,
    cfg_low: float,
    cfg_high: float,
    band: LowPass | None = None,
    span: Span = WHOLE,
) -> ModelPatcher:
    """A clone of the MODEL with a cfg of its own for low and for high frequencies.

    x0 = D_u + w_L LP(D_c - D_u) + w_H (1 - LP)(D_c - D_u) (FreCaS, arXiv 2410.18410; with the
    Haar low-pass and w_L = 1, HiWave, arXiv 2506.20452). Added to what CFG made, as (w - cfg)
    times the band, so that it composes, and both at the sampler's cfg change nothing.

    Args:
        cfg_low, cfg_high: w_L and w_H; below 0 the sampler's own cfg.
        band: the low-pass; None for what half the sides can show, as FreCaS at twice the size.
        span: part of the schedule where it acts.

    Raises:
        ValueError: an unknown low-pass; at the start of sampling, a guider without this CFG.
    """
    band = band or LowPass("resize_aliased", 0.5)
    check_low_pass(band)

    def guide(args: dict) -> Tensor:
        x0, cfg, options = args["denoised"], args["cond_scale"], args["model_options"]
        low, high = (cfg if own < 0 else own for own in (cfg_low, cfg_high))
        if (low, high) == (cfg, cfg) or args["uncond"] is None or options.get(UNGUIDED):
            return x0
        if not span.holds(args["model"].model_sampling, float(args["sigma"].flatten()[0])):
            return x0
        change = weighted(
            args["cond_denoised"] - args["uncond_denoised"], low - cfg, high - cfg, band
        )
        return (x0.float() + change).to(x0.dtype)

    def knows(executor, noise, latent, sampler, *args, **kwargs):
        _check_cfg(executor.class_obj, sampler)
        return executor(noise, latent, sampler, *args, **kwargs)

    model = model.clone()
    model.set_model_sampler_post_cfg_function(guide)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, knows)
    return model


def _check_cfg(guider: Any, sampler: Any) -> None:
    """Raise ValueError, with the fix, where there are no two halves of CFG to work on."""
    if _reader(guider) != "CFGGuider.predict_noise":
        raise ValueError(
            f"Frequency Guidance does not know the guider '{type(guider).__name__}': use "
            "CFGGuider or KSampler"
        )
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
    both = guider.model_options.get("disable_cfg1_optimization") or "cfg_pp" in name
    if math.isclose(guider.cfg, 1.0) and not both:
        raise ValueError(
            "Frequency Guidance splits cfg, and at cfg 1 the negative prompt is not evaluated: "
            "set the sampler's cfg above 1 (cfg_low 1 is allowed), or remove the node"
        )


def guidance_interval(model: ModelPatcher, span: Span) -> ModelPatcher:
    """A clone of the MODEL with CFG in one part of the schedule, and cfg 1 elsewhere.

    There the negative prompt is not evaluated (arXiv 2404.07724), unless another node or a CFG++
    sampler asks for it.

    Raises:
        ValueError: at the start of sampling, a guider whose cfg is not known.
    """

    def knows(executor, *args, **kwargs):
        guider = executor.class_obj
        if _reader(guider) not in UNGUIDED_SETTINGS:
            raise ValueError(
                f"Guidance Interval does not know where the guider '{type(guider).__name__}' "
                "keeps its cfg: use CFGGuider, DualCFGGuider, PerpNegGuider or KSampler"
            )
        return executor(*args, **kwargs)

    def predict(executor, x, timestep, model_options=None, *args, **kwargs):
        guider, options = executor.class_obj, model_options or {}
        if span.holds(guider.inner_model.model_sampling, float(timestep.flatten()[0])):
            return executor(x, timestep, options, *args, **kwargs)
        with _changed(guider, UNGUIDED_SETTINGS[_reader(guider)]):
            return executor(x, timestep, {**options, UNGUIDED: True}, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, knows)
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict)
    return model


def _reader(guider: Any) -> str:
    """The function that reads a guider's cfg, by name: guiders of other packs inherit it or not."""
    return type(guider).predict_noise.__qualname__


@contextmanager
def _changed(thing: Any, values: dict[str, Any]):
    known = {name: getattr(thing, name) for name in values if hasattr(thing, name)}
    try:
        for name in known:
            setattr(thing, name, values[name])
        yield
    finally:
        for name, value in known.items():
            setattr(thing, name, value)
