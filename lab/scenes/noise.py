"""Band-limited lattice noise.

Every octave is a cubic B-spline over an integer lattice of hashed values. The spline is separable,
so an octave of an H x W picture is two small matrix products, and because the lattice is addressed
by integers, any view of a picture sees the same noise. Octaves fade out as their cells shrink
towards the pixel, so a larger picture shows more detail and a smaller one shows no aliasing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Standard deviations of the raw spline noise (uniform lattice values in -1..1), to normalise it.
_STD_1D = 0.40
_STD_2D = 0.277
_STD_DX = 0.33


def smoothstep(lo: float, hi: float, x):
    """Hermite step from 0 at `lo` to 1 at `hi` (either order), elementwise."""
    t = np.clip((x - lo) / (hi - lo), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def hash_unit(seed: int, i, j=0) -> Array:
    """Pseudo-random float32 in -1..1 for integer lattice points (broadcasts `i` with `j`)."""
    i = np.asarray(i, np.int64).astype(np.uint64)
    j = np.asarray(j, np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):
        h = i * np.uint64(0x9E3779B97F4A7C15) ^ j * np.uint64(0xC2B2AE3D27D4EB4F)
        h = h ^ np.uint64((seed * 0x165667B19E3779F9 + 0x27220A95) & 0xFFFFFFFFFFFFFFFF)
        h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
        h = h ^ (h >> np.uint64(31))
    return ((h >> np.uint64(40)).astype(np.float32)) * np.float32(2.0 / (1 << 24)) - np.float32(1)


def _basis(coords: Array, freq: float, offset: float, derivative: bool) -> tuple[Array, int]:
    """Dense (n, g) spline weights on a lattice of `freq` cells per unit, and its first index."""
    c = np.asarray(coords, np.float64) * freq + offset
    cell = np.floor(c).astype(np.int64)
    t = (c - cell).astype(np.float32)
    lo = int(cell.min()) - 1
    out = np.zeros((len(c), int(cell.max()) + 3 - lo), np.float32)
    s = 1 - t
    if derivative:
        taps = (-s * s / 2, (3 * t * t - 4 * t) / 2, (-3 * t * t + 2 * t + 1) / 2, t * t / 2)
    else:
        t3, s3 = t * t * t, s * s * s
        taps = (s3 / 6, (4 - 6 * t * t + 3 * t3) / 6, (4 - 6 * s * s + 3 * s3) / 6, t3 / 6)
    rows = np.arange(len(c))
    for k, tap in enumerate(taps):
        out[rows, cell - 1 + k - lo] = tap
    return out, lo


def visible(freq: float, px: float) -> float:
    """How much of an octave of `freq` cells per unit survives pixels of size `px`: 0..1."""
    return float(smoothstep(1.0, 2.5, 1.0 / (freq * px)))


def octave1(xs: Array, freq: float, seed: int) -> Array:
    """(n,) unit-variance smooth noise of `freq` cells per unit."""
    w, lo = _basis(xs, freq, (seed % 97) * 0.173, False)
    return w @ hash_unit(seed, np.arange(lo, lo + w.shape[1])) / np.float32(_STD_1D)


def octave2(
    xs: Array,
    ys: Array,
    fx: float,
    fy: float,
    seed: int,
    rows: Array | None = None,
    dx: bool = False,
) -> Array:
    """(H, W) unit-variance noise with `fx`, `fy` cells per unit.

    `rows` (H,) scales each row; `dx` gives the horizontal derivative per cell instead.
    """
    wx, ix = _basis(xs, fx, (seed % 89) * 0.191, dx)
    wy, iy = _basis(ys, fy, (seed % 83) * 0.217, False)
    if rows is not None:
        wy = wy * rows[:, None]
    grid = hash_unit(
        seed, np.arange(iy, iy + wy.shape[1])[:, None], np.arange(ix, ix + wx.shape[1])[None]
    )
    scale = np.float32(1 / (_STD_DX if dx else _STD_2D))
    return (wy * scale) @ grid @ wx.T


def fbm1(
    xs: Array,
    px: float,
    freq: float,
    seed: int,
    octaves: int = 12,
    gain: float = 0.5,
    ridged: bool = False,
) -> Array:
    """(n,) fractal noise, about -1..1; `ridged` folds it into sharp crests at its top."""
    out = np.zeros(len(xs), np.float32)
    amp, norm = 1.0, 0.0
    for k in range(octaves):
        norm += amp
        keep = visible(freq, px)
        if keep <= 0:
            break
        n = octave1(xs, freq, seed + 101 * k) * 0.55
        if ridged and k < 3:
            n = 0.9 - 2.0 * np.abs(n)
        out += np.float32(amp * keep) * n
        amp *= gain
        freq *= 1.97
    return out


def fbm2(
    xs: Array,
    ys: Array,
    px: float,
    freq: float,
    seed: int,
    stretch: float = 1.0,
    octaves: int = 12,
    gain: float = 0.5,
    dx: bool = False,
) -> Array:
    """(H, W) fractal noise, about -1..1. `stretch` > 1 lengthens its features horizontally."""
    out = np.zeros((len(ys), len(xs)), np.float32)
    amp = 1.0
    for k in range(octaves):
        keep = visible(freq, px) * visible(freq / stretch, px)
        if keep <= 0:
            break
        out += octave2(xs, ys, freq / stretch, freq, seed + 101 * k, dx=dx) * np.float32(
            0.55 * amp * keep
        )
        amp *= gain
        freq *= 1.97
    return out
