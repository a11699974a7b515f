"""The command that draws pictures of help pages, for the studies that make some."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image

from ..files import ROOT
from ..pictures import MOST_BYTES, save_small

PAGES = ROOT / "web" / "docs"
Cells = list[tuple[str, Image.Image]]  # a label and a picture


@torch.inference_mode()
def draw_pages(
    description: str,
    names: Iterable[str],
    prepare: Callable[[], Callable[[str], Image.Image]],
    most: int = MOST_BYTES,
) -> None:
    """Command line of a study.

    Args:
        description: what --help says.
        names: of the pictures, each that of a file without its ending.
        prepare: loads what is needed; its result makes the picture of a name.
        most: bytes of a file.
    """
    p = argparse.ArgumentParser(description=description)
    p.add_argument("names", nargs="*", default=list(names), help="of the pages' pictures")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=PAGES)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    draw = prepare()
    for name in args.names:
        path = args.out / f"{name}.jpg"
        save_small(draw(name), path, most)
        print(path, flush=True)
