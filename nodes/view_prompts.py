"""Prompts of their own for global and local views, as in AccDiffusion (arXiv 2407.10738)."""

from __future__ import annotations

from comfy_api.latest import io

from ..sampling.by_place import prompts_by_place
from ..sampling.conditioning import GLOBAL, LOCAL, PATH
from .schema import schema


class ViewPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="HRF_ViewPrompts",
            display_name="View Prompts (AccDiffusion)",
            category="prompt",
            search_aliases=["regional", "detail prompt", "accdiffusion"],
            description="Joins two prompts: the global views and whole pictures follow the first, "
            "the windows of Tiled Diffusion the second. A local prompt that names textures, and "
            "not the subject, keeps windows from repeating the subject. With a mask, every part of "
            "the picture follows the first where the mask is, and the second elsewhere.",
            inputs=[
                io.Conditioning.Input("whole", tooltip="The full prompt, for the whole picture."),
                io.Conditioning.Input(
                    "detail",
                    tooltip="The prompt for the windows; with a mask, for what is outside.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the subject is, from Subject Mask or painted, of any size. Both "
                    "prompts then go into one evaluation, and each place attends to its own: in "
                    "windows and in the whole picture. For SD 1.5, SD 2 and SDXL.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="Both, for a model with tiled views.")],
        )

    @classmethod
    def execute(cls, whole, detail, mask=None) -> io.NodeOutput:
        if mask is not None:
            return io.NodeOutput(prompts_by_place(whole, detail, mask))
        marked = [
            [embedding, {**options, PATH: path}]
            for path, listed in ((GLOBAL, whole), (LOCAL, detail))
            for embedding, options in listed
        ]
        return io.NodeOutput(marked)
