"""The stages of a preset, drawn with the pack's own functions as Progressive Upscale's nodes do."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..pack import Session, run_guider

OTHER_NOISE = 1000  # as `nodes.expansion`


class Drawn:
    """A NOISE of the host's kind."""

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, latent: dict) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(latent["samples"].shape, generator=generator)


def stages_of(
    session: Session, preset: str, scale: float, strength: float = 0.0, **changes: Any
) -> list:
    """A preset's stages for the session's steps and cfg, with fields changed in all of them."""
    from hires_fusion.fusion_ops.stages import Wish, plan_run, settle
    from hires_fusion.sampling.networks import is_told_guidance
    from hires_fusion.sampling.renoise import is_flow, places

    flow, told = is_flow(session.model), is_told_guidance(session.model.model)
    plan = plan_run(preset, scale, wish=Wish(session.steps, session.cfg, flow, told))
    changed = [dataclasses.replace(stage, **changes) for stage in plan.stages]
    return settle(plan._replace(stages=changed), places(session.model), flow, strength)


def run_stages(
    session: Session,
    stages: list,
    prompt: str,
    native: Tensor,
    seed: int,
    upscale_model: Any = None,
) -> Tensor:
    """The latent after all stages.

    Args:
        stages: settled, as of `stages_of`.
        native: finished latent, (1, 4, H, W).
        upscale_model: for lifts by one.
    """
    from hires_fusion.fusion_ops.filters import match_statistics
    from hires_fusion.fusion_ops.stages import stage_size
    from hires_fusion.sampling.lift import upsample
    from hires_fusion.sampling.plan import ViewPlan
    from hires_fusion.sampling.preflight import Step, stage_views

    latent = native
    for number, stage in enumerate(stages, 2):
        size = stage_size(tuple(native.shape[-2:]), stage.scale)
        views = stage_views(stage, ViewPlan(), session.native, 0)
        step = Step(stage, size, tuple(latent.shape[-2:]), views)
        lifted = upsample({"samples": latent}, size, step.lift, session.vae, upscale_model)
        latent = _sampled(session, step, prompt, lifted, seed + number)
        if stage.match:
            latent = match_statistics(latent, native)
    return latent


def _sampled(session: Session, step: Any, prompt: str, lifted: dict, seed: int) -> Tensor:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Guider_Basic

    from hires_fusion.sampling.renoise import InversionNoise, added_noise

    stage, yes = step.stage, session.encode(prompt)
    viewed = _viewed(session.model, step)
    noise = Drawn(seed)
    if stage.fresh_noise < 1:
        finder = Guider_Basic(viewed)
        finder.set_conds(yes)
        noise = InversionNoise(finder, noise, stage.fresh_noise)
    guider = comfy.samplers.CFGGuider(_guided(viewed, step, lifted))
    guider.set_conds(yes, session.negative)
    guider.set_cfg(stage.cfg)
    made = noise.generate_noise(lifted)
    sigmas = _sigmas(session.model, stage)
    out = run_guider(guider, made, lifted["samples"], _sampler(stage), sigmas, seed)
    more = Drawn(seed + OTHER_NOISE)
    return added_noise(session.model, {"samples": out}, more, stage.added_noise)["samples"]


def _sigmas(model: Any, stage: Any) -> Tensor:
    import comfy.samplers

    from hires_fusion.fusion_ops.schedule import end_of_schedule
    from hires_fusion.sampling.renoise import renoise_sigmas

    scheduler = "ddim_uniform"
    if stage.sigma is not None:
        return renoise_sigmas(model, stage.sigma, stage.steps, scheduler, end_sigma=stage.end_sigma)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, stage.steps)
    return end_of_schedule(sigmas, stage.steps, stage.start, stage.end)


def _viewed(model: Any, step: Any) -> Any:
    """The MODEL with windowed attention and the views of a stage."""
    from hires_fusion.sampling.attention import WindowedAttention, add_windowed_attention
    from hires_fusion.sampling.denoiser import add_views

    stage = step.stage
    if stage.windowed_attention:
        settings = WindowedAttention(stage.query_block, stage.attention_window, stage.jitter)
        model = add_windowed_attention(model, settings)
    views = {name: getattr(step.views, name) for name in ("local", "dilated", "upsample")}
    views = {name: value for name, value in views.items() if value}
    return add_views(model, **views) if views else model


def _guided(model: Any, step: Any, lifted: dict) -> Any:
    """The MODEL with the guidance of a stage."""
    from hires_fusion.fusion_ops.bands import LowPass
    from hires_fusion.sampling import prediction
    from hires_fusion.sampling.span import span

    stage = step.stage
    if stage.structure:
        band = LowPass(stage.structure_low_pass, stage.structure_cutoff)
        part = span(0.0, stage.structure_end)
        model = prediction.structure_guidance(
            model, lifted, stage.structure, stage.structure_schedule, band, part
        )
    if stage.split_cfg:
        low, high = (-1.0 if w is None else w for w in (stage.cfg_low, stage.cfg_high))
        band = LowPass(stage.cfg_low_pass, step.cfg_cutoff)
        model = prediction.frequency_guidance(model, low, high, band)
    if stage.cfg != 1 and (stage.cfg_start, stage.cfg_end) != (0, 1):
        model = prediction.guidance_interval(model, span(stage.cfg_start, stage.cfg_end))
    return model


def _sampler(stage: Any) -> Any:
    """The SAMPLER of a stage."""
    import comfy.samplers

    from hires_fusion.sampling.steps import between_steps
    from hires_fusion.sampling.transforms import skip_residual

    sampler = comfy.samplers.sampler_object("euler")
    if stage.skip_residual:
        sampler = between_steps(sampler, skip_residual(stage.cosine_scale_1))
    return sampler
