"""FreCaS's frequency-aware CFG, arXiv 2410.18410, and HiWave's wavelet CFG, arXiv 2506.20452."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.bands import LOW_PASSES, LowPass
from ..sampling.prediction import frequency_guidance
from ..sampling.span import span
from .guidance_interval import end_percent_input, start_percent_input
from .schema import schema


class FrequencyGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_FrequencyGuidance",
            display_name="Frequency Guidance (FreCaS, HiWave)",
            category="guidance",
            search_aliases=["frecas", "hiwave", "fresca", "wavelet cfg", "cfg"],
            description="Guides low and high frequencies with a cfg of their own: a high one "
            "draws detail without burning colours, which a high cfg for all of them does.",
            inputs=[
                io.Model.Input("model", tooltip="The model to guide."),
                io.Float.Input(
                    "cfg_low",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="The cfg of layout, light and colour. Below 0: the sampler's cfg. "
                    "HiWave takes 1.",
                ),
                io.Float.Input(
                    "cfg_high",
                    default=15.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="The cfg of detail. Below 0: the sampler's cfg. FreCaS takes 35 at a "
                    "cfg of 7.5.",
                ),
                io.Combo.Input(
                    "low_pass",
                    options=list(LOW_PASSES),
                    default="resize_aliased",
                    tooltip="What tells low from high: resizing down and up, with or without "
                    "(FreCaS) anti-aliasing, a Butterworth filter of the spectrum, or a Haar "
                    "wavelet (HiWave's kind).",
                ),
                io.Float.Input(
                    "cutoff",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.005,
                    tooltip="Where low ends, as a share of the highest frequency: the smaller "
                    "picture's side against this one's (FreCaS), so 0.5 at twice the size.",
                ),
                start_percent_input(),
                end_percent_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model, guided by frequency.")],
        )

    @classmethod
    def execute(
        cls, model, cfg_low, cfg_high, low_pass, cutoff, start_percent, end_percent
    ) -> io.NodeOutput:
        band, part = LowPass(low_pass, cutoff), span(start_percent, end_percent)
        return io.NodeOutput(frequency_guidance(model, cfg_low, cfg_high, band, part))
