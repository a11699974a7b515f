"""HiRes Fusion: pictures larger and better than their model was trained for, as ComfyUI nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

WEB_DIRECTORY = "./web"
__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


class HiResFusion(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .nodes import NODES

        return NODES


async def comfy_entrypoint() -> HiResFusion:
    return HiResFusion()
