"""Draw prompts with the demo model into one labelled PNG.

python -m lab.training.sample_grid --out out/grid.png
python -m lab.training.sample_grid --prompts "a red lighthouse by a calm sea" --size 768 --seeds 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..pack import Session
from ..pictures import sheet, to_image
from .train_unet import PROMPTS


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", type=Path, help="folder of other weights than those in demo/")
    p.add_argument("--out", type=Path, default=Path("out/sample_grid.png"))
    p.add_argument("--prompts", nargs="*", default=list(PROMPTS))
    p.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    p.add_argument("--columns", type=int, default=4)
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    session = Session(args.steps, args.cfg, args.model)
    empty = torch.zeros(1, 4, args.size // 8, args.size // 8)
    cells = []
    with torch.inference_mode():
        for prompt in args.prompts:
            for seed in range(args.seeds):
                picture = session.decode(session.sample(prompt, empty, seed))
                cells.append((prompt, to_image(picture)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(cells, args.columns).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
