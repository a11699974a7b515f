"""Does strength go from sharpening to redrawing, and mean the same for every preset?
`python -m lab.studies.strength --seeds 12`

One demo picture through presets at twice its size, for a row of strengths: fidelity to the native
picture, distance of crops from true renders, objects that the native picture does not have, and in
how many seeds every stronger picture is farther from the native one than the weaker before it. No
verdict rests on these seeds. `--picture` draws the middle of one of them for every row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ..bench.gallery import load
from ..bench.methods import decoded, progressive
from ..bench.registered import EXPLORING, Part, Plan
from ..bench.standings import Table, excess, number
from ..bench.task import CELL, NATIVE, Method
from ..bench.tournament import Drawing
from ..files import write_json
from ..pictures import save_small, sheet_of_rows, to_image

SCALE = 2
PRESETS = ("HiRes Fusion best", "HiRes Fusion fast", "RepLDM", "DemoFusion lean")
STRENGTHS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
FOLDER = Path("lab/runs/strength")


def row(preset: str, strength: float) -> str:
    """Name of a row."""
    return f"{preset} at {strength:g}"


def methods() -> dict[str, Method]:
    """All rows by name."""
    return {
        row(preset, strength): Method(decoded(progressive, preset, strength=strength))
        for preset in PRESETS
        for strength in STRENGTHS
    }


def plan(seeds: int) -> Plan:
    """All rows of a seed, then the next one."""
    part = Part(SCALE, seeds, tuple(methods()))
    return Plan(EXPLORING + 400, 20, 5.0, 6, 4000, (), (part,), {})


def in_order(found: Table, preset: str) -> str:
    """In how many seeds fidelity falls with every strength."""
    names = [row(preset, strength) for strength in STRENGTHS]
    seeds = found.seeds(*names)
    psnr = np.stack([found.stacked(name, "psnr", seeds) for name in names])
    return f"{int((np.diff(psnr, axis=0) < 0).all(0).sum())} of {len(seeds)}"


def table(found: Table) -> tuple[str, dict]:
    """Markdown of all rows, and the same as data."""
    heads = ("preset", "strength", "seeds", "PSNR, dB", "ST-LPIPS", "KID of crops")
    lines = [[*heads, "excess objects", "evaluations", "in order"]]
    lines.append(["---"] * len(lines[0]))
    data = {}
    for preset in PRESETS:
        for strength in STRENGTHS:
            one = found.standing(row(preset, strength))
            figures = (number(one.psnr, 1), number(one.lpips, 3), number(one.kid, 3))
            last = in_order(found, preset) if strength == STRENGTHS[-1] else ""
            cells = [preset, f"{strength:g}", str(len(one.seeds)), *figures]
            lines.append([*cells, excess(one), f"{one.evaluations:.0f}", last])
            data[one.name] = {"psnr": one.psnr.value, "lpips": one.lpips.value}
    return "\n".join(f"| {' | '.join(line)} |" for line in lines), data


def picture(drawing: Drawing, seed: int, out: Path) -> None:
    """The middle of a seed's pictures at 100 %: a row for each preset, weakest first."""
    side, start = NATIVE * CELL, NATIVE * CELL * (SCALE - 1) // 2
    rows = {}
    for preset in PRESETS:
        paths = [drawing.gallery.picture(row(preset, each), seed, SCALE) for each in STRENGTHS]
        crops = [p[..., start : start + side, start : start + side] for p in load(paths)]
        rows[preset] = [to_image(crop) for crop in crops]
    out.parent.mkdir(parents=True, exist_ok=True)
    save_small(sheet_of_rows(rows, side), out)


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seeds", type=int, default=12, help="at least 3")
    p.add_argument("--minutes", type=float, default=60, help="stop drawing after so long")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--picture", type=Path, help="also draw one seed's pictures, such as out/s.jpg")
    p.add_argument("--seed", type=int, default=EXPLORING + 400, help="of the picture")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    made = plan(args.seeds)
    drawing = Drawing(made, FOLDER, methods(), {name: name for name in methods()})
    if left := drawing.run(args.minutes):
        p.exit(1, f"{left} pictures are still missing: run it again\n")
    text, data = table(Table(drawing.rows(), made, SCALE))
    write_json(data, FOLDER / "figures.json")
    print(text)
    if args.picture:
        picture(drawing, args.seed, args.picture)


if __name__ == "__main__":
    main()
