"""A picture as a data URI, small enough to send."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from .secrets import CriticError


def data_uri(pixels: np.ndarray, longest: int = 768) -> str:
    """`data:image/png;base64,…` of a picture.

    Args:
        pixels: (H, W, C) with 1, 3 or 4 channels, 0..1; alpha is dropped.
        longest: pixels of the longer side; larger pictures are scaled down, smaller ones stay.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise CriticError(f"a picture of shape {pixels.shape} cannot be sent: connect an IMAGE")
    values = np.nan_to_num(np.asarray(pixels, np.float32)).clip(0, 1)
    values = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]
    picture = Image.fromarray((values * 255).round().astype(np.uint8))
    scale = longest / max(picture.size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
