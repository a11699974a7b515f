"""VAE tiling above an area, and the models' way out of memory: AP-LDM's and RepLDM's options."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.vae import limited
from .schema import schema


class VAELimits(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_VAELimits",
            display_name="VAE Limits (Tiled VAE)",
            category="vae",
            search_aliases=["tiled vae", "multi_decoder", "memory", "out of memory"],
            description="The VAE, working in tiles on pictures above an area, in every node that "
            "it is connected to. For pixel lifts and large decodes on small cards.",
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE."),
                io.Boolean.Input(
                    "multi_encoder", default=False, tooltip="Encode large pictures in tiles."
                ),
                io.Boolean.Input(
                    "multi_decoder", default=True, tooltip="Decode large pictures in tiles."
                ),
                io.Int.Input(
                    "encoder_limit_area",
                    default=3072**2,
                    min=0,
                    max=2**31,
                    step=1024,
                    tooltip="Pixels of a picture above which it is encoded in tiles: 9437184 is "
                    "3072 x 3072.",
                ),
                io.Int.Input(
                    "decoder_limit_area",
                    default=2048**2,
                    min=0,
                    max=2**31,
                    step=1024,
                    tooltip="Pixels of a picture above which it is decoded in tiles: 4194304 is "
                    "2048 x 2048.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=512,
                    min=64,
                    max=4096,
                    step=32,
                    tooltip="Side of a tile in pixels; a quarter of it overlaps.",
                ),
                io.Boolean.Input(
                    "models_to_cpu",
                    default=False,
                    tooltip="Unload all other models before the VAE works. The next sampler loads "
                    "its model again.",
                ),
            ],
            outputs=[io.Vae.Output(tooltip="The VAE with these limits.")],
        )

    @classmethod
    def execute(cls, vae, **limits) -> io.NodeOutput:
        return io.NodeOutput(limited(vae, **limits))
