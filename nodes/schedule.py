"""Where a run starts: the native latent of a final size, the sigmas of an init rate."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..fusion_ops.schedule import skipped_steps
from ..sampling.latents import native_latent
from .schema import schema


class NativeLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_NativeLatent",
            display_name="Native Latent",
            category="latent",
            search_aliases=["empty latent", "aspect ratio", "resolution"],
            description="The empty latent to begin a large picture with: of the area that the "
            "model was trained on, in the shape of the final picture, and how many times larger "
            "that one is.",
            inputs=[
                io.Model.Input("model", tooltip="The model, for its native size."),
                io.Int.Input(
                    "width",
                    default=3072,
                    min=16,
                    max=65536,
                    step=8,
                    tooltip="Width of the final picture in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=2048,
                    min=16,
                    max=65536,
                    step=8,
                    tooltip="Height of the final picture in pixels.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Pictures at once."),
            ],
            outputs=[
                io.Latent.Output(tooltip="Empty latent, for the first sampler."),
                io.Float.Output(
                    display_name="scale", tooltip="For the scale of Progressive Upscale."
                ),
            ],
        )

    @classmethod
    def execute(cls, model, width, height, batch_size) -> io.NodeOutput:
        samples, scale = native_latent(model.model, (height, width), batch_size)
        return io.NodeOutput({"samples": samples}, scale)


class InitRateSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_InitRateSigmas",
            display_name="Init Rate Sigmas",
            category="sampling",
            search_aliases=["repldm", "ap-ldm", "denoise", "strength"],
            description="The end of a schedule: what is left after the init rate's share of its "
            "steps is skipped. Noises a finished picture to there and samples it again.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose schedule it is."),
                io.Float.Input(
                    "init_rate",
                    default=0.8,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of the steps to skip: 0.8 leaves the last 10 of 50, 0 all. "
                    "Larger keeps more of the picture.",
                ),
                io.Int.Input(
                    "num_resample_timesteps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Steps of the whole schedule.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(comfy.samplers.SCHEDULER_NAMES),
                    default="ddim_uniform",
                    tooltip="Noise schedule; ddim_uniform is as published.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="The sigmas that are left, the last one 0.")],
        )

    @classmethod
    def execute(cls, model, init_rate, num_resample_timesteps, scheduler) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, num_resample_timesteps)
        return io.NodeOutput(sigmas[skipped_steps(num_resample_timesteps, init_rate) :].cpu())
