"""ScaleDiff's structure guidance, arXiv 2510.25818, with DiffuseHigh's and HiFlow's weights."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.bands import LOW_PASSES, LowPass
from ..fusion_ops.schedule import ANCHORS
from ..sampling.prediction import structure_guidance
from ..sampling.span import span
from .guidance_interval import end_percent_input, start_percent_input
from .schema import schema


class StructureGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_StructureGuidance",
            display_name="Structure Guidance (DiffuseHigh, HiFlow)",
            category="guidance",
            search_aliases=[
                "scalediff",
                "diffusehigh",
                "hiflow",
                "low frequency",
                "anchor",
                "wavelet",
            ],
            description="Keeps the layout of a finished picture: in every step, the low "
            "frequencies of the prediction are drawn to those of a reference, while detail stays "
            "free. Goes with any sampler and with the view nodes.",
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.Latent.Input(
                    "reference",
                    tooltip="The finished picture to follow, as large as what is sampled: the "
                    "enlarged latent that the sampler starts from.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the low frequencies is replaced at the start. 0 changes "
                    "nothing, 1 replaces them.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=list(ANCHORS),
                    default="scalediff",
                    tooltip="How the weight goes on: falling with the noise (ScaleDiff), constant "
                    "(DiffuseHigh, with an early end), or falling with the steps (HiFlow).",
                ),
                io.Combo.Input(
                    "low_pass",
                    options=list(LOW_PASSES),
                    default="resize",
                    tooltip="What tells low from high: resizing down and up, with (ScaleDiff) or "
                    "without anti-aliasing, a Butterworth filter of the spectrum (HiFlow), or a "
                    "Haar wavelet (DiffuseHigh's kind).",
                ),
                io.Float.Input(
                    "cutoff",
                    default=0.125,
                    min=0.01,
                    max=1.0,
                    step=0.005,
                    tooltip="Where low ends, as a share of the highest frequency. ScaleDiff: 0.125 "
                    "for SDXL, 0.25 for FLUX; HiFlow 0.2; DiffuseHigh 0.5. Larger keeps more.",
                ),
                start_percent_input(),
                end_percent_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model, which keeps the reference's layout.")],
        )

    @classmethod
    def execute(
        cls, model, reference, weight, schedule, low_pass, cutoff, start_percent, end_percent
    ) -> io.NodeOutput:
        band, part = LowPass(low_pass, cutoff), span(start_percent, end_percent)
        return io.NodeOutput(structure_guidance(model, reference, weight, schedule, band, part))
