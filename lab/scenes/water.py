"""The sea: reflected sky, waves that shrink towards the horizon, and glitter below the sun."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .noise import Array, octave2, smoothstep, visible
from .sky import gradient

DEEP = {
    "day": (0.10, 0.27, 0.38),
    "sunset": (0.20, 0.19, 0.30),
    "night": (0.02, 0.05, 0.11),
    "dawn": (0.30, 0.36, 0.46),
}


def waves(frame: Frame, rows: slice) -> tuple[Array, Array]:
    """(h, W) long swell and fine ripples, about -1..1, their cells scaled with the nearness."""
    depth = np.clip(frame.ys[rows] - frame.scene.horizon, 0, None)
    local = 0.62 / (depth + 0.022)
    swell = np.zeros((len(depth), len(frame.xs)), np.float32)
    fine = np.zeros_like(swell)
    for k in range(14):
        freq = 1.5 * 1.8**k
        fy = freq * 5.5
        keep = visible(fy, frame.px)
        if keep <= 0:
            break
        octaves = np.log2(freq / local)
        for out, centre, width in ((swell, 0.0, 0.75), (fine, 2.6, 1.5)):
            amp = keep * np.exp(-(((octaves - centre) / width) ** 2))
            if amp.max() > 0.02:
                out += octave2(
                    frame.xs,
                    frame.ys[rows],
                    freq,
                    fy,
                    frame.scene.seed + 61 * k + 9,
                    rows=(0.6 * amp).astype(np.float32),
                )
    return swell, fine


def paint_water(frame: Frame) -> None:
    scene, light = frame.scene, frame.light
    first = int(np.clip((scene.horizon - frame.ys[0]) / frame.px - 1, 0, len(frame.ys)))
    if first >= len(frame.ys):
        return
    rows = slice(first, None)
    depth = (frame.ys[rows] - scene.horizon).astype(np.float32)
    near = np.clip(depth / (1 - scene.horizon), 0, 1)[:, None]
    swell, fine = waves(frame, rows)
    mirrored = gradient(frame, np.clip(depth * 1.5, 0, 1))[:, None, :]
    deep = np.float32(DEEP[scene.time])
    mix = 0.16 + 0.50 * near + (0.17 * swell + 0.10 * fine) * (0.35 + 0.65 * near)
    colour = mirrored + np.clip(mix, 0, 0.92)[..., None] * (deep - mirrored)
    sx = frame.world_x(scene.sun_x)
    low = scene.time in ("sunset", "dawn")
    width = 0.045 + depth[:, None] * (0.34 if low else 0.50)
    column = np.exp(-(((frame.xs[None] - sx) / width) ** 2)).astype(np.float32)
    sparkle = smoothstep(0.35, 1.25, 0.75 * swell + 0.8 * fine + 0.45 * column)
    strength = {"day": 0.45, "sunset": 0.95, "night": 0.65, "dawn": 0.75}[scene.time]
    shine = column * (0.16 + 0.84 * sparkle) * strength
    colour = colour + np.clip(shine, 0, 1)[..., None] * (light.sun - colour)
    haze = np.exp(-np.clip(depth, 0, None) * 40)[:, None] * 0.30
    colour = colour + haze[..., None] * (light.low - colour)
    cover = np.clip(depth / frame.px + 0.5, 0, 1)[:, None] * np.ones((1, len(frame.xs)), np.float32)
    frame.blend(cover, colour, rows)
