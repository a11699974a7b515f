"""Where a run starts: the native latent of a final size, the sigmas of an init rate."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..fusion_ops.schedule import end_of_schedule
from ..sampling.latents import native_latent
from .schema import advanced, schema


class NativeLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_NativeLatent",
            display_name="Native Latent (Empty)",
            category="upscaling",
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
            category="noise",
            search_aliases=["repldm", "ap-ldm", "denoise", "strength", "img2img"],
            description="The end of a schedule: what is left after the init rate's share of its "
            "steps is skipped. Noises a finished picture to there and samples it again.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose schedule it is."),
                io.Float.Input(
                    "init_rate",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps to skip: 0.8 leaves the last 10 of 50, 0 all, 1 "
                    "the last one. Larger keeps more of the picture.",
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
                advanced(
                    io.Float.Input(
                        "end_rate",
                        default=1.0,
                        min=0.0,
                        max=1.0,
                        step=0.01,
                        optional=True,
                        tooltip="Share of the steps after which it ends, straight at the finished "
                        "picture: for a stage that a larger one goes on with, as RectifiedHR's. 1 "
                        "runs all that are left.",
                    )
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="The sigmas that are left, the last one 0.")],
        )

    @classmethod
    def execute(
        cls, model, init_rate, num_resample_timesteps, scheduler, end_rate=1.0
    ) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, num_resample_timesteps)
        left = end_of_schedule(sigmas, num_resample_timesteps, init_rate, end_rate)
        return io.NodeOutput(left.cpu())
