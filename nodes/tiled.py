"""MultiDiffusion's overlapping windows, arXiv 2302.08113."""

from __future__ import annotations

from comfy_api.latest import io

from ..fusion_ops.shifted import GRIDS
from ..fusion_ops.windows import BORDERS, CROPS, WINDOW_WEIGHTS
from ..sampling.denoiser import add_views
from ..sampling.plan import LocalViews
from .schema import advanced, schema


class TiledDiffusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_TiledDiffusion",
            display_name="Tiled Diffusion (MultiDiffusion)",
            category="views",
            search_aliases=[
                "multidiffusion",
                "spotdiffusion",
                "tiles",
                "mixture of diffusers",
                "hires",
                "ultimate upscale",
                "demofusion",
            ],
            description="Denoises a large picture through overlapping windows of the size that "
            "the model was trained on, and averages them in every step (MultiDiffusion).",
            inputs=[
                io.Model.Input("model", tooltip="The model to denoise through windows."),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Side of a window in latent cells (128 cells are 1024 pixels for "
                    "SDXL). 0 takes the model's native size.",
                ),
                io.Int.Input(
                    "stride",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Distance between windows in latent cells. Smaller is smoother and "
                    "slower. 0 takes half a window, as DemoFusion does (64 for SDXL).",
                ),
                io.Boolean.Input(
                    "jitter",
                    default=True,
                    tooltip="Move all windows at random in every step, so that no seam stays "
                    "in one place. The moves come from the sampler's seed.",
                ),
                io.Combo.Input(
                    "weights",
                    options=list(WINDOW_WEIGHTS),
                    default="cosine",
                    tooltip="How windows count where they overlap: fading to their edges "
                    "(cosine, gaussian), or all alike as published (uniform).",
                ),
                view_batch_input(),
                advanced(
                    io.Combo.Input(
                        "border",
                        options=list(BORDERS),
                        default="clamp",
                        optional=True,
                        tooltip="Windows at the edge with jitter: 'clamp' shows them the picture "
                        "only; 'zero' moves them as published, out over the edge, where they see "
                        "zeros, which may leave a dark rim.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "crop",
                        options=list(CROPS),
                        default="position",
                        optional=True,
                        tooltip="SDXL's crop coordinates of a window: 'position' is its place in "
                        "the picture, 'padded' adds the jitter's margin (the published code), "
                        "'canvas' keeps the picture's own.",
                    )
                ),
                io.Combo.Input(
                    "grid",
                    options=list(GRIDS),
                    default="overlapped",
                    optional=True,
                    tooltip="'overlapped' averages windows where they overlap; 'shifted' covers "
                    "every part once and moves the borders at random in every step "
                    "(SpotDiffusion): half to a third of the cost, for eight steps or more.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, denoising through windows.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        window,
        stride,
        jitter,
        weights,
        view_batch_size,
        border="clamp",
        crop="position",
        grid="overlapped",
    ) -> io.NodeOutput:
        local = LocalViews(window, stride, jitter, weights, border, crop, grid)
        return io.NodeOutput(add_views(model, local=local, view_batch_size=view_batch_size))


def view_batch_input(optional: bool = False) -> io.Input:
    """The knob that Tiled Diffusion and the composite share."""
    return io.Int.Input(
        "view_batch_size",
        default=0,
        min=0,
        max=256,
        optional=optional,
        tooltip="Views per model call. It changes speed and memory, not the picture. "
        "0 takes what fits in free memory, up to 16.",
    )
