"""The primitives between two stages: upsample, diffuse, match statistics, collect."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.stages import stage_size
from ..fusion_ops.upsample import LIFTS, Lift
from ..sampling import lift
from .schema import advanced, schema


def image_input() -> io.Image.Input:
    """The picture of a latent, where it is there already."""
    return io.Image.Input(
        "image",
        optional=True,
        tooltip="What samples decodes to, if you have it: the picture that was encoded, or a "
        "decoded one. Methods that enlarge pixels take it instead of decoding again; a picture "
        "of your own stays sharper.",
    )


class UpsampleLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_UpsampleLatent",
            display_name="Upsample Latent (HiRes Fix)",
            category="upscaling",
            search_aliases=[
                "hires fix",
                "lift",
                "resize latent",
                "unsharp",
                "lfm",
                "upscale model",
            ],
            description="Enlarges a finished latent for the next stage: in latent space as "
            "DemoFusion does, or as pixels through the VAE, which is sharper.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latent to enlarge."),
                io.Float.Input(
                    "scale",
                    default=2.0,
                    min=0.25,
                    max=16.0,
                    step=0.01,
                    tooltip="Size against the latent's own, where height and width are 0.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(LIFTS),
                    default="latent bicubic",
                    tooltip="Where and how to enlarge. The pixel methods need a VAE, and one of "
                    "them an upscale model. none: the picture is large already, set scale to 1.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="Height in latent cells (8 pixels each for most models), 0 for scale.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="Width in latent cells, 0 for scale.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Goes to pixels and back."),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="For 'pixel upscale model': from Load Upscale Model. Run as often as "
                    "the size needs, then brought to it exactly.",
                ),
                image_input(),
                io.Float.Input(
                    "unsharp",
                    default=0.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    optional=True,
                    tooltip="Sharpens the enlarged pixels; 1 is what DiffuseHigh and HiFlow do, 0 "
                    "is off. The model redraws crisper detail from crisper edges.",
                ),
                io.Float.Input(
                    "lfm",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    optional=True,
                    tooltip="Latent frequency mixing (ScaleDiff): frequencies below this share "
                    "come from the enlarged latent, which keeps its colours, the rest from the "
                    "pixels. 0.125 is published for SDXL, 0.25 for Flux; 0 is off.",
                ),
                advanced(
                    io.Float.Input(
                        "unsharp_sigma",
                        default=1.0,
                        min=0.1,
                        max=10.0,
                        step=0.05,
                        optional=True,
                        tooltip="Width of what unsharp sharpens, in pixels; published is a random "
                        "one from 0.1 to 2.",
                    )
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The enlarged latent.")],
        )

    @classmethod
    def execute(
        cls,
        samples,
        scale,
        method,
        height,
        width,
        vae=None,
        upscale_model=None,
        image=None,
        unsharp=0.0,
        lfm=0.0,
        unsharp_sigma=1.0,
    ) -> io.NodeOutput:
        size = stage_size(lift.check_latent(samples), scale)
        size = (height or size[0], width or size[1])
        how = Lift(method, unsharp, unsharp_sigma, lfm)
        return io.NodeOutput(lift.upsample(samples, size, how, vae, upscale_model, image))


class DiffuseLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_DiffuseLatent",
            display_name="Diffuse Latent (Add Noise)",
            category="noise",
            search_aliases=["add noise", "renoise", "forward diffusion"],
            description="Forward diffusion: noises a latent to where the sigmas start. Sample it "
            "with DisableNoise. (A sampler with RandomNoise does the same by itself.)",
            inputs=[
                io.Model.Input("model", tooltip="The model whose noise schedule counts."),
                io.Latent.Input("samples", tooltip="The finished latent to noise."),
                io.Noise.Input("noise", tooltip="The noise to add."),
                io.Sigmas.Input("sigmas", tooltip="The schedule; its first sigma is used."),
            ],
            outputs=[io.Latent.Output(tooltip="The noised latent.")],
        )

    @classmethod
    def execute(cls, model, samples, noise, sigmas) -> io.NodeOutput:
        lift.check_latent(samples)
        if len(sigmas) == 0:
            return io.NodeOutput(samples)
        return io.NodeOutput(lift.diffuse(model, samples, noise, sigmas[0]))


class MatchStatistics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_MatchStatistics",
            display_name="Match Statistics (AdaIN)",
            category="upscaling",
            search_aliases=["renormalize", "adain"],
            description="Gives a latent the mean and standard deviation of another one, as "
            "DemoFusion does at the end of each stage with the native latent.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latent to adjust."),
                io.Latent.Input("reference", tooltip="The latent to take the statistics from."),
            ],
            outputs=[io.Latent.Output(tooltip="The adjusted latent.")],
        )

    @classmethod
    def execute(cls, samples, reference) -> io.NodeOutput:
        return io.NodeOutput(lift.match_statistics(samples, reference))


MOST_LATENTS = 16


def latent_inputs() -> list[io.Input]:
    """Up to MOST_LATENTS latents, the first of them required."""
    return [
        io.Latent.Input(f"latent_{i}", optional=i > 1, tooltip=f"Number {i} of the list.")
        for i in range(1, MOST_LATENTS + 1)
    ]


def in_order(latents: dict[str, dict | None]) -> list[dict]:
    """The connected latents by their number."""
    ordered = sorted(latents, key=lambda name: int(name.removeprefix("latent_")))
    return [latents[name] for name in ordered if latents[name] is not None]


class LatentList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_LatentList",
            display_name="Latent List",
            category="upscaling",
            search_aliases=["batch", "different sizes"],
            description="Joins latents of different sizes to one list, so that the nodes behind "
            "it run once for each of them.",
            inputs=latent_inputs(),
            outputs=[io.Latent.Output(is_output_list=True, tooltip="The latents, in order.")],
        )

    @classmethod
    def execute(cls, **latents) -> io.NodeOutput:
        return io.NodeOutput(in_order(latents))


class StageList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_StageList",
            display_name="Stage List (internal)",
            category="upscaling",
            is_dev_only=True,
            description="Part of Progressive Upscale, not for use by hand: there it carries the "
            "finished stages to the list output. Use Latent List instead.",
            inputs=latent_inputs(),
            outputs=[io.Latent.Output(tooltip="The latents as one value.")],
        )

    @classmethod
    def execute(cls, **latents) -> io.NodeOutput:
        # One value that is a list: the host unpacks it into the expanding node's list output,
        # but would spread a list output of a node inside the expansion over several outputs.
        return io.NodeOutput(in_order(latents))
