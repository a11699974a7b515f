"""Does DemoFusion lean draw what DemoFusion draws? `python -m lab.studies.lean --seeds 8`

The same native picture and noise through *DemoFusion, pixel lift* whole, without the first steps of
its schedule, which the skip residual overwrites, and with the noise of another seed: what leaving
them out changes has to be less than what a seed does. PSNR and ST-LPIPS of whole pictures, paired,
with 95 % intervals, and the seed where it is at its worst.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch
from tqdm import tqdm

from evaluation.perceptual import ShiftTolerant

from ..bench.measures import fidelity
from ..bench.methods import progressive
from ..bench.paired import of_values
from ..bench.registered import EXPLORING
from ..bench.standings import number
from ..bench.task import Task, draw_native
from ..pack import Session
from ..scenes.wishes import wish

WHOLE = "DemoFusion, pixel lift"
OTHER = 50_000  # from a seed to the other one


def drawn(task: Task, starts: list[float], lpips: ShiftTolerant) -> list[tuple[float, float]]:
    """PSNR and ST-LPIPS of what each start changes, and last of what another seed changes."""
    decode = task.session.decode
    whole = decode(progressive(task, WHOLE))
    others = [decode(progressive(task, WHOLE, start=start)) for start in starts]
    others.append(decode(progressive(dataclasses.replace(task, seed=task.seed + OTHER), WHOLE)))
    return [(fidelity(other, whole), float(lpips(other, whole)[0])) for other in others]


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seeds", type=int, default=8, help="at least 3")
    p.add_argument("--starts", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4])
    p.add_argument("--first", type=int, default=EXPLORING + 500)
    p.add_argument("--scale", type=float, default=2.0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    session = Session(args.steps)
    lpips, found = ShiftTolerant(), []
    for seed in tqdm(range(args.first, args.first + args.seeds)):
        prompt = wish(seed).prompt
        native = draw_native(session, prompt, seed)
        found.append(drawn(Task(session, prompt, seed, args.scale, native), args.starts, lpips))
    values = np.asarray(found)  # seeds, (starts, other seed), (PSNR, ST-LPIPS)
    print("| what changes | PSNR, dB | ST-LPIPS | worst seed, dB | nearer than another seed, dB |")
    print("| --- | --- | --- | --- | --- |")
    for index, name in enumerate([*(f"start {start:g}" for start in args.starts), "another seed"]):
        psnr, lpips = (of_values(values[:, index, k], 4000) for k in (0, 1))
        cells = [name, number(psnr, 1), number(lpips, 4), f"{values[:, index, 0].min():.1f}"]
        gain = of_values(values[:, index, 0] - values[:, -1, 0], 4000)
        cells.append("" if index == len(args.starts) else number(gain, 1))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
