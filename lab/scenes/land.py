"""Land: ridges one behind another, each a 1-D fractal skyline over a shaded, textured surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .noise import Array, fbm1, fbm2, hash_unit, octave2, smoothstep, visible


@dataclass(frozen=True)
class Ridge:
    """A skyline and its surface; lengths in picture heights, `drop` from the horizon down."""

    drop: float
    rise: float
    freq: float
    haze: float
    dark: tuple[float, float, float]
    light: tuple[float, float, float]
    surface: str
    ridged: bool = False
    gain: float = 0.5
    trees: float = 0.0


GRASS = ((0.20, 0.27, 0.13), (0.44, 0.50, 0.25))
PINE = ((0.07, 0.13, 0.11), (0.20, 0.29, 0.20))
RIDGES: dict[str, tuple[Ridge, ...]] = {
    "mountains": (
        Ridge(-0.04, 0.17, 1.7, 0.62, (0.27, 0.28, 0.33), (0.60, 0.58, 0.57), "snow", True, 0.48),
        Ridge(0.03, 0.15, 2.1, 0.34, (0.23, 0.23, 0.27), (0.56, 0.53, 0.50), "snow", True, 0.48),
        Ridge(0.10, 0.05, 2.3, 0.22, *PINE, "forest", trees=0.022),
        Ridge(0.18, 0.035, 1.3, 0.05, (0.20, 0.27, 0.15), (0.44, 0.50, 0.29), "grass"),
    ),
    "hills": (
        Ridge(-0.02, 0.10, 1.9, 0.66, (0.25, 0.32, 0.28), (0.42, 0.48, 0.38), "grass", gain=0.36),
        Ridge(
            0.04,
            0.10,
            2.1,
            0.40,
            (0.15, 0.22, 0.13),
            (0.34, 0.42, 0.22),
            "grass",
            gain=0.30,
            trees=0.006,
        ),
        Ridge(0.10, 0.10, 1.8, 0.18, *GRASS, "grass", gain=0.26),
        Ridge(0.18, 0.07, 1.4, 0.03, *GRASS, "grass", gain=0.24),
    ),
    "desert": (
        Ridge(-0.01, 0.05, 2.0, 0.60, (0.42, 0.32, 0.26), (0.66, 0.52, 0.41), "rock", True, 0.5),
        Ridge(0.04, 0.09, 2.0, 0.38, (0.48, 0.36, 0.26), (0.78, 0.63, 0.46), "dune", True, 0.30),
        Ridge(0.11, 0.11, 1.7, 0.18, (0.50, 0.37, 0.26), (0.84, 0.68, 0.49), "dune", True, 0.28),
        Ridge(0.20, 0.10, 1.3, 0.03, (0.50, 0.36, 0.25), (0.87, 0.71, 0.52), "dune", True, 0.26),
    ),
    "sea": (
        Ridge(-0.004, 0.035, 1.6, 0.70, (0.28, 0.31, 0.34), (0.46, 0.47, 0.46), "rock", True, 0.5),
    ),
    "forest": (
        Ridge(
            -0.04, 0.09, 1.5, 0.64, (0.16, 0.22, 0.22), (0.32, 0.38, 0.34), "forest", trees=0.012
        ),
        Ridge(0.01, 0.06, 1.7, 0.42, *PINE, "forest", trees=0.024),
        Ridge(0.08, 0.05, 1.6, 0.20, *PINE, "forest", trees=0.042),
        Ridge(0.18, 0.03, 1.2, 0.03, (0.20, 0.26, 0.13), (0.42, 0.47, 0.25), "grass"),
    ),
}


def skyline(
    frame_seed: int, horizon: float, index: int, ridge: Ridge, xs: Array, px: float
) -> Array:
    """(n,) world Y of the ridge's ground at world `xs`, without its trees."""
    seed = frame_seed * 31 + 17 * index + 1000
    shape = fbm1(xs, px, ridge.freq, seed, gain=ridge.gain, ridged=ridge.ridged)
    if ridge.surface == "dune":
        shape = 0.75 * shape
    line = horizon + ridge.drop - ridge.rise * (0.25 + 0.75 * shape)
    if ridge.drop < 0 and ridge.surface == "rock" and ridge.rise < 0.04:
        # Far islands: only what stands above the water line is land.
        line = np.minimum(line + 0.016, horizon + 0.001)
    return line


def _trees(xs: Array, px: float, seed: int, size: float) -> Array:
    """(n,) height of a line of conifers, as a part of a height: jagged, of uneven trees."""
    out = np.zeros(len(xs), np.float32)
    for layer, (pitch, tall) in enumerate(((0.55, 1.0), (0.38, 0.75))):
        step = size * pitch
        cell = np.floor(xs / step)
        for near in (-1, 0, 1):
            c = cell + near
            centre = (c + 0.5 + 0.35 * hash_unit(seed + layer, c)) * step
            height = size * tall * (0.75 + 0.35 * hash_unit(seed + 7 + layer, c))
            away = np.abs(xs - centre)
            # The boughs: a saw-tooth along the slope, where pixels are small enough to show it.
            teeth = 0.0
            if px < size * 0.05:
                teeth = size * 0.05 * (np.abs((away / size * 22) % 1 - 0.5) - 0.25)
            out = np.maximum(out, height - away * 3.4 + teeth)
    return out.astype(np.float32)


def _surface(frame: Frame, index: int, ridge: Ridge, seed: int, line: Array, rows: slice) -> Array:
    """(h, W, 3) colour of the ridge's ground before haze."""
    xs, ys, px, light = frame.xs, frame.ys[rows], frame.px, frame.light
    below = (ys[:, None] - line[None]).astype(np.float32)
    dark, bright = np.float32(ridge.dark), np.float32(ridge.light)
    side = np.float32(frame.side)
    near = 1.0 - ridge.haze
    if ridge.surface in ("snow", "rock"):
        relief = fbm2(xs, ys, px, 9.0, seed, stretch=0.70, gain=0.80, dx=True)
        facing = -_flank(frame, index, ridge, below, 0.5 * side, 0.02 * relief) * side
        facing *= np.exp(-below * 6)
        shade = smoothstep(-1.1, 1.1, 1.1 * relief * side + 1.2 * facing)
        colour = dark + (bright - dark) * shade[..., None]
        if ridge.surface == "snow":
            ground = fbm2(xs, ys, px, 12.0, seed + 50, stretch=0.7, gain=0.72)
            deep = below - 0.085 * (0.6 + near)
            white = smoothstep(0.030, -0.030, deep + 0.075 * ground + 0.07 * (0.5 - shade))
            snow = np.float32((0.31, 0.26, 0.17)) * shade[..., None]
            snow = snow + np.float32((0.66, 0.72, 0.82))
            colour = colour + white[..., None] * (snow - colour)
    elif ridge.surface == "dune":
        ripple = np.zeros_like(below)
        for k in range(3):
            freq = 26.0 * 2**k
            keep = visible(freq * 2.2, px)
            if keep > 0:
                ripple += octave2(xs + 0.15, ys, freq * 0.5, freq * 2.2, seed + k) * np.float32(
                    keep * 0.5
                )
        grain = fbm2(xs, ys, px, 150.0, seed + 9, gain=0.7)
        big = fbm2(xs, ys, px, 2.6, seed + 4, stretch=2.5, octaves=3, dx=True) * side
        bend = 0.07 * big * np.minimum(below * 12, 1)
        flank = _flank(frame, index, ridge, below, 1.1 * side, bend)
        flank = smoothstep(-0.28, 0.28, -flank * side) * np.exp(-below * 4.5)
        shade = np.clip(0.30 + 0.55 * flank + 0.28 * big + 0.05 * ripple + 0.04 * grain, 0, 1)
        colour = dark + (bright - dark) * shade[..., None]
    elif ridge.surface == "forest":
        size = max(ridge.trees, 0.01)
        crowns = fbm2(xs, ys, px, 0.9 / size, seed, stretch=0.5, gain=0.75)
        gaps = fbm2(xs, ys, px, 5.0, seed + 5, stretch=2.0, octaves=3)
        shade = np.clip(0.42 + 0.40 * crowns + 0.25 * gaps - below * 0.8, 0, 1)
        colour = dark + (bright - dark) * shade[..., None]
    else:
        patches = fbm2(xs, ys, px, 4.0, seed, stretch=2.6, gain=0.5, octaves=5)
        blades = fbm2(xs, ys, px, 85.0, seed + 3, stretch=0.6, gain=0.85)
        shade = np.clip(
            0.56
            + 0.34 * patches
            + 0.20 * blades * near
            - 0.75 * below
            + 0.10 * np.exp(-below * 30),
            0,
            1,
        )
        colour = dark + (bright - dark) * shade[..., None]
        dry = smoothstep(0.1, 0.7, fbm2(xs, ys, px, 3.0, seed + 6, stretch=3.0, octaves=3))
        colour = colour + (dry * 0.22)[..., None] * (np.float32((0.48, 0.44, 0.27)) - colour)
    tone = light.shadow + (light.land - light.shadow) * np.float32(0.8)
    return colour * tone


def _flank(frame: Frame, index: int, ridge: Ridge, below: Array, lean: float, bend: Array) -> Array:
    """(h, W) slope of the skyline above each point, followed down along lines that `lean`.

    `bend` (h, W) makes those lines wander. It is sampled beyond the view, and on a scale of its
    own, so that every view of the ridge is lit alike.
    """
    scene, step = frame.scene, 0.005
    reach = 0.1 + 1.2 * abs(lean)
    first = np.floor((frame.xs[0] - reach) / step)
    last = np.ceil((frame.xs[-1] + reach) / step)
    xs = np.arange(first, last + 1) * step
    line = skyline(scene.seed, scene.horizon, index, ridge, xs, 0.008)
    slope = np.gradient(line, step)
    at = frame.xs[None].astype(np.float32) + lean * below + bend
    place = np.clip((at - xs[0]) / step, 0, len(xs) - 2)
    cell = place.astype(np.int32)
    part = place - cell
    return (slope[cell] * (1 - part) + slope[cell + 1] * part).astype(np.float32)


def paint_ridge(frame: Frame, index: int, ridge: Ridge) -> None:
    scene, px = frame.scene, frame.px
    line = skyline(scene.seed, scene.horizon, index, ridge, frame.xs, px)
    top = line
    if ridge.trees:
        top = line - _trees(frame.xs, px, scene.seed + 77 * index, ridge.trees)
    first = int(np.clip((top.min() - frame.ys[0]) / px - 1, 0, len(frame.ys)))
    rows = slice(first, None)
    if first >= len(frame.ys):
        return
    cover = np.clip((frame.ys[rows, None] - top[None]) / px + 0.5, 0, 1).astype(np.float32)
    colour = _surface(frame, index, ridge, scene.seed * 7 + 200 * index, line, rows)
    # Haze thickens with distance and gathers in the valleys.
    mist = ridge.haze * (0.82 + 1.6 * np.clip(frame.ys[rows, None] - line[None] - 0.01, 0, 0.12))
    air = frame.light.low * 0.75 + frame.light.middle * 0.25
    colour = colour + np.clip(mist, 0, 0.95).astype(np.float32)[..., None] * (air - colour)
    frame.blend(cover, colour, rows)


def ground_at(scene, x: float) -> float:
    """World Y of the foreground's skyline at world `x`."""
    ridges = RIDGES[scene.setting]
    index = len(ridges) - 1
    xs = np.asarray([x], np.float64)
    return float(skyline(scene.seed, scene.horizon, index, ridges[index], xs, 0.004)[0])
