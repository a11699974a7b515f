"""Rendering a view of a scene: background, focal objects, and their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .land import RIDGES, ground_at, paint_ridge
from .noise import Array, fbm1, fbm2, smoothstep
from .objects import DRAW, HALF_WIDTH, Look, Patch
from .scene import WATER_LINE, Focal, Scene
from .sky import paint_sky
from .water import paint_water
from .words import RGB

View = tuple[float, float, float, float]
WHOLE: View = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Render:
    """`image` float32 (H, W, 3) in 0..1; `masks` one float32 (H, W) coverage per focal object."""

    image: Array
    masks: tuple[Array, ...]


@dataclass(frozen=True)
class Placed:
    """A focal object in world coordinates: axis `x`, top `y`, height `size`."""

    focal: Focal
    x: float
    y: float
    size: float

    def box(self) -> tuple[float, float, float, float]:
        """World (x0, y0, x1, y1) around it."""
        half = HALF_WIDTH[self.focal.kind] * self.size
        return self.x - half, self.y, self.x + half, self.y + self.size


def place_object(scene: Scene, focal: Focal, aspect: float) -> Placed:
    """Where the object stands in a picture of this aspect (width / height)."""
    size = focal.height * min(1.0, aspect)
    x = (focal.x - 0.5) * aspect
    middle = focal.y
    if focal.kind in ("lighthouse", "windmill") and scene.setting != "sea":
        foot = ground_at(scene, x) + 0.012 + 0.12 * size + 0.25 * max(0.0, focal.y - scene.horizon)
        middle = foot - 0.5 * size
    else:
        # The foot stays where the full-size object would have it.
        middle += 0.5 * (focal.height - size) if focal.kind != "balloon" else 0.0
    return Placed(focal, x, middle - 0.5 * size, size)


def _window(frame: Frame, box: tuple[float, float, float, float]) -> tuple[slice, slice] | None:
    pad = 1.5 * frame.px
    x0, y0, x1, y1 = box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad
    rows = np.searchsorted(frame.ys, (y0, y1))
    cols = np.searchsorted(frame.xs, (x0, x1))
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        return None
    return slice(*rows), slice(*cols)


def _patch(
    frame: Frame,
    placed: Placed,
    rows: slice,
    cols: slice,
    ys: Array | None = None,
    sway: Array | None = None,
) -> Patch:
    focal = placed.focal
    v = ((frame.ys[rows] if ys is None else ys) - placed.y) / placed.size
    u = (frame.xs[cols] - placed.x) / placed.size
    sign = -1.0 if focal.flip else 1.0
    u, v = np.broadcast_arrays((u * sign)[None].astype(np.float32), v[:, None].astype(np.float32))
    if sway is not None:
        u = u + sway
    look = Look(
        np.float32(RGB[focal.colour]),
        frame.light.thing,
        frame.side * sign,
        frame.light.night,
        focal.variant,
    )
    patch = Patch(u.shape, frame.px / placed.size, look)
    DRAW[focal.kind](u, v, patch)
    return patch


def _rock(frame: Frame, placed: Placed) -> None:
    """The small island that a lighthouse or windmill stands on in the sea."""
    size = placed.size
    foot = placed.y + 0.985 * size
    half, tall = 0.36 * size, 0.055 * size
    water = foot + 0.055 * size
    found = _window(
        frame, (placed.x - half * 1.15, foot - tall, placed.x + half * 1.15, water + 0.03 * size)
    )
    if found is None:
        return
    rows, cols = found
    xs, ys = frame.xs[cols], frame.ys[rows]
    seed = placed.focal.variant % 100003
    q = (xs - placed.x) / half
    rough = fbm1(xs, frame.px, 3.5 / half, seed, gain=0.62)
    crest = np.clip(1 - np.abs(q) ** 2.6, 0, 1)
    top = water - (water - foot + 0.015 * size) * crest - rough * 0.028 * size * np.sqrt(crest)
    bottom = water + 0.018 * size * np.sqrt(crest) * (1 + 0.4 * rough)
    inside = np.minimum(ys[:, None] - top[None], bottom[None] - ys[:, None])
    cover = np.clip(inside / frame.px + 0.5, 0, 1) * (np.abs(q) < 1)[None]
    relief = fbm2(xs, ys, frame.px, 5.0 / half, seed + 3, stretch=1.2, gain=0.66, dx=True)
    shade = smoothstep(-1.0, 1.0, relief * frame.side + 0.5 * q[None] * frame.side)
    shade = shade * (1 - 0.6 * smoothstep(water - 0.02 * size, water, ys)[:, None])
    colour = np.float32((0.17, 0.16, 0.16)) + np.float32((0.36, 0.33, 0.29)) * shade[..., None]
    part = frame.image[rows, cols]
    foam = np.exp(-(((ys[:, None] - bottom[None]) / (0.011 * size)) ** 2)) * np.sqrt(crest)[None]
    foam = foam * 0.5 * (0.6 + 0.4 * rough[None])
    part += np.clip(foam, 0, 1)[..., None].astype(np.float32) * (frame.light.cloud - part)
    tone = frame.light.shadow + (frame.light.land - frame.light.shadow) * np.float32(0.8)
    part += cover[..., None].astype(np.float32) * (colour.astype(np.float32) * tone - part)


def _reflection(frame: Frame, placed: Placed, water: float) -> None:
    """The object upside down in the water, swaying and fading with the depth."""
    x0, _, x1, _ = placed.box()
    reach = 0.62 * placed.size
    found = _window(frame, (x0, water, x1, water + reach))
    if found is None:
        return
    rows, cols = found
    ys = frame.ys[rows]
    sway = fbm1(ys, frame.px, 16 / placed.size, placed.focal.variant % 9973, octaves=3) * 0.035
    depth = (ys - water) / reach
    patch = _patch(
        frame,
        placed,
        rows,
        cols,
        water - (ys - water) * 1.25,
        (sway * np.clip(depth * 3, 0, 1))[:, None].astype(np.float32),
    )
    lines = fbm2(
        frame.xs[cols],
        ys,
        frame.px,
        26 / placed.size,
        placed.focal.variant % 8191,
        stretch=5.0,
        octaves=4,
    )
    fade = np.clip(0.42 * (1 - depth), 0, 1)[:, None] * np.clip(0.75 + 0.5 * lines, 0, 1)
    part = frame.image[rows, cols]
    cover = (patch.alpha * fade * (ys > water)[:, None]).astype(np.float32)
    part += cover[..., None] * (patch.rgb * np.float32(0.72) - part)


def _ground_shadow(frame: Frame, placed: Placed) -> None:
    """A soft dark patch where the object stands, and the shadow it throws."""
    size, foot = placed.size, placed.y + 0.99 * placed.size
    found = _window(
        frame, (placed.x - size, foot - 0.05 * size, placed.x + size, foot + 0.09 * size)
    )
    if found is None:
        return
    rows, cols = found
    u = ((frame.xs[cols] - placed.x) / size)[None]
    v = ((frame.ys[rows] - foot) / size)[:, None]
    away = u + 0.22 * frame.side
    dark = 0.55 * np.exp(-((u / 0.20) ** 2) - ((v / 0.022) ** 2))
    dark = dark + 0.30 * np.exp(-((away / 0.36) ** 2) - (((v - 0.012) / 0.026) ** 2))
    frame.image[rows, cols] *= (1 - np.clip(dark, 0, 0.75))[..., None].astype(np.float32)


def _paint_object(frame: Frame, placed: Placed) -> Array:
    """Paint one object with what belongs to it; its (H, W) coverage."""
    mask = np.zeros(frame.image.shape[:2], np.float32)
    kind, sea = placed.focal.kind, frame.scene.setting == "sea"
    water = placed.y + WATER_LINE * placed.size
    if kind == "boat":
        _reflection(frame, placed, water)
    elif kind != "balloon":
        if sea:
            _reflection(frame, placed, placed.y + 1.035 * placed.size)
            _rock(frame, placed)
        else:
            _ground_shadow(frame, placed)
    found = _window(frame, placed.box())
    if found is None:
        return mask
    rows, cols = found
    patch = _patch(frame, placed, rows, cols)
    alpha = patch.alpha
    if kind == "boat":
        lap = water + 0.004 * placed.size * np.sin(frame.xs[cols] / placed.size * 60)
        alpha = alpha * np.clip((lap[None] - frame.ys[rows, None]) / frame.px + 0.5, 0, 1)
        alpha = alpha.astype(np.float32)
    part = frame.image[rows, cols]
    part += alpha[..., None] * (patch.rgb - part)
    if kind == "lighthouse" and frame.light.night > 0.2:
        _halo(frame, placed.x, placed.y + 0.19 * placed.size, 0.16 * placed.size)
    mask[rows, cols] = alpha
    return mask


def _halo(frame: Frame, x: float, y: float, size: float) -> None:
    found = _window(frame, (x - 3 * size, y - 3 * size, x + 3 * size, y + 3 * size))
    if found is None:
        return
    rows, cols = found
    dx, dy = (frame.xs[cols] - x)[None] / size, (frame.ys[rows] - y)[:, None] / size
    dist = np.hypot(dx, dy)
    glow = np.exp(-dist * 2.2) * np.clip(1 - dist / 3, 0, 1) * 0.65 * frame.light.night
    part = frame.image[rows, cols]
    part += glow[..., None].astype(np.float32) * (np.float32((1.0, 0.90, 0.62)) - part)


def paint_background(frame: Frame) -> None:
    paint_sky(frame)
    for index, ridge in enumerate(RIDGES[frame.scene.setting]):
        paint_ridge(frame, index, ridge)
    if frame.scene.setting == "sea":
        paint_water(frame)


def render(scene: Scene, height: int, width: int, view: View = WHOLE) -> Render:
    """Draw the part `view` (x0, y0, x1, y1; relative) of the scene at this size in pixels.

    The whole picture's aspect ratio follows from the size and the view. Nearer objects cover
    farther ones, in their masks too.
    """
    frame = Frame(scene, height, width, view)
    paint_background(frame)
    placed = [place_object(scene, focal, frame.aspect) for focal in scene.objects]
    masks = [np.zeros((height, width), np.float32) for _ in placed]
    for index in sorted(range(len(placed)), key=lambda i: placed[i].y + placed[i].size):
        cover = _paint_object(frame, placed[index])
        for other in masks:
            other *= 1 - cover
        masks[index] = cover
    np.clip(frame.image, 0, 1, out=frame.image)
    return Render(frame.image, tuple(masks))
