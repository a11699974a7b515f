"""The quality benchmark's table, plot and contact sheets."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..pictures import save_small, scaled, sheet, side_by_side
from .gallery import Gallery
from .methods import METHODS
from .plot import Point, panels, scatter
from .task import CELL, NATIVE

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
SIDE, COLUMNS_OF_SHEET = 192, 4  # px of a picture on a contact sheet, and cells a row
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


def contact_sheet(gallery: Gallery, names: list[str], seed: int, scale: int) -> Image.Image:
    """Every method's picture of one seed, and beside it its middle, of native size."""
    paths = [("native", gallery.native_picture(seed))]
    paths += [(name, gallery.place(name, seed, scale)) for name in names]
    paths.append(("a true render of the caption", gallery.render(seed, 0, scale)))
    cells = []
    for name, path in paths:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        middle = (whole.width - NATIVE * CELL) // 2
        crop = whole.crop((middle, middle, middle + NATIVE * CELL, middle + NATIVE * CELL))
        cells.append((name, side_by_side([scaled(shown, SIDE) for shown in (whole, crop)])))
    return sheet(cells, COLUMNS_OF_SHEET)


def write(gallery: Gallery, results: dict[int, dict[str, Any]], seeds: dict[int, list[int]]) -> str:
    """Write table, plot and one contact sheet a scale into the gallery; the table."""
    parts = []
    for scale, rows in results.items():
        parts.append(f"{scale}×, {len(seeds[scale])} pictures a method:\n\n{table(rows)}\n")
        names = [name for name in rows if name in METHODS]
        shown = contact_sheet(gallery, names, seeds[scale][0], scale)
        save_small(shown, gallery.folder / f"sheet_{scale}x.jpg")
    text = "\n".join(parts)
    (gallery.folder / "table.md").write_text(text, encoding="utf-8")
    if results:
        save_small(plot(results), gallery.folder / "plot.jpg")
    return text
