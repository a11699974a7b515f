"""CritiFusion's SpecFusion and CADR (arXiv 2512.22681)."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.spectrum import EDGES, cadr, published_band
from ..sampling import fusers
from .fusers import format_inputs, pair_inputs
from .schema import advanced, schema


class SpecFusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_SpecFusion",
            display_name="SpecFusion (CritiFusion)",
            category="fusion",
            search_aliases=["critifusion", "frequency", "fft", "blend latents"],
            description="Fuses two finished latents by frequency: fine detail from the refined "
            "one, and in the low frequencies (layout, light, large shapes) a mix of both.",
            inputs=[
                *pair_inputs(),
                io.Float.Input(
                    "rho",
                    default=0.85,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the refined latent in the low frequencies; a smaller one "
                    "also makes the box of low frequencies larger. 1 is the refined latent.",
                ),
                io.Float.Input(
                    "base_c",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Scales the box of low frequencies: its half side is base_c * "
                    "(1 - rho) of the picture's.",
                ),
                advanced(
                    io.Float.Input(
                        "low_mix",
                        default=-1.0,
                        min=-1.0,
                        max=1.0,
                        step=0.01,
                        tooltip="Share of the refined latent in the low frequencies, apart from "
                        "rho. 0 takes them all from the base, as the paper's figure shows. "
                        "Below 0: rho.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "radius",
                        default=-1.0,
                        min=-1.0,
                        max=0.5,
                        step=0.01,
                        tooltip="Half side of the low frequencies as a share of the picture's, "
                        "apart from rho. 0.5 is all frequencies. Below 0: base_c * (1 - rho).",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "edge",
                        options=list(EDGES),
                        default="box",
                        tooltip="box is as published, with a hard edge that can ring; gaussian "
                        "and butterworth fall off smoothly, with half the effect at the radius.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "hermitian",
                        default=False,
                        tooltip="Leaves out the row and the column of the published box that "
                        "have no mirror image. The smooth edges have none.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "noise",
                        default=0.001,
                        min=0.0,
                        max=1.0,
                        step=0.001,
                        tooltip="Deviation of the noise that is added, in the model's scaled "
                        "latent space; the published code has 0.001. 0 is none.",
                    )
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Draws the noise.",
                ),
                *format_inputs(),
            ],
            outputs=[
                io.Latent.Output(tooltip="The fused latent."),
                io.Image.Output(
                    display_name="spectrum",
                    tooltip="Log magnitude of the spectra of base, refined and fused latent, "
                    "low frequencies in the middle.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        base,
        refined,
        rho,
        base_c,
        low_mix,
        radius,
        edge,
        hermitian,
        noise,
        seed,
        latent_format,
        model=None,
    ) -> io.NodeOutput:
        band = published_band(
            rho, base_c, None if radius < 0 else radius, None if low_mix < 0 else low_mix
        )._replace(edge=edge, hermitian=hermitian)
        known = fusers.find_format(latent_format, model)
        fused = fusers.spec_fuse(base, refined, band, noise=noise, seed=seed, latent_format=known)
        return io.NodeOutput(*fused)


class Cadr(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_CADR",
            display_name="CADR (CritiFusion)",
            category="fusion",
            search_aliases=["critifusion", "strength", "denoise", "score"],
            description="Settings of a refining pass from how well a picture fits its prompt: "
            "the worse, the stronger.",
            inputs=[
                io.Float.Input(
                    "score",
                    default=60.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How well the picture fits its prompt, 0 to 100, from a preference "
                    "model or your own judgement; 60 stands for 'unknown' in the published code.",
                )
            ],
            outputs=[
                io.Float.Output(
                    display_name="strength", tooltip="For the sampler's denoise: 0.12 to 0.30."
                ),
                io.Float.Output(
                    display_name="guidance", tooltip="For the sampler's cfg: 3.6 to 5.0."
                ),
                io.Int.Output(
                    display_name="steps",
                    tooltip="Steps of the whole schedule, as diffusers counts them: 16 to 30.",
                ),
                io.Float.Output(display_name="rho", tooltip="For SpecFusion: 0.60 to 0.85."),
                io.Int.Output(
                    display_name="run_steps",
                    tooltip="The steps that are run, for KSampler, which counts only those: "
                    "steps * strength, rounded down, at least 1.",
                ),
            ],
        )

    @classmethod
    def execute(cls, score) -> io.NodeOutput:
        found = cadr(score)
        return io.NodeOutput(*found, found.run_steps)
