"""Where the tokens of a picture lie in the host's networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from torch import Tensor

from .latents import native_cells, patch_cells

Grid = tuple[int, int]


@dataclass(frozen=True)
class Sequence:
    """A transformer's sequence in one call.

    Attributes:
        grid: (rows, columns) of the picture's tokens, which lie in one piece, row by row.
        after: how many tokens follow them.
        text: length of a sequence that is text alone, 0 for none.
    """

    grid: Grid
    after: int = 0
    text: int = 0

    def first(self, count: int) -> int | None:
        """Where the picture begins in a sequence of `count` tokens, None if it is not in it."""
        first = count - self.after - math.prod(self.grid)
        return None if first < 0 or count == self.text else first


@dataclass(frozen=True)
class Transformer:
    """A network with one sequence of tokens for text and picture.

    Attributes:
        patch: cells of a patch.
        multiple: text and picture are each filled up to a multiple of it, 0 for not.
        references: whole pictures may follow the picture's own tokens.
    """

    patch: int
    multiple: int = 0
    references: bool = False

    def grid(self, size: Grid) -> Grid:
        """(rows, columns) of tokens of a picture of (height, width) cells."""
        rows, columns = (math.ceil(side / self.patch) for side in size)
        return rows, columns

    def native(self, model: Any, pixels: int) -> int:
        """Side of a native picture in tokens."""
        return max(native_cells(model, pixels) // self.patch, 1)

    def sequence(self, x: Tensor, text: Tensor | None, references: list[Tensor]) -> Sequence:
        """What a call's sequence holds: x (B, C, ..., H, W), text (B, tokens, width)."""
        grid = self.grid(tuple(x.shape[-2:]))
        after = sum(
            math.prod((*ref.shape[2:-2], *self.grid(tuple(ref.shape[-2:])))) for ref in references
        )
        if not self.multiple:
            return Sequence(grid, after)
        words = text.shape[1] if text is not None else 0
        return Sequence(grid, -math.prod(grid) % self.multiple, words + -words % self.multiple)

    def check(self, noise_shape: Any, conds: dict[str, list[dict]]) -> None:
        """Raise ValueError if the picture's tokens are not one grid in a known place."""
        if len(noise_shape) > 4 and noise_shape[2] > 1:
            raise ValueError(
                "windowed attention is for single pictures, and this latent has "
                f"{noise_shape[2]} frames or layers: use the model without the node"
            )
        given = any(cond.get("reference_latents") for listed in conds.values() for cond in listed)
        if given and not self.references:
            raise ValueError(
                "windowed attention doesn't know where this model keeps its reference latents: "
                "remove them from the prompt, or use the model without the node"
            )


@dataclass(frozen=True)
class UNet:
    """A network of levels, each with half the rows and columns of the one before.

    Attributes:
        levels: of its attention layers, by the host's names of blocks such as ("input", 4).
    """

    levels: dict[tuple[str, int], int]

    def grid(self, size: Grid) -> Grid:
        """(rows, columns) above all levels: cells."""
        return size

    def native(self, model: Any, pixels: int) -> int:
        """Side of a native picture in cells."""
        return native_cells(model, pixels)

    def check(self, noise_shape: Any, conds: dict[str, list[dict]]) -> None:
        """Nothing that reaches these networks moves the picture's tokens, but patches do."""


def network_of(model: Any, fix: str = "use Tiled Diffusion for this model") -> UNet | Transformer:
    """What is known of a BaseModel's network.

    Args:
        fix: what to do where nothing is.

    Raises:
        ValueError: nothing is.
    """
    network = getattr(model, "diffusion_model", None)
    network = getattr(network, "_orig_mod", network)  # of a compiled one
    kind = type(network)
    if kind is UNetModel and (levels := _unet_levels(network)):
        return UNet(levels)
    if kind in (Flux, QwenImageTransformer2DModel):
        return Transformer(patch_cells(model), references=True)
    if kind in (Chroma, OpenAISignatureMMDITWrapper):
        return Transformer(patch_cells(model))
    if kind is NextDiT:
        return Transformer(patch_cells(model), multiple=network.pad_tokens_multiple or 1)
    raise ValueError(
        f"windowed attention doesn't know where the tokens of the picture are in '{kind.__name__}'"
        ": it knows SD 1.5, SD 2, SDXL, SD 3, Flux, Chroma, Qwen-Image, Lumina 2 and Z-Image; "
        + fix
    )


def is_told_guidance(model: Any) -> bool:
    """Whether a BaseModel is told a guidance scale by an embedding (Flux dev), so that its own cfg
    is 1."""
    return bool((getattr(model.model_config, "unet_config", None) or {}).get("guidance_embed"))


def _unet_levels(network: UNetModel) -> dict[tuple[str, int], int]:
    """Levels of the blocks with attention; none where a layer of another kind is among them."""
    level, found = 0, {}
    blocks = [(("input", i), block) for i, block in enumerate(network.input_blocks)]
    blocks.append((("middle", 0), network.middle_block or ()))
    blocks += [(("output", i), block) for i, block in enumerate(network.output_blocks)]
    for name, block in blocks:
        for layer in block:
            resizes = getattr(layer, "h_upd", layer)  # a residual block may do it
            level += isinstance(resizes, Downsample) - isinstance(resizes, Upsample)
            if isinstance(layer, SpatialTransformer):
                crossed = any(part.disable_self_attn for part in layer.transformer_blocks)
                if type(layer) is not SpatialTransformer or crossed:
                    return {}
                found[name] = level
    return found
