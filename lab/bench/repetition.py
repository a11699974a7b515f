"""How many focal objects does each method draw? `python -m lab.bench.repetition --scale 3`

Every prompt asks for exactly one object, so each further one is the failure that this project is
about. `--native 64` counts the demo model's own pictures at its native size instead. Pictures are
kept in `--out`, and counted again but not drawn again by the next call.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..pictures import sheet_of_rows
from ..scenes.wishes import wish
from .counter import Found, count_objects
from .gallery import Gallery, cost_of, load

METHODS = ("direct", "MultiDiffusion", "DemoFusion")


def is_right(found: list[Found], colour: str) -> bool:
    """One object, in the colour that was asked for."""
    return len(found) == 1 and found[0].colour == colour


def count(path: Path, seed: int) -> dict:
    """What was asked for and what is found in a kept picture."""
    asked = wish(seed)
    found = count_objects(load([path])[0])[0]
    return {
        "seed": seed,
        "prompt": asked.prompt,
        "objects": len(found),
        "found": [f"{f.colour} {f.kind}" for f in found],
        "one": len(found) == 1,
        "right": is_right(found, asked.colour),
        "seconds": cost_of(path).seconds,
    }


def draw(
    gallery: Gallery, name: str, seeds: range, scale: int
) -> Iterator[tuple[Image.Image, dict]]:
    """Pictures of a method with what was asked for and found; "native" is the model's own size."""
    for seed in seeds:
        native = name == "native"
        path = gallery.native_picture(seed) if native else gallery.picture(name, seed, scale)
        yield Image.open(path), count(path, seed)


def table(results: dict[str, list[dict]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| method | pictures | exactly one object | the right colour | mean objects | median s |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        cells = [name, str(len(rows))]
        for fact in ("one", "right"):
            hits = sum(row[fact] for row in rows)
            cells.append(f"{hits} ({hits / len(rows):.0%})")
        cells.append(f"{statistics.mean(row['objects'] for row in rows):.2f}")
        cells.append(f"{statistics.median(row['seconds'] for row in rows):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=int, default=16, help="pictures per method")
    p.add_argument("--first", type=int, default=1000, help="first seed")
    p.add_argument("--scale", type=int, default=3)
    p.add_argument("--methods", nargs="+", default=METHODS, help="rows of bench/methods.py")
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--native", type=int, default=0, help="count so many native pictures instead")
    p.add_argument("--model", type=Path, help="folder of other weights than those in demo/")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/repetition"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    try:
        gallery = Gallery(args.out, args.steps, args.cfg, args.model)
    except ValueError as problem:
        p.error(str(problem))
    methods = ("native",) if args.native else args.methods
    seeds = range(args.first, args.first + (args.native or args.seeds))
    stem = "native" if args.native else f"{args.scale}x"
    pictures: dict[str, list[Image.Image]] = {name: [] for name in methods}
    results: dict[str, list[dict]] = {name: [] for name in methods}
    for name in methods:
        drawn = draw(gallery, name, seeds, args.scale)
        for image, row in tqdm(drawn, desc=name, total=len(seeds)):
            pictures[name].append(image)
            results[name].append(row)
    print(table(results))
    (args.out / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    if args.native:
        shown = pictures["native"]
        pictures = {f"seeds {args.first + i}..": shown[i : i + 8] for i in range(0, len(shown), 8)}
    sheet_of_rows(pictures, 192).save(args.out / f"{stem}.png")


if __name__ == "__main__":
    main()
