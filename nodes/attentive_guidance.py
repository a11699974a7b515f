"""Attentive guidance of AP-LDM, arXiv 2410.06055, and RepLDM."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.guidance import DECAYS, Guidance, parse_density
from ..sampling.steps import between_steps
from ..sampling.transforms import attentive_guidance
from .schema import advanced, schema


class AttentiveGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_AttentiveGuidance",
            display_name="Attentive Guidance (RepLDM, AP-LDM)",
            category="guidance",
            search_aliases=["repldm", "ap-ldm", "pfsa", "tfsa", "detail"],
            description="After each step pulls the latent towards its own self-attention: like "
            "parts move together, which adds structure, contrast and colour. Meant for the "
            "native picture, before it is enlarged.",
            inputs=[
                io.Sampler.Input("sampler", tooltip="The sampler to guide."),
                io.Float.Input(
                    "attn_guidance_scale",
                    default=0.004,
                    min=0.0,
                    max=1.0,
                    step=0.0005,
                    round=0.00001,
                    tooltip="γ, the share of self-attention that each step takes in. Larger: more "
                    "contrast, colour and detail, then hard edges and burnt colours. 0.004 is "
                    "published for SDXL, 0.004 to 0.009 shown; 0 is off. Flow models (SD 3, Flux) "
                    "need other values: see the help page.",
                ),
                io.Int.Input(
                    "skip_first",
                    default=3,
                    min=0,
                    max=1000,
                    tooltip="Steps at the start without guidance. 3 of 50 as published: the "
                    "picture is laid out first.",
                ),
                io.Int.Input(
                    "stop_after",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="The last guided step, counted from the start. 0 guides to the end.",
                ),
                io.Combo.Input(
                    "attn_guidance_decay",
                    options=list(DECAYS),
                    default="cosine",
                    tooltip="How the scale falls over the guided steps: not at all, in a line, as "
                    "half a cosine wave (published with factor 3), or by a factor each step.",
                ),
                io.Float.Input(
                    "decay_factor",
                    default=3.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="Exponent of linear and cosine; for exp the factor from one guided "
                    "step to the next, 0 to 1.",
                ),
                advanced(
                    io.Float.Input(
                        "decay_min",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.0005,
                        round=0.00001,
                        optional=True,
                        tooltip="The scale does not fall below it.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "attn_guidance_density",
                        default="all",
                        optional=True,
                        tooltip="Which steps are guided, as in the papers: all, or shares from 0 "
                        "to 1 for equal parts of the schedule, the smallest noise first, such as "
                        "0*31, 1*16, 0*3 for 50 steps.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "attn_guidance_filter",
                        options=list(DECAYS),
                        default="none",
                        optional=True,
                        tooltip="Attend to a low-passed latent, and how the filter opens over the "
                        "guided steps.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "filter_start",
                        default=0.5,
                        min=0.01,
                        max=1.0,
                        step=0.01,
                        optional=True,
                        tooltip="Share of each axis of frequencies that the filter lets through "
                        "at first.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "power_calibrate",
                        default=0,
                        min=0,
                        max=2,
                        optional=True,
                        tooltip="Scale the self-attention to the power of noise: 0 no (as "
                        "published), 2 as of averaged noise, 1 with the picture's own power.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "attn_scaling",
                        default=0.0,
                        min=0.0,
                        max=1000.0,
                        step=0.1,
                        optional=True,
                        tooltip="λ, what the scores are divided by. 0 takes the root of the "
                        "latent's channels: 2 for SDXL, 4 for Flux.",
                    )
                ),
            ],
            outputs=[io.Sampler.Output(tooltip="The guided sampler.")],
        )

    @classmethod
    def execute(
        cls,
        sampler,
        attn_guidance_scale,
        skip_first,
        stop_after,
        attn_guidance_decay,
        decay_factor,
        decay_min=0.0,
        attn_guidance_density="all",
        attn_guidance_filter="none",
        filter_start=0.5,
        power_calibrate=0,
        attn_scaling=0.0,
    ) -> io.NodeOutput:
        parse_density(attn_guidance_density)
        plan = Guidance(
            attn_guidance_scale,
            attn_guidance_density,
            skip_first,
            stop_after,
            attn_guidance_decay,
            decay_min,
            decay_factor,
            attn_guidance_filter,
            filter_start,
        )
        guidance = attentive_guidance(plan, power_calibrate, attn_scaling)
        return io.NodeOutput(between_steps(sampler, guidance))
