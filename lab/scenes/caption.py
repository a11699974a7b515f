"""What a view of a scene shows, in plain words: never what is outside it, nor how far it zooms."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .land import RIDGES, skyline
from .objects import DRAW, Look, Patch
from .render import WHOLE, View, place_object
from .scene import Focal, Scene
from .sky import cloud_cover
from .words import (
    GROUND_WORDS,
    KIND_WORDS,
    SETTING_WORDS,
    SKY_WORDS,
    TIME_WORDS,
    place,
)

SEEN = 0.30
"""A named object has at least this part of its area in the view ..."""
FILLS = 0.08
"""... or fills this much of the view."""
BARELY = 0.02
"""An object is not there at all where less than this of its area (and of the view) is in view."""


def visible_share(
    scene: Scene, focal: Focal, view: View = WHOLE, aspect: float = 1.0
) -> tuple[float, float]:
    """The part of the object's area that is in the view, and the part of the view it fills."""
    placed = place_object(scene, focal, aspect)
    x0, y0, x1, y1 = placed.box()
    n = 40
    xs, ys = x0 + (np.arange(n) + 0.5) / n * (x1 - x0), y0 + (np.arange(n) + 0.5) / n * (y1 - y0)
    u, v = np.broadcast_arrays(
        ((xs - placed.x) / placed.size)[None].astype(np.float32),
        ((ys - placed.y) / placed.size)[:, None].astype(np.float32),
    )
    sign = -1 if focal.flip else 1
    one = np.ones(3, np.float32)
    patch = Patch(u.shape, 1 / n, Look(one, one, 1.0, 0.0, focal.variant))
    DRAW[focal.kind](u * np.float32(sign), v, patch)
    alpha = patch.alpha
    inside_x = (xs >= (view[0] - 0.5) * aspect) & (xs < (view[2] - 0.5) * aspect)
    inside_y = (ys >= view[1]) & (ys < view[3])
    inside = float((alpha * inside_x[None] * inside_y[:, None]).sum())
    cell = (x1 - x0) * (y1 - y0) / (n * n)
    room = (view[2] - view[0]) * aspect * (view[3] - view[1])
    return inside / max(float(alpha.sum()), 1e-6), inside * cell / room


def _sky_share(scene: Scene, view: View, aspect: float) -> float:
    """The part of the view that is sky (objects aside)."""
    xs = (np.linspace(view[0], view[2], 48) - 0.5) * aspect
    top = np.full(48, scene.horizon)
    for index, ridge in enumerate(RIDGES[scene.setting]):
        line = skyline(scene.seed, scene.horizon, index, ridge, xs, 0.006) - 0.6 * ridge.trees
        top = np.minimum(top, line)
    return float(np.clip((top - view[1]) / (view[3] - view[1]), 0, 1).mean())


def _cloudy(scene: Scene, view: View, aspect: float) -> bool:
    """Whether clouds are worth a word in what the view has of the sky."""
    frame = Frame(scene, 24, max(8, int(24 * aspect)), view)
    density, _ = cloud_cover(frame)
    rows = frame.ys < scene.horizon - 0.08
    return bool(rows.any()) and float(density[rows].mean()) > 0.18


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def background_caption(scene: Scene, view: View, aspect: float, rng: np.random.Generator) -> str:
    """The words for a view without a focal object."""
    sky = _sky_share(scene, view, aspect)
    when = TIME_WORDS[scene.time][int(rng.integers(2))]
    form = int(rng.integers(3))
    if sky > 0.93:
        word = SKY_WORDS[scene.time][int(rng.integers(2))]
        if _cloudy(scene, view, aspect):
            return (f"{word} with clouds", f"clouds in {_a(word)}", f"{_a(word)} with clouds")[form]
        return (f"clear {word}", f"a clear {word}", f"{word}")[form]
    if sky < 0.07:
        ground = GROUND_WORDS[scene.setting][int(rng.integers(2))]
    else:
        ground = SETTING_WORDS[scene.setting]
    return f"{when}, {ground}" if form == 2 else f"{ground} {when}"


def caption(
    scene: Scene, view: View = WHOLE, rng: np.random.Generator | None = None, aspect: float = 1.0
) -> str | None:
    """What the view shows; None where a focal object is there, but too little of it to name.

    `aspect` is the whole picture's width / height. Templates vary with `rng` (fixed without).
    """
    rng = rng or np.random.default_rng(0)
    named = []
    for focal in scene.objects:
        part, fills = visible_share(scene, focal, view, aspect)
        if part >= SEEN or fills >= FILLS:
            named.append((fills, focal))
        elif part >= BARELY or fills >= 0.002:
            return None
    if not named:
        return background_caption(scene, view, aspect, rng)
    named.sort(key=lambda pair: -pair[0])
    things = " and ".join(f"a {f.colour} {KIND_WORDS[f.kind]}" for _, f in named[:2])
    first = named[0][1]
    sky = _sky_share(scene, view, aspect)
    when = TIME_WORDS[scene.time][int(rng.integers(2))]
    if first.kind == "balloon" and sky > 0.90:
        return f"{things} in {_a(SKY_WORDS[scene.time][int(rng.integers(2))])}"
    where = place(first.kind, scene.setting)
    if first.kind != "balloon" and sky > 0.97:
        return f"{things} {when}"
    return f"{when}, {things} {where}" if rng.random() < 0.3 else f"{things} {where} {when}"
