"""A VAE that works in the host's tiles above an area."""

from __future__ import annotations

import copy
import math
from typing import Any

import comfy.model_management
from torch import Tensor

from .memory import picture_bytes, refuse_beyond


def limited(
    vae: Any,
    *,
    multi_encoder: bool,
    multi_decoder: bool,
    encoder_limit_area: int,
    decoder_limit_area: int,
    tile_size: int = 512,
    models_to_cpu: bool = False,
) -> Any:
    """A copy of the host's VAE that tiles what is larger than a limit; the given one stays.

    Args:
        multi_encoder, multi_decoder: tile at all (names as in AP-LDM and RepLDM).
        encoder_limit_area, decoder_limit_area: pixels of a picture above which it is tiled.
        tile_size: side of a tile in pixels.
        models_to_cpu: unload every model first; the VAE's own weights come back by themselves.
    """
    out = copy.copy(vae)

    def make_room() -> None:
        if models_to_cpu:
            comfy.model_management.unload_all_models()

    def encode(pixels: Tensor) -> Tensor:
        """pixels: (B, H, W, 3) or (B, T, H, W, 3)."""
        make_room()
        height, width = pixels.shape[-3:-1]
        if not multi_encoder or height * width <= encoder_limit_area:
            return vae.encode(pixels)
        return vae.encode_tiled(
            pixels[..., :3], tile_x=tile_size, tile_y=tile_size, overlap=tile_size // 4
        )

    def decode(samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """samples: (B, C, H, W) or (B, C, T, H, W)."""
        make_room()
        cell = vae.spacial_compression_decode()
        height, width = samples.shape[-2:]
        tiled = multi_decoder and height * width * cell**2 > decoder_limit_area
        frames = math.prod((samples.shape[0], *samples.shape[2:-2]))
        # Tiles of pictures are put together three times, in other places, and averaged.
        copies = 3 if tiled and samples.ndim == 4 else 1
        refuse_beyond(
            picture_bytes(frames, (height, width), cell) * copies,
            f"decoding {height * cell} x {width * cell} pixels",
            "decode fewer pictures at once, or a smaller one",
        )
        if not tiled:
            return vae.decode(samples, *args, **kwargs)
        tile = max(tile_size // cell, 4)  # the host also takes half of it
        return vae.decode_tiled(samples, tile_x=tile, tile_y=tile, overlap=tile // 4)

    out.encode, out.decode = encode, decode
    return out
