"""DemoFusion's global path: dilated sampling, arXiv 2311.16973, section 3.4."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.denoiser import add_views
from ..sampling.plan import DilatedViews
from .schema import advanced, schema


class DilatedSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_DilatedSampling",
            display_name="Dilated Sampling",
            category="views",
            search_aliases=["demofusion", "global views", "accdiffusion", "hires"],
            description="Lets the model also see the whole picture: every n-th cell of it, which "
            "has the size the model was trained on. This keeps one subject one subject. Goes "
            "with Tiled Diffusion, before or after it.",
            inputs=[
                io.Model.Input("model", tooltip="The model to give global views."),
                io.Int.Input(
                    "factor",
                    default=0,
                    min=0,
                    max=32,
                    tooltip="Take every n-th cell. 0 follows from the picture: its longer side "
                    "divided by the native size.",
                ),
                io.Float.Input(
                    "cosine_scale_2",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How fast the share of the global views falls during sampling. Smaller "
                    "repeats less and is grainier; 0 uses the global views only.",
                ),
                io.Float.Input(
                    "cosine_scale_3",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How fast the blur before the global views falls. Smaller has less "
                    "grain and is smoother.",
                ),
                io.Float.Input(
                    "sigma",
                    default=0.8,
                    min=0.01,
                    max=10.0,
                    step=0.01,
                    tooltip="Largest standard deviation of that blur, in latent cells.",
                ),
                advanced(
                    io.Boolean.Input(
                        "interaction",
                        default=False,
                        optional=True,
                        tooltip="Global views exchange cells at random before every step, as "
                        "AccDiffusion does: less grain from views that disagree.",
                    )
                ),
                native_input(),
            ],
            outputs=[io.Model.Output(tooltip="The model with global views.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        factor,
        cosine_scale_2,
        cosine_scale_3,
        sigma,
        interaction=False,
        native=0,
    ) -> io.NodeOutput:
        dilated = DilatedViews(
            factor, cosine_scale_2, cosine_scale_3, sigma, interaction=interaction, native=native
        )
        return io.NodeOutput(add_views(model, dilated=dilated))


def native_input() -> io.Input:
    """The knob that Dilated Sampling and the composite share."""
    return advanced(
        io.Int.Input(
            "native",
            default=0,
            min=0,
            max=8192,
            step=8,
            optional=True,
            tooltip="Native size in pixels: the longer side of the pictures that the model was "
            "trained on. 0 takes the model family's.",
        )
    )
