"""Which way to a large picture is best? `python -m lab.bench.tournament draw --minutes 60`

What is drawn, with which seeds and how it is compared is in `tournament.toml`, written before.
Every row draws the same captions from the same noise; figures of each picture are kept, pictures of
a few seeds too, in `lab/results/`, so that a row that comes later is compared with the same
pictures without drawing the others again. Drawing goes on where it stopped, at low priority
(`--background`: without a terminal), and a part of it is a fair comparison.

    draw      draw what is missing, then store it (--explore N: N other seeds, nothing stored)
    table     the table of what is stored, as Markdown
    publish   write the tables into README.md and docs/benchmarks.md

`python -m lab.bench.report` makes the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..files import ROOT, write_json
from . import figures, published, results, rows
from .gallery import Cost, Gallery, cost_of, fingerprint, load
from .registered import EXPLORING, Job, Part, Plan, read_plan
from .results import REFERENCE, Rows
from .standings import Table, markdown
from .task import Method

FOLDER = Path("lab/runs/tournament")
LOG = "log.txt"
Share = tuple[int, int]  # which part of how many

SHOWN = {"format": "WEBP", "quality": 92, "method": 6}


def plan_of(file: Path | None = None) -> Plan:
    """The preregistered plan, with the presets of this checkout."""
    names = rows.rows()
    presets = [name for name, method in names.items() if method.kind == "preset"]
    return read_plan(names, presets, *([file] if file else []))


class Drawing:
    """A folder of the tournament's pictures and their figures, of one set of weights.

    Args:
        plan: what to draw.
        folder: of all weights; each set has a folder of its own in it.
        methods: rows by name; those of the tournament without.
        recipes: by row, the numbers that it is made by.
        stored: figures of pictures that need not be drawn again, of the same weights and recipe.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path = FOLDER,
        methods: dict[str, Method] | None = None,
        recipes: dict[str, str] | None = None,
        stored: Rows | None = None,
    ):
        self.plan = plan
        self.stored = stored or Rows()
        self.folder = folder / fingerprint()
        self.recipes = recipes or rows.recipes()
        methods = methods or rows.rows()
        self.gallery = Gallery(self.folder, plan.steps, plan.cfg, methods=methods)
        self.figures = self.folder / f"figures of {plan.crops} crops"
        self.absent = {name: why for name, why in rows.absent().items() if name in methods}
        self._forget_changed_rows()

    def _forget_changed_rows(self) -> None:
        """Take away what a row drew before its preset changed."""
        file = self.folder / "rows.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        for name, made in self.recipes.items():
            if name in before and before[name] != made:
                print(f"{name} has changed: its pictures are drawn again", file=sys.stderr)
                for place in (*self.folder.glob("*x"), *self.folder.glob("figures*/*x")):
                    shutil.rmtree(place / name, ignore_errors=True)
        write_json(self.recipes, file)

    def place(self, job: Job) -> Path:
        """Where a picture's figures are."""
        return self.figures / f"{job.scale}x" / job.name / f"{job.seed}.npz"

    def missing(self) -> list[Job]:
        """Pictures to draw, in order."""
        jobs = self.plan.jobs(self.absent)
        return [job for job in jobs if not (self.is_stored(job) or self.place(job).exists())]

    def is_stored(self, job: Job) -> bool:
        """Whether the repository has a picture's figures, of the row as it is made today."""
        known = self.stored.made.get("rows", {}).get(job.name) == self.recipes.get(job.name)
        return known and job.seed in self.stored.pictures.get((job.scale, job.name), ())

    def draw(self, job: Job) -> None:
        """Draw a picture, and measure it and the reference of its seed."""
        name, seed, scale = job
        reference = Job(REFERENCE, seed, scale)
        for each in (job,) if self.place(reference).exists() else (reference, job):
            if each.name == REFERENCE:
                path, native, cost = self.gallery.render(seed, 0, scale), None, Cost()
            else:
                path = self.gallery.picture(name, seed, scale)
                (native,), cost = load([self.gallery.native_picture(seed)]), cost_of(path)
            compared = native is not None and self.gallery.methods[name].kind != "truth"
            (picture,) = load([path])
            found = figures.measure(picture, native, seed, self.plan.crops, cost, compared)
            results.save_picture(self.place(each), found)

    def run(self, minutes: float, share: Share = (0, 1)) -> int:
        """Draw until the time is over; how many pictures of the share are still missing."""
        end = time.monotonic() + 60 * minutes
        part, parts = share
        jobs = [job for job in self.missing() if job.seed % parts == part]
        for done, job in enumerate(bar := tqdm(jobs, unit="picture")):
            if time.monotonic() >= end:
                return len(jobs) - done
            bar.set_postfix_str(f"{job.scale}x {job.name} {job.seed}")
            self.draw(job)
        return 0

    def rows(self) -> Rows:
        """What was drawn."""
        from .speed_meter import facts

        made = {
            "weights": self.gallery.recipe["weights"],
            "recipe": self.plan.recipe,
            "machine": facts(),
            "rows": self.recipes,
            "absent": self.absent,
        }
        return results.read_folder(self.figures, made)

    def keep_pictures(self, folder: Path) -> None:
        """Copy the pictures that the report shows."""
        for scale, count in self.plan.shown.items():
            for seed in range(self.plan.first_seed, self.plan.first_seed + count):
                for name in self.plan.rows_of(scale):
                    path = self.gallery.place(name, seed, scale)
                    out = folder / "pictures" / f"{scale}x" / str(seed) / f"{name}.webp"
                    if path.exists() and (not out.exists() or newer(path, out)):
                        out.parent.mkdir(parents=True, exist_ok=True)
                        with Image.open(path) as image:
                            image.convert("RGB").save(out, **SHOWN)


def newer(path: Path, other: Path) -> bool:
    """Whether a file was written after another one."""
    return path.stat().st_mtime > other.stat().st_mtime


def store(drawing: Drawing, replace: bool, folder: Path = results.STORED) -> Rows:
    """Put what was drawn with what is stored already."""
    drawn = drawing.rows()
    if (folder / "tournament.npz").exists() and not replace:
        drawn = results.merged(results.load(folder), drawn)
    elif replace and drawn.pictures:
        results.clear(folder)
    results.save(drawn, folder)
    drawing.keep_pictures(folder)
    return drawn


def refuse_other_weights(plan: Plan) -> None:
    """Before an hour is spent: what is drawn will be stored with what is there."""
    made = {"weights": fingerprint(), "recipe": plan.recipe}
    if (results.STORED / "tournament.npz").exists():
        results.merged(Rows(results.load().made), Rows(made))


def exploring(plan: Plan, args: argparse.Namespace) -> Plan:
    """The same on other seeds, and perhaps for some rows and scales only."""
    names = {name for part in plan.parts for name in part.methods}
    if unknown := {*args.methods} - names:
        raise ValueError(f"no row is called {', '.join(unknown)}: use {', '.join(sorted(names))}")
    scales = args.scale or plan.scales
    parts = [
        Part(scale, args.explore, tuple(n for n in plan.rows_of(scale) if n in args.methods))
        if args.methods
        else Part(scale, args.explore, tuple(plan.rows_of(scale)))
        for scale in scales
    ]
    return dataclasses.replace(plan, first_seed=EXPLORING, parts=tuple(parts), shown={})


def tables(found: Rows, plan: Plan) -> str:
    """Tables of all scales as Markdown."""
    parts = []
    for scale in found.scales:
        standings = Table(found, plan, scale).standings()
        parts.append(f"{scale}×:\n\n{markdown(standings, plan)}")
    return "\n\n".join(parts)


def in_background(folder: Path) -> None:
    """The same command without a terminal, its output in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [a for a in sys.argv[1:] if a != "--background"]
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.bench.tournament", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    print(f"drawing as process {process.pid}; see {folder / LOG}")


def draw(args: argparse.Namespace) -> None:
    """The command of that name."""
    folder = Path("lab/runs/explore") if args.explore else FOLDER
    plan = plan_of()
    if args.explore:
        plan = exploring(plan, args)
    elif args.methods or args.scale:
        raise ValueError("--methods and --scale are for --explore: the plan says what is drawn")
    elif not args.replace:
        refuse_other_weights(plan)
    if args.background:
        return in_background(folder)
    os.nice(args.nice)
    torch.set_num_threads(args.threads)
    stored = None if args.explore or args.replace else results.load_if_there()
    drawing = Drawing(plan, folder, stored=stored)
    for name, reason in drawing.absent.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    left = drawing.run(args.minutes, args.share)
    if args.share[1] > 1:  # each process would write over what another one stored
        print("drawn; `draw --minutes 0` stores all shares", file=sys.stderr)
        return
    found = drawing.rows() if args.explore else store(drawing, args.replace)
    print(tables(found, plan))
    if left:
        print(f"{left} pictures are still missing: run it again", file=sys.stderr)


def share(text: str) -> Share:
    """ "1/2" -> (1, 2)."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: write a share as 0/2 or 1/2")
    return int(part), int(parts)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("command", choices=("draw", "table", "publish"))
    p.add_argument("--minutes", type=float, default=60, help="stop drawing after so long")
    p.add_argument("--explore", type=int, default=0, metavar="N", help="draw N seeds to look at")
    p.add_argument("--methods", nargs="+", default=[], help="rows to explore")
    p.add_argument("--scale", type=int, nargs="+", default=[], help="scales to explore")
    p.add_argument("--replace", action="store_true", help="drop what other weights have drawn")
    p.add_argument("--background", action="store_true", help="go on without this terminal")
    p.add_argument("--nice", type=int, default=19, help="0 for the usual priority")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument(
        "--share", type=share, default=(0, 1), metavar="I/N",
        help="of N processes side by side, the one that draws every N-th seed; stores nothing",
    )  # fmt: skip
    args = p.parse_args()
    try:
        if args.command == "draw":
            draw(args)
        elif args.command == "table":
            print(tables(results.load(), plan_of()))
        else:
            published.write(results.load_if_there(), plan_of())
    except (ValueError, FileNotFoundError) as problem:
        p.error(str(problem))


if __name__ == "__main__":
    main()
