"""Procedural scenes at any resolution, with captions and masks: the lab's ground truth."""

from .caption import background_caption, caption, visible_share
from .render import WHOLE, Render, View, render
from .scene import Focal, Scene, random_scene
from .words import (
    CAPTION_WORDS,
    COLOURS,
    KINDS,
    RGB,
    SETTINGS,
    SETTINGS_OF_KIND,
    TIMES,
    prompt,
    vocabulary,
)

__all__ = [
    "CAPTION_WORDS",
    "COLOURS",
    "KINDS",
    "RGB",
    "SETTINGS",
    "SETTINGS_OF_KIND",
    "TIMES",
    "WHOLE",
    "Focal",
    "Render",
    "Scene",
    "View",
    "background_caption",
    "caption",
    "prompt",
    "random_scene",
    "render",
    "visible_share",
    "vocabulary",
]
