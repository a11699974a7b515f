"""Sky: gradient, glow, sun or moon, stars and clouds."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .noise import Array, fbm2, hash_unit, smoothstep


def gradient(frame: Frame, height: Array) -> Array:
    """(n, 3) sky colour at heights 0 (horizon) .. 1 (zenith)."""
    light = frame.light
    t = np.clip(height, 0, 1)[:, None].astype(np.float32)
    a, b = smoothstep(0.0, 0.45, t), smoothstep(0.30, 1.05, t)
    colour = light.low + (light.middle - light.low) * a
    return colour + (light.zenith - colour) * b


def cloud_cover(frame: Frame) -> tuple[Array, Array]:
    """(H, W) density 0..1 and light 0..1 of the clouds."""
    scene = frame.scene
    # Squeezing rows towards the horizon makes the clouds recede, and keeps the noise separable.
    ys = -0.42 * np.sqrt(np.clip(scene.horizon + 0.02 - frame.ys, 0, None) + 0.03)
    px = frame.px * 0.8
    base = fbm2(frame.xs, ys * 3.2, px, 3.4, scene.seed + 11, stretch=1.9, gain=0.52)
    lit = fbm2(
        frame.xs + 0.03 * frame.side,
        ys * 3.2 - 0.045,
        px,
        3.4,
        scene.seed + 11,
        stretch=1.9,
        gain=0.52,
        octaves=4,
    )
    near = fbm2(frame.xs, ys * 3.2, px, 3.4, scene.seed + 11, stretch=1.9, gain=0.52, octaves=4)
    level = 0.80 - 1.0 * scene.clouds
    density = smoothstep(level, level + 0.85, base)
    return density, np.clip(0.55 + 0.9 * (near - lit) - 0.25 * (density - 0.5), 0, 1)


def paint_sky(frame: Frame) -> None:
    scene, light = frame.scene, frame.light
    rise = (scene.horizon - frame.ys) / scene.horizon
    rows = gradient(frame, rise)
    frame.image[:] = rows[:, None, :]
    sx, sy = frame.world_x(scene.sun_x), scene.sun_y
    dx, dy = (frame.xs - sx)[None].astype(np.float32), (frame.ys - sy)[:, None].astype(np.float32)
    dist = np.sqrt(dx * dx + dy * dy)
    if scene.time == "night":
        _stars(frame)
    strength = {"day": 0.30, "sunset": 0.75, "night": 0.22, "dawn": 0.60}[scene.time]
    wide = np.exp(-dist * 3.2) * 0.75 + np.exp(-dist * 13) * 0.55
    frame.blend(np.clip(wide * strength, 0, 1), light.sun)
    radius = 0.030 if scene.time in ("day", "night") else 0.036
    disc = np.clip(0.5 + (radius - dist) / frame.px, 0, 1)
    colour = light.sun * 0.35 + np.float32(0.65)
    if scene.time == "night":
        box = dist < radius + 2 * frame.px
        if box.any():
            spots = fbm2(frame.xs, frame.ys, frame.px, 45.0, scene.seed + 5, octaves=4)
            colour = (light.sun - (0.10 * smoothstep(-0.1, 0.6, spots))[..., None]).clip(0, 1)
    frame.blend(disc, colour)
    density, lit = cloud_cover(frame)
    near_sun = np.exp(-dist * 4.0)[..., None] * 0.6
    tone = light.cloud_dark + (light.cloud - light.cloud_dark) * lit[..., None]
    tone = tone + near_sun * (light.sun - tone) * lit[..., None]
    fade = smoothstep(0.0, 0.14, rise)[:, None].astype(np.float32)
    frame.blend(density * 0.88 * fade, tone)


def _stars(frame: Frame) -> None:
    """Stars, a few to each lattice cell: small discs, never smaller than the pixel footprint."""
    for layer, (cells, keep, size) in enumerate(
        ((7.0, 0.55, 0.0022), (15.0, 0.50, 0.0013), (34.0, 0.55, 0.0007))
    ):
        seed = frame.scene.seed + 300 + layer
        i = np.arange(np.floor(frame.ys[0] * cells), np.floor(frame.ys[-1] * cells) + 1)
        j = np.arange(np.floor(frame.xs[0] * cells), np.floor(frame.xs[-1] * cells) + 1)
        i, j = (a.ravel() for a in np.meshgrid(i, j, indexing="ij"))
        there = hash_unit(seed, i, j) * 0.5 + 0.5 < keep
        i, j = i[there], j[there]
        y = (i + hash_unit(seed + 10, i, j) * 0.45 + 0.5) / cells
        x = (j + hash_unit(seed + 20, i, j) * 0.45 + 0.5) / cells
        power = 0.25 + 0.75 * (hash_unit(seed + 30, i, j) * 0.5 + 0.5) ** 2
        warm = hash_unit(seed + 40, i, j)
        sigma = np.hypot(size, 0.45 * frame.px)
        gain = power * (size / sigma) ** 2 * 1.15
        reach = int(np.ceil(3 * sigma / frame.px))
        row = np.round((y - frame.ys[0]) / frame.px).astype(int)
        col = np.round((x - frame.xs[0]) / frame.px).astype(int)
        height, width = frame.image.shape[:2]
        span = np.arange(-reach, reach + 1)
        rr = row[:, None, None] + span[None, :, None]
        cc = col[:, None, None] + span[None, None, :]
        ok = (rr >= 0) & (rr < height) & (cc >= 0) & (cc < width)
        r, c = np.clip(rr, 0, height - 1), np.clip(cc, 0, width - 1)
        d2 = (frame.ys[r] - y[:, None, None]) ** 2 + (frame.xs[c] - x[:, None, None]) ** 2
        value = np.exp(-d2 / (2 * sigma**2)) * gain[:, None, None] * ok
        tint = np.stack([1 + 0.12 * warm, np.ones_like(warm), 1 - 0.12 * warm], -1)
        light = (value[..., None] * tint[:, None, None]).astype(np.float32)
        np.add.at(frame.image, (np.broadcast_to(r, ok.shape), np.broadcast_to(c, ok.shape)), light)
    np.clip(frame.image, 0, 1, out=frame.image)
