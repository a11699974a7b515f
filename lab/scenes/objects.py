"""The focal objects: each draws itself in coordinates where its height is 1.

`u` runs to the right from the object's axis, `v` down from its top (0) to its foot (1). Shapes are
signed distances, so that an edge is soft over exactly one pixel footprint `p` at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .noise import Array, hash_unit, smoothstep


@dataclass
class Look:
    """How the object is coloured and lit: `base` is its colour, `side` -1/1 where light is."""

    base: Array
    tint: Array
    side: float
    night: float
    variant: int

    def pick(self, index: int) -> float:
        """The object's own random number in 0..1."""
        return float(hash_unit(self.variant, index) * 0.5 + 0.5)

    @property
    def light(self) -> Array:
        return self.base + (1 - self.base) * np.float32(0.34)

    @property
    def dark(self) -> Array:
        return self.base * np.float32(0.66)


class Patch:
    """A small RGBA picture that shapes are painted on, back to front."""

    def __init__(self, shape: tuple[int, int], p: float, look: Look) -> None:
        self.rgb = np.zeros((*shape, 3), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.p = np.float32(p)
        self.look = look

    def cover(self, distance: Array) -> Array:
        """Coverage of the shape with this signed distance (negative inside)."""
        return np.clip(0.5 - distance / self.p, 0, 1)

    def fill(self, cover: Array, colour, shade=None, glow: bool = False) -> None:
        """Paint `colour` (3,) or (H, W, 3) times `shade` (H, W) by `cover`; `glow`: unlit."""
        colour = np.asarray(colour, np.float32)
        if not glow:
            colour = colour * self.look.tint
        if shade is not None:
            colour = colour * shade[..., None]
        self.rgb += cover[..., None] * (colour - self.rgb)
        self.alpha += cover * (1 - self.alpha)


def _box(u, v, cu, cv, hu, hv):
    return np.maximum(np.abs(u - cu) - hu, np.abs(v - cv) - hv)


def _segment(u, v, a, b, width):
    du, dv = b[0] - a[0], b[1] - a[1]
    t = np.clip(((u - a[0]) * du + (v - a[1]) * dv) / (du * du + dv * dv), 0, 1)
    return np.hypot(u - a[0] - t * du, v - a[1] - t * dv) - width


def _edge(u, v, a, b):
    """Signed distance to the line a-b, positive on its right side going from a to b (v down)."""
    du, dv = b[0] - a[0], b[1] - a[1]
    return ((v - a[1]) * du - (u - a[0]) * dv) / np.float32(-np.hypot(du, dv))


def _stripe(t, width):
    """Soft square wave of period 1 in `t`, 0..1, with a footprint of `width` periods."""
    inside = 0.25 - np.abs(t - np.floor(t) - 0.5)
    return 0.5 + np.clip(inside / np.maximum(width, 1e-4), -0.5, 0.5)


def _round(q, side: float):
    """Brightness across a cylinder, `q` in -1..1 from its left to its right edge."""
    q = np.clip(q, -1, 1)
    facing = q * np.float32(0.66 * side) + np.sqrt(1 - q * q) * np.float32(0.75)
    return np.float32(0.46) + np.float32(0.62) * np.clip(facing, 0, 1)


def balloon(u: Array, v: Array, patch: Patch) -> None:
    look, p = patch.look, patch.p
    wide, mid, mouth = 0.325, 0.335, 0.79
    s = np.clip((v - mid) / (mouth - mid), 0, 1)
    lower = wide * np.cos(s * 1.36)
    upper = wide * np.sqrt(np.clip(1 - ((v - mid) / mid) ** 2, 0, 1))
    radius = np.maximum(np.where(v < mid, upper, lower), 1e-3)
    slope = wide * 1.36 / (mouth - mid) * np.sin(s * 1.36)
    top = (np.hypot(u / wide, (v - mid) / mid) - 1) * 0.33
    low = np.maximum((np.abs(u) - lower) / np.sqrt(1 + slope * slope), v - mouth)
    q = np.clip(u / radius, -0.999, 0.999)
    theta = np.arcsin(q)
    rim = np.sqrt(1 - q * q)
    count = 6 + int(look.pick(1) * 4)
    foot = p * count / (2 * np.pi * radius * np.maximum(rim, 0.05))
    gore = _stripe(theta * count / (2 * np.pi) * 2 + look.pick(2), 2 * foot)[..., None]
    cloth = look.base * (1 - gore) + look.light * gore
    if look.pick(3) < 0.6:
        at = 0.30 + 0.2 * look.pick(4)
        band = patch.cover(np.abs(v - at - 0.035 * rim) - 0.045)[..., None]
        cloth = cloth + band * (look.dark * 0.9 + gore * look.dark * 0.25 - cloth)
    crown = patch.cover(v - 0.075 - 0.02 * rim)[..., None]
    cloth = cloth + crown * (look.dark - cloth)
    seam = np.abs((theta * count / np.pi + look.pick(2) - 0.25) * 2 % 1 - 0.5)
    crease = 1 - 0.10 * smoothstep(0.36, 0.5, seam) * np.clip(1 - 3 * foot, 0, 1)
    up = (mid - v) * 1.1
    facing = q * 0.62 * look.side + rim * 0.62 + up * 0.6
    shade = 0.50 + 0.60 * np.clip(facing, 0, 1.1)
    gloss = np.exp(-((q - 0.42 * look.side) ** 2) * 14 - ((v - 0.22) / 0.13) ** 2)
    for x in (-0.052, -0.02, 0.02, 0.052):
        patch.fill(
            patch.cover(_segment(u, v, (x * 1.25, mouth - 0.01), (x, 0.91), 0.0035)),
            (0.28, 0.22, 0.18),
        )
    wicker = 0.85 + 0.15 * _stripe(v * 55, p * 55) * _stripe(u * 42, p * 42)
    patch.fill(
        patch.cover(_box(u, v, 0, 0.952, 0.06, 0.044) + 0.3 * np.clip(v - 0.95, 0, 1)),
        (0.52, 0.34, 0.19),
        _round(u / 0.062, look.side) * wicker,
    )
    patch.fill(patch.cover(_box(u, v, 0, 0.912, 0.065, 0.009)), (0.34, 0.21, 0.12))
    glow = look.night * np.exp(-(((v - mouth) / 0.25) ** 2) - (u / 0.12) ** 2)
    patch.fill(
        patch.cover(np.where(v < mid, top, low)),
        cloth + (gloss * 0.20)[..., None] * (1 - cloth),
        shade * crease + 0.7 * glow,
    )
    patch.fill(patch.cover(_box(u, v, 0, mouth - 0.006, 0.068, 0.010)), look.dark * 0.6)
    flame = np.exp(-((u / 0.018) ** 2) - ((v - 0.835) / 0.03) ** 2)
    patch.fill(flame * 0.9 * max(look.night, 0.35), (1.0, 0.80, 0.40), glow=True)


def boat(u: Array, v: Array, patch: Patch) -> None:
    look, p = patch.look, patch.p
    wood = np.float32((0.33, 0.24, 0.17))
    patch.fill(patch.cover(_segment(u, v, (0.03, 0.0), (0.03, 0.84), 0.009)), wood)
    belly = 0.055 * np.sin(np.clip((v - 0.05) / 0.69, 0, 1) * np.pi)
    main = np.maximum.reduce(
        [0.048 - u, v - 0.745, _edge(u - belly, v, (0.052, 0.03), (0.37, 0.745))]
    )
    bow = 0.035 * np.sin(np.clip((v - 0.12) / 0.62, 0, 1) * np.pi)
    jib = np.maximum.reduce(
        [
            u - 0.012 + bow * 1.2,
            v - 0.745 - 0.1 * u,
            _edge(u + bow, v, (-0.345, 0.745), (0.0, 0.10)),
        ]
    )
    for shape, left, width, sign in ((main, 0.05, 0.33, 1.0), (jib, -0.34, 0.34, -1.0)):
        across = np.clip((u - left) / width, 0, 1)
        panel = _stripe(v * 6 + 0.4 * across * sign + look.pick(1), p * 6)[..., None]
        cloth = look.base * (1 - panel) + (look.base * 0.80 + 0.10) * panel
        shade = 0.80 + 0.24 * np.sin(across * np.pi) + 0.10 * look.side * (across * 2 - 1)
        seam = np.abs((v * 12 + 0.8 * across * sign + 2 * look.pick(1)) % 1 - 0.5)
        shade = shade - 0.07 * smoothstep(0.40, 0.5, seam) * np.clip(1 - p * 24, 0, 1)
        patch.fill(patch.cover(shape), cloth, shade)
    patch.fill(patch.cover(_segment(u, v, (0.03, 0.757), (0.36, 0.752), 0.009)), wood)
    half = 0.40 - 0.16 * np.clip((v - 0.80) / 0.17, 0, 1) ** 2 - 0.05 * (u > 0)
    sheer = 0.815 - 0.09 * u * u + 0.02 * u
    hull = np.maximum.reduce([sheer - v, np.abs(u + 0.01) - half, v - 0.965])
    shade = 1.02 - 0.30 * np.clip((v - 0.82) / 0.12, 0, 1) + 0.10 * look.side * u
    patch.fill(patch.cover(hull), look.base * 0.72, shade)
    stripe = np.maximum(hull, np.abs(v - sheer - 0.035) - 0.014)
    patch.fill(patch.cover(stripe), (0.93, 0.90, 0.84))
    patch.fill(patch.cover(np.maximum(hull, 0.9 - v)), look.base * 0.30)
    cabin = _box(u, v, -0.07, 0.79, 0.11, 0.028)
    patch.fill(patch.cover(cabin), (0.88, 0.84, 0.76), 0.85 + 0.2 * look.side * u * 5)
    for x in (-0.13, -0.07, -0.01):
        lit = (1.0, 0.85, 0.5) if look.night > 0.5 else (0.15, 0.2, 0.28)
        patch.fill(patch.cover(np.hypot(u - x, v - 0.79) - 0.013), lit, glow=look.night > 0.5)


def lighthouse(u: Array, v: Array, patch: Patch) -> None:
    look, p = patch.look, patch.p
    half = 0.088 + (v - 0.26) * 0.072
    q = u / half
    tower = np.maximum.reduce([np.abs(u) - half, 0.255 - v, v - 1.0 + 0.02 * q * q])
    count = 2 + int(look.pick(1) * 2)
    curve = 0.012 * np.sqrt(np.clip(1 - q * q, 0, 1))
    t = (v - curve - 0.25) / 0.75 * (count + 0.5) + 0.25
    band = _stripe(t, p * (count + 0.5) / 0.75)[..., None]
    wall = np.float32((0.93, 0.91, 0.86)) * (1 - band) + look.base * band
    brick = 1 - 0.06 * _stripe(v * 46, p * 46)
    patch.fill(patch.cover(tower), wall, _round(q, look.side) * brick)
    warm, dim = (1.0, 0.86, 0.52), (0.16, 0.20, 0.27)
    for x, y in ((0.0, 0.40), (0.02, 0.66)):
        window = np.maximum(_box(u, v, x, y, 0.017, 0.028), -1.0)
        patch.fill(patch.cover(window - 0.008), (0.82, 0.79, 0.73))
        patch.fill(patch.cover(window), warm if look.night > 0.5 else dim, glow=look.night > 0.5)
    door = np.where(v < 0.925, np.hypot(u, v - 0.925) - 0.034, np.abs(u) - 0.034)
    patch.fill(patch.cover(np.maximum(door, v - 0.99)), look.dark * 0.55)
    glass = _box(u, v, 0, 0.19, 0.062, 0.058)
    lamp = 0.55 + 0.45 * max(look.night, 0.3)
    shine = np.exp(-((u / 0.05) ** 2) - ((v - 0.19) / 0.05) ** 2) * lamp
    pane = np.float32((0.30, 0.40, 0.48)) * look.tint
    patch.fill(
        patch.cover(glass),
        pane + shine[..., None] * (np.float32((1.0, 0.93, 0.66)) - pane),
        glow=True,
    )
    for x in (-0.058, -0.022, 0.022, 0.058):
        patch.fill(patch.cover(_box(u, v, x, 0.19, 0.004, 0.058)), (0.16, 0.15, 0.16))
    patch.fill(
        patch.cover(_box(u, v, 0, 0.255, 0.128, 0.013)),
        (0.22, 0.21, 0.23),
        _round(u / 0.13, look.side) + 0.15,
    )
    rail = np.minimum(np.abs(v - 0.215), np.where(np.abs(u * 32 % 1 - 0.5) > 0.38, 0.0, 1.0))
    rail = np.maximum.reduce([rail - 0.005, np.abs(u) - 0.125, 0.212 - v, v - 0.25])
    patch.fill(patch.cover(rail) * 0.9, (0.20, 0.19, 0.21))
    dome = np.clip((v - 0.045) / 0.09, 0, 1)
    roof = np.maximum.reduce([np.abs(u) - 0.084 * np.sqrt(dome), v - 0.134, 0.045 - v])
    patch.fill(patch.cover(roof), look.base, _round(u / 0.09, look.side))
    patch.fill(patch.cover(_segment(u, v, (0, 0.0), (0, 0.05), 0.005)), (0.25, 0.24, 0.25))


def windmill(u: Array, v: Array, patch: Patch) -> None:
    look, p = patch.look, patch.p
    hub = 0.365
    half = 0.108 + (v - 0.32) * 0.13
    q = u / half
    body = np.maximum.reduce([np.abs(u) - half, 0.32 - v, v - 1.0 + 0.02 * q * q])
    plank = _stripe(v * 13 + look.pick(1), p * 13)[..., None]
    wall = look.base * (1 - plank) + (look.base * 0.84 + 0.05) * plank
    patch.fill(patch.cover(body), wall, _round(q, look.side))
    foot = np.maximum(body, 0.93 - v)
    patch.fill(patch.cover(foot), (0.55, 0.51, 0.47), _round(q, look.side))
    gallery = _box(u, v, 0, 0.70, 0.205, 0.010)
    patch.fill(patch.cover(gallery), (0.36, 0.27, 0.20), _round(u / 0.2, look.side) + 0.1)
    warm, dim = (1.0, 0.84, 0.50), (0.18, 0.20, 0.26)
    for x, y in ((0.0, 0.52), (-0.05, 0.80), (0.06, 0.80)):
        window = _box(u, v, x, y, 0.021, 0.030)
        patch.fill(patch.cover(window - 0.010), (0.92, 0.89, 0.82))
        patch.fill(patch.cover(window), warm if look.night > 0.5 else dim, glow=look.night > 0.5)
    dome = np.hypot(u / 1.15, v - 0.33) - 0.112
    cap = np.where(v < 0.33, dome, _box(u, v, 0, 0.335, 0.125, 0.012))
    patch.fill(patch.cover(cap), look.dark * 0.75, _round(u / 0.125, look.side))
    turn = 0.25 + look.pick(2) * 1.1
    cloth = np.float32((0.95, 0.92, 0.84))
    for arm in range(4):
        angle = turn + arm * np.pi / 2
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along, across = u * c + (v - hub) * s, -u * s + (v - hub) * c
        sail = _box(along, across, 0.222, 0.036, 0.140, 0.034)
        lattice = np.maximum(_stripe(along * 22, p * 22), _stripe(across * 32, p * 32))
        patch.fill(
            patch.cover(sail) * (0.80 + 0.20 * lattice),
            cloth,
            0.86 + 0.16 * lattice + 0.10 * look.side * c,
        )
        spar = _box(along, across, 0.185, 0.0, 0.185, 0.0085)
        patch.fill(patch.cover(spar), (0.36, 0.27, 0.20))
    patch.fill(patch.cover(np.hypot(u, v - hub) - 0.028), (0.30, 0.22, 0.17))


DRAW: dict[str, Callable[[Array, Array, Patch], None]] = {
    "balloon": balloon,
    "boat": boat,
    "lighthouse": lighthouse,
    "windmill": windmill,
}
HALF_WIDTH = {"balloon": 0.34, "boat": 0.43, "lighthouse": 0.15, "windmill": 0.40}
"""Half of each kind's width, in its heights."""
