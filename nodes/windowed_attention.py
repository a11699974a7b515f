"""ScaleDiff's windowed self-attention, arXiv 2510.25818."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.attention import WindowedAttention, add_windowed_attention
from ..sampling.span import span
from .dilated import native_input
from .guidance_interval import end_percent_input, start_percent_input
from .schema import schema


class WindowedSelfAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_WindowedAttention",
            display_name="Windowed Attention (ScaleDiff)",
            category="views",
            search_aliases=["scalediff", "npa", "neighborhood attention", "hires", "hypertile"],
            description="Lets every part of a large picture attend to a window of native size "
            "around it, instead of to everything (ScaleDiff). The rest of the network runs once, "
            "on the whole picture: far less work and memory than full attention, and no seams "
            "of tiles. For refining a picture that is laid out already.",
            inputs=[
                io.Model.Input("model", tooltip="The model to give windowed self-attention."),
                io.Float.Input(
                    "query_block",
                    default=0.5,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="Side of the blocks that share a window, as a share of the window. "
                    "Smaller: every place stands nearer to the middle of its window, and more "
                    "memory is moved. 1: windows side by side. 0.5 is published.",
                ),
                io.Float.Input(
                    "window",
                    default=1.0,
                    min=1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Side of a window of keys and values, in native sides of the model. "
                    "Larger windows see more of the picture: fewer repeated subjects, more work "
                    "(with its square). 1 is published.",
                ),
                io.Boolean.Input(
                    "jitter",
                    default=True,
                    tooltip="Shift the blocks at random in every step, by up to half a block, so "
                    "that no border of theirs stays in one place. The shifts come from the "
                    "sampler's seed.",
                ),
                start_percent_input(),
                end_percent_input(),
                native_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model with windowed self-attention.")],
        )

    @classmethod
    def execute(
        cls, model, query_block, window, jitter, start_percent, end_percent, native=0
    ) -> io.NodeOutput:
        part = span(start_percent, end_percent)
        settings = WindowedAttention(query_block, window, jitter, part, native)
        return io.NodeOutput(add_windowed_attention(model, settings))
