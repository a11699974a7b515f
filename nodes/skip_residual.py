"""DemoFusion's skip residual, arXiv 2311.16973, section 3.3."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.steps import between_steps
from ..sampling.transforms import skip_residual
from .schema import schema


class SkipResidual(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_SkipResidual",
            display_name="Skip Residual",
            category="guidance",
            search_aliases=["demofusion", "freescale", "hires"],
            description="Pulls every step towards the upsampled picture, noised to that step, and "
            "lets go as sampling proceeds. The upsampled picture is the latent_image that the "
            "sampler is given.",
            inputs=[
                io.Sampler.Input(
                    "sampler", tooltip="The sampler to guide; euler or ddim are as published."
                ),
                io.Float.Input(
                    "cosine_scale_1",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How fast the pull falls during sampling. Smaller stays closer to "
                    "the upsampled picture, but keeps more of its blur.",
                ),
            ],
            outputs=[io.Sampler.Output(tooltip="The guided sampler.")],
        )

    @classmethod
    def execute(cls, sampler, cosine_scale_1) -> io.NodeOutput:
        return io.NodeOutput(between_steps(sampler, skip_residual(cosine_scale_1)))
