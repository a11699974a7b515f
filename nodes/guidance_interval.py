"""CFG in a limited interval of the schedule, arXiv 2404.07724."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.prediction import guidance_interval
from ..sampling.span import span
from .schema import schema


class GuidanceInterval(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_GuidanceInterval",
            display_name="Guidance Interval (CFG)",
            category="guidance",
            search_aliases=["cfg override", "limited interval", "cfg schedule", "speed"],
            description="Guides with cfg in one part of the schedule only. Elsewhere cfg is 1, "
            "and the negative prompt is not evaluated: such a step costs half.",
            inputs=[
                io.Model.Input("model", tooltip="The model to guide for a part of the schedule."),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where cfg begins, as a share of the schedule: 0 is pure noise.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where cfg ends, as a share of the schedule: 1 is the finished "
                    "picture. Fine detail is drawn last, and hardly needs cfg.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, guided within the interval only.")],
        )

    @classmethod
    def execute(cls, model, start_percent, end_percent) -> io.NodeOutput:
        return io.NodeOutput(guidance_interval(model, span(start_percent, end_percent)))


def start_percent_input() -> io.Input:
    """Where a technique begins to act; shared by the nodes that act for a while."""
    return io.Float.Input(
        "start_percent",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.001,
        tooltip="Where it begins to act, as a share of the schedule: 0 is pure noise.",
    )


def end_percent_input() -> io.Input:
    """Where it ends."""
    return io.Float.Input(
        "end_percent",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.001,
        tooltip="Where it ends, as a share of the schedule: 1 is the finished picture.",
    )
