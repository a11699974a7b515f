"""The small model that ships with the pack, for the demo, the tests and the measurements."""

from __future__ import annotations

from comfy_api.latest import io

from .schema import schema


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_LoadDemoModel",
            display_name="Load Demo Model",
            category="loaders",
            search_aliases=["demo", "tiny model", "checkpoint"],
            description="The pack's own small diffusion model (native size 256 x 256 pixels). It "
            "draws procedural landscapes with one object and fails at high resolution as large "
            "models do, so that methods can be tried in seconds and without any download.",
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=["base", "refiner"],
                    default="base",
                    optional=True,
                    tooltip="base draws whole pictures. refiner is for the last third of the "
                    "steps (image to image with a denoise up to 0.36), and draws nothing alone.",
                )
            ],
            outputs=[
                io.Model.Output(tooltip="SDXL-like UNet, noise (eps) prediction."),
                io.Clip.Output(tooltip="Its small text encoder."),
                io.Vae.Output(tooltip="Its VAE: 8 x 8 pixels a cell, 4 channels."),
            ],
        )

    @classmethod
    def execute(cls, variant="base") -> io.NodeOutput:
        from ..demo.loader import load_demo_model

        return io.NodeOutput(*load_demo_model(variant=variant))
