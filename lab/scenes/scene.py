"""What a scene is: its parameters, and how one is drawn at random from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .words import COLOURS, KINDS, SETTINGS, SETTINGS_OF_KIND, TIMES

WATER_LINE = 0.93
"""Where the water cuts a boat, as a part of its height from its top."""


@dataclass(frozen=True)
class Focal:
    """One focal object.

    `x`, `y`: its centre in relative picture coordinates (`y` of a standing object is only a hint:
    the renderer puts it on its ground). `height` is its part of the picture's height (of its width,
    where the picture is narrower than high). `variant` seeds its small differences; `flip` mirrors
    it.
    """

    kind: str
    colour: str
    x: float
    y: float
    height: float
    variant: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Scene:
    """A whole picture's parameters; `sun_x`, `sun_y`, `horizon` are relative, `clouds` is 0..1."""

    seed: int
    time: str
    setting: str
    horizon: float
    sun_x: float
    sun_y: float
    clouds: float
    objects: tuple[Focal, ...] = ()


def _focal(
    rng: np.random.Generator, kind: str, colour: str, height: float, horizon: float, margin: float
) -> Focal:
    half = 0.5 * height
    x = float(rng.uniform(margin, 1 - margin))
    depth = float(rng.random())
    if kind == "balloon":
        low = max(horizon + 0.08 - half, half + 0.05)
        y = (half + 0.03) + depth * (low - half - 0.03)
    elif kind == "boat":
        y = horizon + 0.05 + depth * 0.20 - height * (WATER_LINE - 0.5)
    else:
        y = horizon + 0.04 + depth * 0.16 - half
    return Focal(kind, colour, x, y, height, int(rng.integers(1 << 30)), bool(rng.random() < 0.5))


def random_scene(
    seed: int,
    *,
    kinds: tuple[str, ...] = KINDS,
    time: str | None = None,
    setting: str | None = None,
    kind: str | None = None,
    colour: str | None = None,
    n_objects: int = 1,
    object_scale: tuple[float, float] = (1.0, 1.0),
) -> Scene:
    """A scene drawn from `seed`; any named part can be fixed.

    With one object its height is 0.28..0.42 of the picture, times a factor from `object_scale`
    (drawn log-uniformly). Further objects are each of a kind and colour of their own, spread so
    that they hardly overlap. A `setting` that a fixed `kind` cannot stand in is an error.
    """
    rng = np.random.default_rng([seed, 7919])
    wanted = (kind,) if kind else tuple(kinds)
    if setting is not None:
        wanted = tuple(k for k in wanted if setting in SETTINGS_OF_KIND[k])
        if not wanted and n_objects:
            raise ValueError(f"no object of {kind or kinds} can stand in the setting {setting!r}")
    first = str(rng.choice(wanted)) if wanted else ""
    pick = float(rng.random())
    if setting is None:
        options = SETTINGS_OF_KIND[first] if first and n_objects else SETTINGS
        setting = options[int(pick * len(options))]
    pick = float(rng.random())
    time = time or TIMES[int(pick * len(TIMES))]
    horizon = float(rng.uniform(0.56, 0.66))
    low_sun = time in ("sunset", "dawn")
    sun_x = float(rng.uniform(0.12, 0.88))
    sun_y = horizon - float(rng.uniform(0.06, 0.16) if low_sun else rng.uniform(0.34, 0.50))
    clouds = float(rng.uniform(0.0, 1.0))

    objects: list[Focal] = []
    allowed = [k for k in wanted if setting in SETTINGS_OF_KIND[k]]
    for index in range(n_objects):
        for _ in range(12):
            this = first if index == 0 else str(rng.choice(allowed))
            tint = colour or str(rng.choice(COLOURS))
            lo, hi = np.log(object_scale)
            height = float(rng.uniform(0.28, 0.42) * np.exp(rng.uniform(lo, hi)))
            focal = _focal(rng, this, tint, height, horizon, max(0.06, 0.45 * height))
            if all(_apart(focal, other) for other in objects):
                objects.append(focal)
                break
    return Scene(seed, time, setting, horizon, sun_x, sun_y, clouds, tuple(objects))


def _apart(a: Focal, b: Focal) -> bool:
    reach = 0.5 * (a.height + b.height)
    return abs(a.x - b.x) > 0.8 * reach or abs(a.y - b.y) > 1.05 * reach
