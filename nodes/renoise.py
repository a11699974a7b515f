"""Noise for a picture that is refined: from which level, found in the picture, on top of it."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..sampling import renoise
from .schema import advanced, schema


class RenoiseSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_RenoiseSigmas",
            display_name="Renoise Sigmas (FreCaS)",
            category="noise",
            search_aliases=["frecas", "mrflow", "sigma start", "denoise", "strength"],
            description="The end of a schedule from a noise level that you name, in as many steps "
            "as you name. Or from where enlarging takes a level: a larger picture needs more "
            "noise for the same change.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose schedule it is."),
                io.Float.Input(
                    "sigma",
                    default=0.69,
                    min=0.0001,
                    max=1000.0,
                    step=0.01,
                    round=0.00001,
                    tooltip="Noise level to start from, as the model counts it. SDXL: 0.2 "
                    "sharpens, 0.7 redraws detail, 1.2 shapes. Flow models (SD 3, Flux) count "
                    "from 0 to 1: 0.17, 0.4 and 0.55 are the same.",
                ),
                io.Int.Input(
                    "steps", default=10, min=1, max=1000, tooltip="Steps from there to no noise."
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(comfy.samplers.SCHEDULER_NAMES),
                    default="ddim_uniform",
                    tooltip="The schedule whose end is taken; it keeps its own spacing.",
                ),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=0.25,
                    max=16.0,
                    step=0.01,
                    tooltip="By how much the picture was enlarged. Only gamma looks at it.",
                ),
                io.Float.Input(
                    "gamma",
                    default=0.0,
                    min=0.0,
                    max=6.0,
                    step=0.1,
                    tooltip="Raises sigma to sigma * scale^(gamma / 2), as FreCaS does: 1.5 or 2 "
                    "for SDXL, 1 for SD 3. 2 keeps the ratio of signal to noise of every detail. "
                    "0 starts at sigma itself.",
                ),
                advanced(
                    io.Float.Input(
                        "end_sigma",
                        default=0.0,
                        min=0.0,
                        max=1000.0,
                        step=0.01,
                        round=0.00001,
                        optional=True,
                        tooltip="Noise level of the last step, which goes straight to the finished "
                        "picture: for a stage that a larger one goes on with. 0 runs all steps.",
                    )
                ),
            ],
            outputs=[
                io.Sigmas.Output(tooltip="The sigmas, the last one 0."),
                io.Float.Output(display_name="sigma", tooltip="The level that they start from."),
            ],
        )

    @classmethod
    def execute(cls, model, sigma, steps, scheduler, scale, gamma, end_sigma=0.0) -> io.NodeOutput:
        sigmas = renoise.renoise_sigmas(model, sigma, steps, scheduler, scale, gamma, end_sigma)
        return io.NodeOutput(sigmas, float(sigmas[0]))


class InversionNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_InversionNoise",
            display_name="Inversion Noise (PixelRush)",
            category="noise",
            search_aliases=["pixelrush", "ddim inversion", "unsample"],
            description="Noise that the model itself finds in the picture that is sampled again, "
            "in one evaluation. It is weaker than drawn noise where the picture is smooth, so less "
            "is invented there.",
            inputs=[
                io.Guider.Input(
                    "guider",
                    tooltip="Finds the noise. The sampler's own guider, or one with a cfg of 1.",
                ),
                io.Noise.Input("noise", tooltip="Fresh noise, for its share."),
                io.Float.Input(
                    "share",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the fresh noise: 0 none, 1 all, which is the fresh noise "
                    "itself.",
                ),
            ],
            outputs=[io.Noise.Output(tooltip="For the sampler, in place of RandomNoise.")],
        )

    @classmethod
    def execute(cls, guider, noise, share) -> io.NodeOutput:
        return io.NodeOutput(renoise.InversionNoise(guider, noise, share))


class AddedNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_AddedNoise",
            display_name="Added Noise (PixelRush)",
            category="noise",
            search_aliases=["pixelrush", "noise injection", "grain", "detail"],
            description="A little noise on top of a finished latent, beside any noise level that "
            "the sampler knows of: after a shallow pass it stands for texture that the pass left "
            "out, for a next pass to make detail of.",
            inputs=[
                io.Model.Input("model", tooltip="The model, for the scale of its latents."),
                io.Latent.Input("samples", tooltip="The finished latent."),
                io.Noise.Input("noise", tooltip="The noise to add."),
                io.Float.Input(
                    "std",
                    default=0.05,
                    min=0.0,
                    max=0.1,
                    step=0.005,
                    round=0.0001,
                    tooltip="Its deviation in the model's space, where a picture's own is about 1. "
                    "0.03 to 0.05 are PixelRush's; 0 is off.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The latent with the noise.")],
        )

    @classmethod
    def execute(cls, model, samples, noise, std) -> io.NodeOutput:
        return io.NodeOutput(renoise.added_noise(model, samples, noise, std))
