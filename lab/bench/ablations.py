"""What does each piece of our two presets contribute? `python -m lab.bench.ablations draw`

Every row is *HiRes Fusion best* or *fast* at twice the native size with one thing changed, drawn
from the same captions and noise as the whole preset, on seeds that no verdict rests on. Drawing
goes on where it stopped. `lab/results/ablations.npz` keeps each picture's figures; of its crops not
the features but what the tables need of them, the kernel distances of every pair of seeds.

    draw      draw what is missing for --minutes, then store it and print the tables
    table     the tables of what is stored, as Markdown
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import ROOT, write_json
from ..pack import enter
from . import results
from .figures import FIELDS
from .methods import bicubic, decoded, progressive
from .registered import EXPLORING, Part, Plan
from .results import REFERENCE, Key, Rows
from .standings import Table, excess, number, seam, words
from .task import Method
from .tournament import Drawing

SCALE, SEEDS = 2, 48
STORED = results.STORED / "ablations.npz"
FOLDER = Path("lab/runs/ablations")
BEST, FAST = "HiRes Fusion best", "HiRes Fusion fast"
BICUBIC = "bicubic"
FIGURES = tuple(name for name in FIELDS if name != "features")

# Fields of the preset's stage that a row changes.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    BEST: {
        "attention over the whole picture": {"windowed_attention": False},
        "windows of 1 native side, not 1.5": {"attention_window": 1.0},
        "still windows": {"jitter": False},
        "not sharpened": {"unsharp": 0.0},
        "enlarged as latent, not sharpened": {"lift": "latent bicubic", "unsharp": 0.0},
        "layout not held": {"structure": 0.0},
        "layout held fully": {"structure": 1.0},
        "cfg to the end": {"cfg_end": 1.0},
        "cfg 1": {"cfg": 1.0},
        "from .82, as fast": {"start": 0.82},
    },
    FAST: {
        "attention over the whole picture": {"windowed_attention": False},
        "not sharpened": {"unsharp": 0.0},
        "enlarged as latent, not sharpened": {"lift": "latent bicubic", "unsharp": 0.0},
        "layout held": {"structure": 0.5},
        "cfg 5": {"cfg": 5.0},
        "from .7, as best": {"start": 0.7},
    },
}


def row(preset: str, change: str) -> str:
    """Name of a row."""
    return f"{preset}, {change}"


def methods() -> dict[str, Method]:
    """All rows by name."""
    found = {BICUBIC: Method(bicubic)}
    for preset, changes in CHANGES.items():
        found[preset] = Method(decoded(progressive, preset), kind="preset")
        for name, fields in changes.items():
            drawn = decoded(progressive, preset, **fields)
            found[row(preset, name)] = Method(drawn, kind="ablation")
    return found


def recipes() -> dict[str, str]:
    """The numbers that each row is made by."""
    enter()
    from hires_fusion.fusion_ops.presets import PRESETS

    made = {BICUBIC: ""}
    for preset, changes in CHANGES.items():
        made[preset] = repr(PRESETS[preset])
        made |= {row(preset, name): f"{made[preset]} with {c}" for name, c in changes.items()}
    return made


def plan() -> Plan:
    """What is drawn: all rows of a seed, then the next one."""
    part = Part(SCALE, SEEDS, tuple(methods()))
    return Plan(EXPLORING, 20, 5.0, 6, 4000, (BICUBIC,), (part,), {})


class Kept(Table):
    """Standings of rows whose pairs of seeds are known already.

    Args:
        known: by row, (N, N) of its N seeds in order.
    """

    def __init__(self, rows: Rows, known: dict[str, np.ndarray]):
        super().__init__(rows, plan(), SCALE)
        self.known = known

    def pairs(self, name: str, seeds: list[int]) -> np.ndarray:
        """See `paired.distance_pairs`."""
        places = np.searchsorted(self.seeds(name), seeds)
        return self.known[name][np.ix_(places, places)]


def save(found: Rows, path: Path = STORED) -> None:
    """Write the figures for the repository."""
    table = Table(found, plan(), SCALE)
    arrays = {}
    for (_, name), pictures in sorted(found.pictures.items()):
        seeds = table.seeds(name)
        arrays[f"{name}/seeds"] = np.asarray(seeds)
        if name != REFERENCE:
            arrays[f"{name}/pairs"] = table.pairs(name, seeds).astype(np.float32)
        for figure in FIGURES:
            arrays[f"{name}/{figure}"] = np.stack([pictures[seed][figure] for seed in seeds])
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    write_json(found.made, path.with_suffix(".json"))


def load(path: Path = STORED) -> Kept:
    """The figures in the repository."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    rows = Rows(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    known = {}
    for place in [name for name in arrays if name.endswith("/seeds")]:
        name = place.removesuffix("/seeds")
        key: Key = (SCALE, name)
        rows.pictures[key] = {
            int(seed): {figure: arrays[f"{name}/{figure}"][index] for figure in FIGURES}
            for index, seed in enumerate(arrays[place])
        }
        if name != REFERENCE:
            known[name] = arrays[f"{name}/pairs"].astype(np.float64)
    return Kept(rows, known)


def table(known: Table, preset: str) -> str:
    """A preset's rows against the whole of it, in Markdown."""
    heads = ("row", "seeds", "KID of crops", "against the preset", "PSNR, dB", "against the preset")
    lines = [[*heads, "excess objects", "worst line", "evaluations"]]
    lines.append(["---"] * len(lines[0]))
    for name in (preset, *(row(preset, change) for change in CHANGES[preset])):
        if not known.seeds(name):
            continue
        one = known.standing(name)
        crops, gain = known.difference(name, preset), known.gain(name, preset)
        lines.append(
            [
                name.removeprefix(f"{preset}, "),
                str(len(one.seeds)),
                number(one.kid, 3),
                words(crops, 4),
                f"{one.psnr.value:.1f}",
                words(gain, 2, "farther", "nearer"),
                excess(one),
                seam(one),
                f"{one.evaluations:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(known: Table) -> str:
    """Of both presets."""
    return "\n\n".join(f"{preset}:\n\n{table(known, preset)}" for preset in CHANGES)


def draw(minutes: float) -> None:
    """Draw what is missing and store all of it."""
    drawing = Drawing(plan(), FOLDER, methods(), recipes())
    left = drawing.run(minutes)
    save(drawing.rows())
    if left:
        print(f"{left} pictures are still missing: run it again", file=sys.stderr)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("command", choices=("draw", "table"))
    p.add_argument("--minutes", type=float, default=30, help="stop drawing after so long")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    if args.command == "draw":
        os.nice(19)
        torch.set_num_threads(args.threads)
        os.chdir(ROOT)
        draw(args.minutes)
    print(tables(load()))


if __name__ == "__main__":
    main()
