"""Contact sheets: many pictures small, each with what it was made of."""

from __future__ import annotations

import contextlib
import textwrap
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .record import whole

SIDE, GAP, LINES, LINE = 256, 12, 3, 16
ACROSS, DOWN = 6, 8
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


def sheets(folder: Path, pictures: Iterable[tuple[Path, str]]) -> list[Path]:
    """Draw (picture, caption) pairs on pages of 48 and save them as sheet_001.jpg and so on.

    FolderError if they can't be saved. A picture that can't be read has an empty place.
    """
    rest, saved = iter(pictures), []
    while page := list(islice(rest, ACROSS * DOWN)):
        saved.append(folder / f"sheet_{len(saved) + 1:03d}.jpg")
        drawn = sheet(page)
        with whole(saved[-1]) as part:
            drawn.save(part, quality=88)
    for old in folder.glob("sheet_*.jpg"):
        if old not in saved:
            old.unlink()
    return saved


def sheet(page: list[tuple[Path, str]]) -> Image.Image:
    """One page."""
    across = min(ACROSS, len(page))
    step = (SIDE + GAP, SIDE + LINES * LINE + GAP)
    size = (across * step[0] + GAP, -(-len(page) // across) * step[1] + GAP)
    paper = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(13)
    for number, (path, caption) in enumerate(page):
        x, y = GAP + number % across * step[0], GAP + number // across * step[1]
        with contextlib.suppress(OSError, Image.DecompressionBombError):
            small = thumbnail(path)
            paper.paste(small, (x + (SIDE - small.width) // 2, y + (SIDE - small.height) // 2))
        for line, words in enumerate(textwrap.wrap(caption, 38)[:LINES]):
            draw.text((x, y + SIDE + line * LINE), words, "black", font)
    return paper


def thumbnail(path: Path) -> Image.Image:
    """A picture of SIDE pixels at most."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large ones are our trade
        with Image.open(path) as picture:
            picture.draft("RGB", (SIDE, SIDE))
            small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small
