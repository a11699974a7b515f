"""The pictures of the README and the model card: `python -m lab.bench.showcase`

    docs/compare.jpg    one caption and seed: enlarged, and what methods make of it
    demo/samples.jpg    native pictures of 32 seeds that nobody chose

What they show is chosen by --seed and --first alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..files import ROOT
from ..pack import Session
from ..pictures import save_small, scaled, sheet, to_image
from ..scenes.wishes import wish
from .model_figures import drawn
from .rows import rows
from .task import Task, draw_native

COMPARED = ("bicubic", "MultiDiffusion", "tiled img2img", "HiRes Fusion fast", "HiRes Fusion best")
SAID = {"bicubic": "native, enlarged", "MultiDiffusion": "MultiDiffusion alone"}


def compare(path: Path, seed: int, scale: float, width: int) -> None:
    """The rows of COMPARED for one caption, side by side."""
    session, known = Session(steps=20), rows()
    prompt = wish(seed).prompt
    task = Task(session, prompt, seed, scale, draw_native(session, prompt, seed))
    cells = [
        (SAID.get(name, name), scaled(to_image(known[name].draw(task)), width)) for name in COMPARED
    ]
    save_small(sheet(cells, len(cells)), path)


def samples(path: Path, first: int) -> None:
    """32 native pictures."""
    pictures = drawn(Session(), range(first, first + 32), 5.0, 25)
    cells = [
        ("" if k % 8 else f"seeds {first + k}..", scaled(to_image(picture[None]), 192))
        for k, picture in enumerate(pictures)
    ]
    save_small(sheet(cells, 8), path, 400_000)


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seed", type=int, default=7010, help="caption and noise of the comparison")
    p.add_argument("--scale", type=float, default=3.0)
    p.add_argument("--width", type=int, default=384, help="of a panel, pixels")
    p.add_argument("--first", type=int, default=2000, help="first seed of the samples")
    p.add_argument("--only", choices=("compare", "samples"))
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.only != "samples":
        compare(ROOT / "docs" / "compare.jpg", args.seed, args.scale, args.width)
    if args.only != "compare":
        samples(ROOT / "demo" / "samples.jpg", args.first)


if __name__ == "__main__":
    main()
