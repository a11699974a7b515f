"""The canvas that layers are painted on, with its coordinates and the scene's light.

World coordinates are in picture heights: `X` runs right from the picture's middle, `Y` down from
its top, so that nothing depends on the size in pixels or, but for width, on the aspect ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise import Array
from .scene import Scene


def _rgb(*values: float) -> Array:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Light:
    """The colours of a time of day: sky stops, haze, and the tints on land and on objects."""

    zenith: Array
    middle: Array
    low: Array
    sun: Array
    cloud: Array
    cloud_dark: Array
    land: Array
    shadow: Array
    thing: Array
    night: float


LIGHTS = {
    "day": Light(
        _rgb(0.30, 0.50, 0.76),
        _rgb(0.53, 0.70, 0.87),
        _rgb(0.84, 0.90, 0.93),
        _rgb(1.0, 0.97, 0.85),
        _rgb(0.98, 0.98, 0.97),
        _rgb(0.70, 0.76, 0.84),
        _rgb(1.0, 0.98, 0.93),
        _rgb(0.50, 0.56, 0.68),
        _rgb(1.0, 1.0, 0.98),
        0.0,
    ),
    "sunset": Light(
        _rgb(0.25, 0.28, 0.46),
        _rgb(0.63, 0.46, 0.53),
        _rgb(0.97, 0.71, 0.48),
        _rgb(1.0, 0.80, 0.50),
        _rgb(0.98, 0.68, 0.52),
        _rgb(0.46, 0.37, 0.48),
        _rgb(0.95, 0.68, 0.54),
        _rgb(0.33, 0.29, 0.42),
        _rgb(1.0, 0.88, 0.80),
        0.35,
    ),
    "night": Light(
        _rgb(0.025, 0.04, 0.11),
        _rgb(0.06, 0.10, 0.21),
        _rgb(0.16, 0.22, 0.35),
        _rgb(0.93, 0.94, 0.86),
        _rgb(0.26, 0.31, 0.43),
        _rgb(0.08, 0.11, 0.20),
        _rgb(0.44, 0.52, 0.66),
        _rgb(0.15, 0.19, 0.31),
        _rgb(0.72, 0.75, 0.86),
        1.0,
    ),
    "dawn": Light(
        _rgb(0.42, 0.50, 0.67),
        _rgb(0.74, 0.70, 0.78),
        _rgb(0.98, 0.86, 0.78),
        _rgb(1.0, 0.92, 0.76),
        _rgb(0.99, 0.89, 0.85),
        _rgb(0.66, 0.63, 0.73),
        _rgb(0.88, 0.80, 0.79),
        _rgb(0.44, 0.45, 0.57),
        _rgb(0.98, 0.95, 0.94),
        0.15,
    ),
}


class Frame:
    """A view of a scene while it is painted."""

    def __init__(
        self, scene: Scene, height: int, width: int, view: tuple[float, float, float, float]
    ) -> None:
        x0, y0, x1, y1 = view
        self.scene, self.light = scene, LIGHTS[scene.time]
        self.px = (y1 - y0) / height
        self.aspect = (width / (x1 - x0)) / (height / (y1 - y0))
        steps_x = (np.arange(width) + 0.5) / width
        steps_y = (np.arange(height) + 0.5) / height
        self.xs = ((x0 + steps_x * (x1 - x0) - 0.5) * self.aspect).astype(np.float64)
        self.ys = (y0 + steps_y * (y1 - y0)).astype(np.float64)
        self.image = np.zeros((height, width, 3), np.float32)

    def world_x(self, x: float) -> float:
        """World X of a relative x."""
        return (x - 0.5) * self.aspect

    def unit(self) -> float:
        """World size of a focal object of height 1: less than 1 in a picture narrower than high."""
        return min(1.0, self.aspect)

    @property
    def side(self) -> float:
        """-1 where the light comes from the left, 1 where from the right."""
        return -1.0 if self.scene.sun_x < 0.5 else 1.0

    def blend(self, cover: Array, colour: Array, rows: slice = slice(None)) -> None:
        """Paint `colour` over the rows, as much as `cover` (h, W) says."""
        part = self.image[rows]
        part += cover[..., None] * (colour - part)
