"""The quality benchmark's table, plot and contact sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .gallery import Gallery
from .methods import CELL, METHODS, NATIVE
from .plot import Point, panels, scatter

COLUMNS = (
    "method",
    "KID",
    "KID of crops",
    "FID",
    "FID of crops",
    "precision, recall",
    "spectrum, dB",
    "PSNR",
    "ST-LPIPS",
    "seams",
    "objects",
    "one object",
    "s",
    "evaluations",
)
COST = "seconds a picture (of one core on a CPU)"


def table(rows: dict[str, Any]) -> str:
    """Rows of one scale (`quality.Row` by method) as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, row in rows.items():
        scores = row.scores
        kid, crop = scores["KID-Lite0"], scores["KID-crop-Lite0"]
        cells = [
            name,
            f"{kid[0]:.3f} ({kid[1]:.3f}..{kid[2]:.3f})",
            f"{crop[0]:.3f} ({crop[1]:.3f}..{crop[2]:.3f})",
            f"{scores['FID-Lite0'][0]:.0f}",
            f"{scores['FID-crop-Lite0'][0]:.0f}",
            f"{scores['precision-Lite0'][0]:.2f}, {scores['recall-Lite0'][0]:.2f}",
            f"{scores['spectrum'][0]:.1f}",
            "" if row.psnr is None else f"{row.psnr:.1f}",
            "" if row.lpips is None else f"{row.lpips:.3f}",
            f"{row.seam:.2f}",
            f"{row.objects:.2f}",
            f"{row.one:.0%}",
            f"{row.cost.seconds:.1f}" if row.cost.calls else "",
            f"{row.cost.evaluations:.0f}" if row.cost.calls else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: dict[int, dict[str, Any]]) -> Image.Image:
    """Cost against the distance of whole pictures, of crops, and the number of objects.

    Ablations are left to the table: they cost about the same.
    """
    rows = []
    for scale, found in results.items():
        drawn = {
            name: row
            for name, row in found.items()
            if name in METHODS and METHODS[name].kind != "ablation"
        }
        row = []
        for title, figure in (
            ("whole pictures", "KID-Lite0"),
            ("crops", "KID-crop-Lite0"),
            ("objects", ""),
        ):
            points = [
                Point(
                    name,
                    METHODS[name].kind,
                    r.cost.seconds,
                    *(r.scores[figure][:3] if figure else (r.objects,)),
                )
                for name, r in drawn.items()
            ]
            label = f"{figure}, less is better" if figure else "objects a picture, 1 is right"
            row.append(scatter(points, f"{scale}x: {title}", COST, label))
        rows.append(row)
    return panels(rows)


def contact_sheet(
    gallery: Gallery, names: list[str], seed: int, scale: int, columns: int = 4, side: int = 192
) -> Image.Image:
    """Every method's picture of one seed, and beside it its middle, of native size."""
    cells = [("native", gallery.native_picture(seed))]
    cells += [(name, gallery.place(name, seed, scale)) for name in names]
    cells.append(("a true render of the caption", gallery.render(seed, 0, scale)))
    font = ImageFont.load_default(13)
    width, height = 2 * side + 12, side + 24
    out = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    pen = ImageDraw.Draw(out)
    for index, (name, path) in enumerate(cells):
        x, y = index % columns * width, index // columns * height
        with Image.open(path) as image:
            whole = image.convert("RGB")
        middle = (whole.width - NATIVE * CELL) // 2
        crop = whole.crop((middle, middle, middle + NATIVE * CELL, middle + NATIVE * CELL))
        pen.text((x + 3, y + 3), name, "black", font)
        for place, shown in ((x, whole), (x + side + 4, crop)):
            out.paste(shown.resize((side, side), Image.Resampling.LANCZOS), (place, y + 20))
    return out


def save_small(image: Image.Image, path: Path, most: int = 290_000) -> None:
    """Write a JPEG of at most so many bytes."""
    for quality in range(90, 20, -5):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= most:
            return


def write(gallery: Gallery, results: dict[int, dict[str, Any]], seeds: dict[int, list[int]]) -> str:
    """Write table, plot and one contact sheet a scale into the gallery; the table."""
    parts = []
    for scale, rows in results.items():
        parts.append(f"{scale}×, {len(seeds[scale])} pictures a method:\n\n{table(rows)}\n")
        names = [name for name in rows if name in METHODS]
        sheet = contact_sheet(gallery, names, seeds[scale][0], scale)
        save_small(sheet, gallery.folder / f"sheet_{scale}x.jpg")
    text = "\n".join(parts)
    (gallery.folder / "table.md").write_text(text, encoding="utf-8")
    if results:
        save_small(plot(results), gallery.folder / "plot.jpg")
    return text
