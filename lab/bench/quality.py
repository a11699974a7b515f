"""How good is each method? `make bench-quality`, or `python -m lab.bench.quality --quick`

The demo model draws the same captions and seeds with every method of `lab.bench.methods` at two,
three and four times its native size (`--quick` and `--full`: fewer, more). Their pictures are
measured against true renders of the same captions at that size: distances of whole pictures and of
random crops of native size, the radial spectrum, the number of objects (each caption asks for one);
against the native picture of the seed: fidelity after reduction; against themselves: the line
with the largest seam. Results are `results.json`, `table.md`, a plot and contact sheets in `--out`.

Pictures are kept in `--out`: a run can be interrupted, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..files import write_json
from ..pack import enter
from . import upscaler
from .counter import count_objects
from .gallery import Cost, Gallery, cost_of, load
from .measures import fidelity, seam_score
from .methods import METHODS
from .task import CELL, NATIVE

RENDERS = "true renders"
CROPS = 10  # of native size from each picture: DemoFusion's protocol
SETS = ("FID", "KID", "precision", "recall", "spectrum")
MAIN = tuple(name for name, method in METHODS.items() if method.kind != "ablation")


@dataclass(frozen=True)
class Part:
    """Pictures of one scale."""

    scale: int
    seeds: int
    methods: tuple[str, ...]


SIZES = {
    "quick": (Part(2, 4, tuple(name for name in METHODS if name != "Real-ESRGAN")),),
    "default": (Part(2, 16, tuple(METHODS)), Part(3, 8, MAIN), Part(4, 4, MAIN)),
    "full": tuple(Part(scale, 64, tuple(METHODS)) for scale in (2, 3, 4)),
}
STEPS = {"quick": 12, "default": 20, "full": 50}


@dataclass(frozen=True)
class Row:
    """Figures of one method at one scale.

    Attributes:
        scores: of `evaluation.compare` by name, (value, low, high, count).
        seam: see `measures.seam_score`.
        objects: mean number of focal objects.
        one: share of pictures with exactly one.
        psnr, lpips: against the native picture; None for renders, which follow none.
        cost: mean of a picture.
    """

    scores: dict[str, tuple[float, float, float, int]]
    seam: float
    objects: float
    one: float
    psnr: float | None
    lpips: float | None
    cost: Cost


def draw(gallery: Gallery, parts: tuple[Part, ...], first: int) -> None:
    """Draw what the gallery lacks, seed by seed, so that any part of it is a fair comparison."""
    jobs = [
        (name, seed, part.scale)
        for part in parts
        for seed in range(first, first + part.seeds)
        for name in part.methods
    ]
    missing = [job for job in jobs if not gallery.place(*job).exists()]
    for name, seed, scale in (bar := tqdm(missing, desc="draw", unit="picture")):
        bar.set_postfix_str(f"{scale}x {name} {seed}")
        gallery.picture(name, seed, scale)


def complete(gallery: Gallery, part: Part, first: int) -> list[int]:
    """Seeds of which all methods' pictures are there."""
    return [
        seed
        for seed in range(first, first + part.seeds)
        if all(gallery.place(name, seed, part.scale).exists() for name in part.methods)
    ]


def measure(pictures: list[Path], references: list[Path], natives: list[Path] | None = None) -> Row:
    """All figures of one method's pictures.

    Args:
        pictures: of the method.
        references: true renders.
        natives: the native pictures of the same seeds in the same order; None for renders.
    """
    from evaluation.compare import compare

    options = {"bootstrap": 200, "progress": False}
    scores = compare(
        pictures, references, metrics=SETS, crops=CROPS, crop_size=NATIVE * CELL, **options
    )
    large = load(pictures)
    counts = [len(found) for found in count_objects(torch.cat(large))]
    psnr = lpips = None
    if natives:
        pairs = zip(large, load(natives), strict=True)
        psnr = statistics.mean(fidelity(picture, native) for picture, native in pairs)
        found = compare(pictures, natives, metrics=("LPIPS",), **options)
        lpips = next(iter(found.values())).value
    costs = [cost_of(path).values() for path in pictures]
    return Row(
        {name: tuple(score) for name, score in scores.items()},
        seam_score(torch.cat(large)),
        statistics.mean(counts),
        sum(count == 1 for count in counts) / len(counts),
        psnr,
        lpips,
        Cost(*(statistics.mean(column) for column in zip(*costs, strict=True))),
    )


def kept(file: Path, pictures: list[Path], *rest: Any) -> Row:
    """`measure`, or what it found before in the same pictures; a JSON file remembers it.

    A figure that was added since is missing in the file, and all of them are measured again.
    """
    state = {
        "pictures": [[str(path), path.stat().st_mtime_ns] for path in pictures],
        "figures": [*SETS, CROPS, *(field.name for field in fields(Row))],
    }
    if file.exists():
        found = json.loads(file.read_text())
        if all(found.get(name) == value for name, value in state.items()):
            row = found["row"]
            return Row(**row | {"cost": Cost(**row["cost"])})
    row = measure(pictures, *rest)
    file.parent.mkdir(exist_ok=True)
    write_json(state | {"row": asdict(row)}, file)
    return row


def score(gallery: Gallery, part: Part, first: int) -> dict[str, Row]:
    """The rows of one scale, the renders first."""
    seeds, scale = complete(gallery, part, first), part.scale
    # One of each caption: the kernel distance of sets of one size takes all pairs.
    references = [gallery.render(seed, 0, scale) for seed in seeds]
    natives = [gallery.native_picture(seed) for seed in seeds]
    rows = {}
    for name in tqdm((RENDERS, *part.methods), desc=f"score {scale}x", unit="method"):
        file = gallery.folder / "scores" / f"{scale}x {name}.json"
        if name == RENDERS:
            others = [gallery.render(seed, 1, scale) for seed in seeds]
            rows[name] = kept(file, others, references)
        else:
            pictures = [gallery.place(name, seed, scale) for seed in seeds]
            rows[name] = kept(file, pictures, references, natives)
    return rows


def plan(args: argparse.Namespace) -> tuple[Part, ...]:
    """What to draw, without the rows that this machine can't draw."""
    size = "quick" if args.quick else "full" if args.full else "default"
    parts = [
        Part(p.scale, min(p.seeds, args.seeds or p.seeds), p.methods)
        for p in SIZES[size]
        if not args.scale or p.scale == args.scale
    ]
    if not parts:
        raise ValueError(f"no pictures of {args.scale}x in this size: leave --scale out")
    if unknown := {*args.methods} - METHODS.keys():
        raise ValueError(
            f"no method is called {', '.join(unknown)}: choose of {', '.join(METHODS)}"
        )
    if args.methods:
        parts = [Part(p.scale, p.seeds, tuple(args.methods)) for p in parts]
    if not upscaler.is_installed() and any("Real-ESRGAN" in part.methods for part in parts):
        print(f"without the Real-ESRGAN row: {upscaler.REMEDY}", file=sys.stderr)
        parts = [
            Part(p.scale, p.seeds, tuple(n for n in p.methods if n != "Real-ESRGAN")) for p in parts
        ]
    args.steps = args.steps or STEPS[size]
    args.out = args.out or Path("lab/runs/quality" if size == "default" else f"lab/runs/{size}")
    return tuple(parts)


def main() -> None:
    """Command line."""
    from .quality_report import write

    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = p.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="under 10 minutes on 2 cores: 2x, 4 seeds"
    )
    size.add_argument("--full", action="store_true", help="64 seeds of everything: for a GPU")
    p.add_argument("--seeds", type=int, default=0, help="at most so many of each scale")
    p.add_argument("--first", type=int, default=3000, help="first seed")
    p.add_argument("--scale", type=int, default=0, help="only this one")
    p.add_argument("--methods", nargs="+", default=[], help="these instead of the size's")
    p.add_argument("--steps", type=int, default=0, help="of every stage, instead of the size's")
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-draw", action="store_true", help="measure the pictures that are there")
    p.add_argument("--out", type=Path, help="folder of pictures and results")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    enter()
    try:
        parts = plan(args)
        gallery = Gallery(args.out, args.steps, args.cfg)
    except ValueError as problem:
        p.error(str(problem))
    if not args.no_draw:
        draw(gallery, parts, args.first)
    results, seeds = {}, {}
    for part in parts:
        if len(drawn := complete(gallery, part, args.first)) < 2:
            print(f"{part.scale}x: fewer than two seeds are drawn by all methods", file=sys.stderr)
            continue
        seeds[part.scale] = drawn
        results[part.scale] = score(gallery, part, args.first)
        found = {
            "recipe": gallery.recipe,
            "seeds": seeds,
            "rows": {
                scale: {name: asdict(row) for name, row in rows.items()}
                for scale, rows in results.items()
            },
        }
        write_json(found, args.out / "results.json")
    print(write(gallery, results, seeds))


if __name__ == "__main__":
    main()
