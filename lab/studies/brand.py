"""`python -m lab.studies.brand`: the icon and the banner that the Registry shows, in brand/.

One true render of a scene: as coarse as a model's native picture on one side, with all of its
detail on the other, and between them the overlapping windows that make the one of the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import ROOT
from ..scenes import Focal, random_scene, render
from ..scenes.scene import Scene

FOLDER = ROOT / "brand"
ICON = (400, 400)
BANNER = (1260, 540)  # 21 : 9
OVER = 2  # drawn so much larger, and shrunk
SEED = 31
PALE = (255, 250, 240)


def scene(x: float, y: float, height: float) -> Scene:
    """A balloon over mountains in the evening, at a place of the picture."""
    found = random_scene(SEED, kind="balloon", colour="red", setting="mountains", time="sunset")
    return replace(found, objects=(Focal("balloon", "red", x, y, height, variant=3),))


def picture(drawn: Scene, size: tuple[int, int]) -> Image.Image:
    """The render at `size`, drawn larger and shrunk."""
    width, height = size
    pixels = render(drawn, OVER * height, OVER * width).image
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    return image.resize(size, Image.Resampling.LANCZOS)


def coarse(image: Image.Image, cell: int) -> Image.Image:
    """The picture in squares of `cell` pixels."""
    small = image.resize(
        (image.width // cell, image.height // cell), Image.Resampling.BOX, reducing_gap=None
    )
    return small.resize(image.size, Image.Resampling.NEAREST)


def windows(image: Image.Image, native: Image.Image, left: int, cell: int, side: int) -> None:
    """Coarse squares left of `left`, and the outlines of windows that overlap by half."""
    edge = left // cell * cell
    image.paste(native.crop((0, 0, edge, image.height)), (0, 0))
    draw = ImageDraw.Draw(image, "RGBA")
    for step, alpha in ((0, 235), (1, 150)):
        at = edge - side // 2 + step * side // 2
        top = (image.height - side) // 2
        box = (at, top, at + side, top + side)
        draw.rectangle(box, outline=(*PALE, alpha), width=max(2, side // 90))


def icon() -> Image.Image:
    """The square one."""
    image = picture(scene(0.52, 0.42, 0.62), ICON)
    windows(image, coarse(image, 25), 200, 25, 200)
    return image


def banner() -> Image.Image:
    """The wide one, with the name."""
    image = picture(scene(0.3, 0.42, 0.66), BANNER)
    windows(image, coarse(image, 30), 378, 30, 300)
    draw = ImageDraw.Draw(image, "RGBA")
    lines = ((96, "HiRes Fusion", 168), (30, "larger pictures by the model itself", 290))
    for size, text, top in lines:
        font = ImageFont.load_default(size)
        left = image.width - 60 - draw.textlength(text, font)
        for shift in (3, 2, 1):
            draw.text((left + shift, top + shift), text, (20, 20, 40, 90), font)
        draw.text((left, top), text, PALE, font)
    return image


def main() -> None:
    """Draw both."""
    FOLDER.mkdir(exist_ok=True)
    for name, image in (("icon", icon()), ("banner", banner())):
        image.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
