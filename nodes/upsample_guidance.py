"""Upsample Guidance, arXiv 2404.01709."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.denoiser import add_views
from ..sampling.plan import UpsampleViews
from ..sampling.span import span
from .dilated import native_input
from .guidance_interval import start_percent_input
from .schema import advanced, schema


class UpsampleGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_UpsampleGuidance",
            display_name="Upsample Guidance",
            category="guidance",
            search_aliases=["global", "hires", "contextual diffusion", "low resolution"],
            description="Lets the model also see the whole picture, shrunk to the size that it "
            "was trained on, and corrects the large prediction by it: one subject stays one. "
            "Costs one native-size evaluation a step; alone, or with Tiled Diffusion.",
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much of the difference is added (the paper's theta). 0 changes "
                    "nothing and costs nothing.",
                ),
                start_percent_input(),
                io.Float.Input(
                    "end_percent",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where it ends, as a share of the schedule (the paper's eta, 0.3 to "
                    "0.6). Later steps draw detail, which the shrunk picture doesn't have.",
                ),
                advanced(
                    io.Int.Input(
                        "factor",
                        default=0,
                        min=0,
                        max=32,
                        optional=True,
                        tooltip="How many times smaller. 0 follows from the picture: its longer "
                        "side divided by the native size.",
                    )
                ),
                native_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model, corrected by the shrunk picture.")],
        )

    @classmethod
    def execute(
        cls, model, weight, start_percent, end_percent, factor=0, native=0
    ) -> io.NodeOutput:
        part = span(start_percent, end_percent)
        return io.NodeOutput(add_views(model, upsample=UpsampleViews(weight, part, factor, native)))
