"""Pictures: from tensors and back, and many of them on one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABEL = 20  # px, height of a label
GAP = 4
MOST_BYTES = 290_000  # of a picture in the documents


def to_image(picture: Tensor) -> Image.Image:
    """(1, 3, H, W) in 0..1 as a picture of 8 bits."""
    pixels = picture[0].movedim(0, -1).clamp(0, 1).cpu().numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
    return pixels.movedim(-1, 0)[None]


def scaled(image: Image.Image, width: int) -> Image.Image:
    """The picture at another width, by Lanczos."""
    return image.resize(
        (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
    )


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height in a row, with a gap between them."""
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    out = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for image in images:
        out.paste(image, (left, 0))
        left += image.width + GAP
    return out


def sheet(cells: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Pictures of one size in rows of so many, a label above each; a long label is cut.

    No room is left for labels when all are empty.
    """
    font = ImageFont.load_default(13)
    width, height = cells[0][1].size
    label = LABEL if any(text for text, _ in cells) else 0
    columns = min(columns, len(cells))
    across, down = width + GAP, height + label + GAP
    out = Image.new("RGB", (columns * across, -(-len(cells) // columns) * down), "white")
    pen = ImageDraw.Draw(out)
    for index, (text, image) in enumerate(cells):
        x, y = index % columns * across, index // columns * down
        while text and pen.textlength(text, font) > width - 4:
            text = text.removesuffix("…")[:-1] + "…" if len(text) > 1 else ""
        pen.text((x + 2, y + 2), text, "black", font)
        out.paste(image, (x, y + label))
    return out


def sheet_of_rows(rows: Mapping[str, Sequence[Image.Image]], width: int) -> Image.Image:
    """One row of pictures a name, each so many pixels wide; the name stands above the first."""
    columns = max(map(len, rows.values()))
    cells = []
    for name, images in rows.items():
        row = [scaled(image, width) for image in images]
        row += [Image.new("RGB", row[0].size, "white")] * (columns - len(row))
        cells += [(name if column == 0 else "", image) for column, image in enumerate(row)]
    return sheet(cells, columns)


def save_small(image: Image.Image, path: Path, most: int = MOST_BYTES) -> None:
    """Write a JPEG of at most so many bytes."""
    for quality in range(90, 20, -5):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= most:
            return
