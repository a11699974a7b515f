"""What seeds ask for: the captions that every method draws, and their true renders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .render import render
from .scene import random_scene
from .words import COLOURS, SETTINGS_OF_KIND, TIMES, prompt

TAUGHT = ("balloon", "boat", "lighthouse")  # the kinds that the demo model was trained on


@dataclass(frozen=True)
class Wish:
    """What a seed asks for: one object of a kind and colour, where and when."""

    kind: str
    colour: str
    setting: str
    time: str

    @property
    def prompt(self) -> str:
        """The caption."""
        return prompt(self.kind, self.colour, self.setting, self.time)


def wish(seed: int) -> Wish:
    """The wish of a seed: kinds and colours take turns, the rest is drawn."""
    rng = np.random.default_rng(seed)
    kind, colour = TAUGHT[seed % len(TAUGHT)], COLOURS[seed % len(COLOURS)]
    setting, hour = rng.choice(SETTINGS_OF_KIND[kind]), rng.choice(TIMES)
    return Wish(kind, colour, str(setting), str(hour))


def true_render(seed: int, number: int, side: int) -> np.ndarray:
    """A render of a seed's caption, (side, side, 3) in 0..1; each number is another scene."""
    asked = wish(seed)
    # Scenes of the training data have seeds up to 10^7 each; these are far above.
    scene = random_scene(
        9_000_000_000 + seed * 1000 + number,
        kind=asked.kind,
        colour=asked.colour,
        setting=asked.setting,
        time=asked.time,
    )
    return render(scene, side, side).image
