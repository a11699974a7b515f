"""Does a single line show a seam? `python -m lab.studies.seams --seeds 16 --scales 2 3`

DemoFusion's pictures of the demo model with each kind of windows: the gradient across every line
between cells against that of the lines beside it (`lab.bench.measures.line_ratios`), the line that
has the largest, the middle line with its 95 % interval over seeds, and how often lines without
seams would have one as far from 1 (`lab.bench.measures.chance`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..bench.measures import chance, line_ratios
from ..bench.methods import STILL, progressive
from ..bench.task import Task, draw_native
from ..files import write_json
from ..pack import Session
from ..scenes.wishes import wish

KINDS = {
    "ours": {},
    "ours, uniform weights": {"weights": "uniform"},
    "published": {"border": "zero", "weights": "uniform"},
    "still, uniform weights": STILL,
}


def interval(log_ratios: Tensor) -> str:
    """The geometric mean over seeds and its 95 % interval, of (seeds,) logarithms."""
    mean, half = log_ratios.mean(), 1.96 * log_ratios.std() / len(log_ratios) ** 0.5
    low, middle, high = ((mean + k * half).exp().item() for k in (-1, 0, 1))
    return f"{middle:.2f} ({low:.2f}..{high:.2f})"


def row(ratios: Tensor) -> list[str]:
    """Cells of one table row, of (seeds, lines)."""
    mean, middle = ratios.mean(0), ratios.shape[1] // 2
    worst = int(mean.argmax())
    largest = f"{mean[worst].exp().item():.2f} on line {worst + 1}"
    return [largest, interval(ratios[:, middle]), f"{chance(ratios):.3f}"]


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--scales", type=float, nargs="+", default=[2.0])
    p.add_argument("--seeds", type=int, default=16, help="at least 2")
    p.add_argument("--first", type=int, default=5000, help="first seed")
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", type=Path, default=Path("lab/runs/seams"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    session, seeds = Session(args.steps), range(args.first, args.first + args.seeds)
    natives = {s: draw_native(session, wish(s).prompt, s) for s in tqdm(seeds, desc="native")}
    found = {}
    print(
        "| scale | windows | largest ratio | middle line | p of all lines |\n|---|---|---|---|---|"
    )
    for scale in args.scales:
        for kind in args.kinds:
            ratios = []
            for seed in tqdm(seeds, desc=f"{scale:g}x {kind}", leave=False):
                task = Task(session, wish(seed).prompt, seed, scale, natives[seed])
                latent = progressive(task, **KINDS[kind])
                ratios.append(line_ratios(session.decode(latent)))
            found[f"{scale:g}x {kind}"] = torch.cat(ratios).tolist()
            print("|", " | ".join([f"{scale:g}", kind, *row(torch.cat(ratios))]), "|", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json({"seeds": list(seeds), "log_ratios": found}, args.out / "seams.json")


if __name__ == "__main__":
    main()
