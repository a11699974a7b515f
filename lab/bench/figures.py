"""What is kept of one picture: small enough for the repository, enough to compare it again.

Features of crops are kept in 8 bits. Rounding is noise of its own in each picture, and distances of
sets use products of different pictures only, so it averages out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..scenes.wishes import wish
from .counter import count_objects
from .gallery import Cost
from .measures import fidelity, line_ratios
from .task import CELL, NATIVE

MOST = 6.0  # what the last layer of the network is clipped at, so no mean of it is larger
LEVELS = 255

# Of one picture; N of them are stacked to (N, ...).
FIELDS = {
    "features": np.uint8,  # (crops, D), see `pack`
    "spectrum": np.float32,  # (bins,) of evaluation.spectrum.radial_spectrum
    "seams": np.float32,  # (lines,) of measures.line_ratios
    "objects": np.int16,  # focal objects
    "right": np.bool_,  # exactly the one that the caption asks for
    "native_objects": np.int16,  # those of the native picture
    "psnr": np.float32,  # against the native picture, decibels; NaN for renders
    "lpips": np.float32,  # the same, ST-LPIPS
    "seconds": np.float32,  # of the processor, native picture and decoding included
    "calls": np.int32,
    "evaluations": np.float32,  # in latents of native size
}
Figures = dict[str, np.ndarray]


def pack(features: Tensor) -> np.ndarray:
    """Features in 0..MOST as bytes; the square root spends them where most values are."""
    return (features / MOST).clamp(0, 1).sqrt().mul(LEVELS).round().byte().numpy()


def unpack(packed: np.ndarray) -> np.ndarray:
    """The features of bytes, float64."""
    return MOST * (packed.astype(np.float64) / LEVELS) ** 2


@lru_cache(maxsize=1)
def _networks():
    from evaluation.features import Lite0
    from evaluation.perceptual import ShiftTolerant

    return Lite0(), ShiftTolerant()


def crops(picture: Tensor, count: int, seed: int) -> Tensor:
    """(count, 3, 256, 256) at places that only the seed and the picture's size choose."""
    from evaluation.images import crops_of

    rng = np.random.default_rng((seed, picture.shape[-1]))
    return crops_of(picture[0], count, NATIVE * CELL, rng)


def features_of(picture: Tensor, count: int, seed: int) -> np.ndarray:
    """Packed features of `crops`."""
    from evaluation.features import resize

    network, _ = _networks()
    return pack(network(resize(crops(picture, count, seed), network.side, network.side)).pooled)


@torch.inference_mode()
def measure(
    picture: Tensor, native: Tensor | None, seed: int, count: int, cost: Cost, compared: bool
) -> Figures:
    """All figures of a picture.

    Args:
        picture: (1, 3, H, W) in 0..1.
        native: the native picture of the seed, (1, 3, 256, 256); None for the reference.
        seed: of the wish.
        count: crops.
        cost: of the picture.
        compared: measure fidelity to the native picture, too; false for other scenes.
    """
    from evaluation.spectrum import radial_spectrum

    asked = wish(seed)
    found = count_objects(picture)[0]
    psnr = lpips = np.nan
    if compared:
        psnr = fidelity(picture, native)
        lpips = float(_networks()[1](picture, native)[0])
    values = {
        "features": features_of(picture, count, seed),
        "spectrum": radial_spectrum(picture[0]).numpy(),
        "seams": line_ratios(picture)[0].numpy(),
        "objects": len(found),
        "right": [(each.kind, each.colour) for each in found] == [(asked.kind, asked.colour)],
        "native_objects": -1 if native is None else native_objects(native),
        "psnr": psnr,
        "lpips": lpips,
        "seconds": cost.seconds,
        "calls": cost.calls,
        "evaluations": cost.evaluations,
    }
    return {name: np.asarray(values[name], kind) for name, kind in FIELDS.items()}


def native_objects(native: Tensor) -> int:
    """Focal objects of a native picture."""
    return len(count_objects(native)[0])
