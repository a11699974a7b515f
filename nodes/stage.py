"""One stage of Progressive Upscale as a node: a chain of them is a run."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.shifted import GRIDS
from ..fusion_ops.stages import chained
from ..fusion_ops.upsample import LIFTS
from .schema import schema

StageWire = io.Custom("HRF_STAGE")


class StageNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_Stage",
            display_name="Stage",
            category="upscaling",
            search_aliases=["relay", "hires fix", "schedule", "preset", "progressive"],
            description="One stage of Progressive Upscale: how the picture is enlarged, how much "
            "of it is drawn anew, and what acts meanwhile. Chain several from small to large; "
            "they take the place of the preset.",
            inputs=[
                StageWire.Input(
                    "before", optional=True, tooltip="The stages before this one, smaller ones."
                ),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=1.0,
                    max=16.0,
                    step=0.01,
                    tooltip="Size against the native picture. 1 draws the same size again.",
                ),
                io.Combo.Input(
                    "lift",
                    options=list(LIFTS),
                    default="pixel bicubic",
                    tooltip="Where and how the picture before it is enlarged, as in Upsample "
                    "Latent. Pixels need a VAE, and are sharper.",
                ),
                io.Float.Input(
                    "unsharp",
                    default=0.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Sharpens the enlarged pixels; 1 is DiffuseHigh's, 0 is off.",
                ),
                io.Float.Input(
                    "start",
                    default=0.7,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of the schedule to skip: 0 begins at pure noise, 0.7 redraws "
                    "detail, 0.9 sharpens. Not used where sigma is given.",
                ),
                io.Float.Input(
                    "sigma",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    round=0.00001,
                    tooltip="Noise level to begin at instead of start, as the model counts it: 0.7 "
                    "for SDXL redraws detail. 0 for start.",
                ),
                io.Float.Input(
                    "gamma",
                    default=0.0,
                    min=0.0,
                    max=6.0,
                    step=0.1,
                    tooltip="Raises sigma by how much the picture grows, as FreCaS does: 1.5 or 2 "
                    "for SDXL. 0 begins at sigma itself.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Steps of the whole schedule, of which start skips a share; from a "
                    "sigma the steps that are run. 0 for those of Progressive Upscale.",
                ),
                io.Float.Input(
                    "cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance scale of this stage, 0 for that of Progressive Upscale.",
                ),
                io.Float.Input(
                    "cfg_end",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Where on the schedule cfg ends; from there on it is 1, at half the "
                    "cost (Guidance Interval).",
                ),
                io.Float.Input(
                    "cfg_high",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="A cfg of its own for detail (Frequency Guidance); FreCaS has 35. "
                    "Below 0: the stage's cfg.",
                ),
                io.Float.Input(
                    "structure",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much the layout is held to that of the enlarged picture "
                    "(Structure Guidance); 0 is off.",
                ),
                io.Float.Input(
                    "upsample",
                    default=0.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much the shrunk picture corrects the large one (Upsample "
                    "Guidance): one subject stays one. One native evaluation a step; 0 is off.",
                ),
                io.Boolean.Input(
                    "windowed_attention",
                    default=True,
                    tooltip="Self-attention in windows of native size: less work and memory, the "
                    "more the larger the picture.",
                ),
                io.Boolean.Input(
                    "tiled", default=False, tooltip="Through windows (Tiled Diffusion)."
                ),
                io.Combo.Input(
                    "grid",
                    options=list(GRIDS),
                    default="overlapped",
                    tooltip="Which windows, where it is tiled.",
                ),
                io.Boolean.Input(
                    "dilated", default=False, tooltip="With global views (Dilated Sampling)."
                ),
                io.Boolean.Input(
                    "skip_residual",
                    default=False,
                    tooltip="Follow the enlarged picture while there is much noise (Skip "
                    "Residual), for a start near 0.",
                ),
                io.Boolean.Input(
                    "match",
                    default=False,
                    tooltip="Give the result the mean and contrast of the native picture.",
                ),
                io.String.Input(
                    "more",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip='Other fields as JSON, such as {"lfm": 0.125, "added_noise": 0.05}. '
                    "The help of Progressive Upscale lists all of them.",
                ),
            ],
            outputs=[
                StageWire.Output(
                    display_name="stage", tooltip="For Progressive Upscale, or the next stage."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, more="", **others):
        """Refuse a text that is written wrong when it is queued."""
        if more and None not in others.values():
            chained((), {"scale": 2.0}, more)
        return True

    @classmethod
    def execute(cls, before=(), more="", **fields) -> io.NodeOutput:
        return io.NodeOutput(chained(before, fields, more))
