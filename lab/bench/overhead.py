"""What do views cost beside the model's own work? `python -m lab.bench.overhead`

Speed: one evaluation of the denoiser through the view nodes against the same number of plain
model calls of the same batch, in turn, on the demo model; the median of the ratios counts.
Memory: by how much a DemoFusion run of two steps a stage raises the resident size of a process
that has already drawn a native picture, with 4 views a call.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..files import ROOT
from ..pack import Session, enter
from .task import NATIVE

PROMPT = "a red hot-air balloon over snowy mountains by day"


class Evaluation:
    """The demo model's denoiser on a canvas, prepared as in the middle of a sampling run."""

    def __init__(self, session: Session, scale: int, view_batch_size: int):
        from hires_fusion.sampling.denoiser import add_views
        from hires_fusion.sampling.plan import DilatedViews, LocalViews

        model = add_views(session.model, local=LocalViews(), view_batch_size=view_batch_size)
        self.model = add_views(model, dilated=DilatedViews())
        self.session = session
        self.side = NATIVE * scale
        self.batch = view_batch_size
        self.calls: list[tuple[int, ...]] = []

    def watch(self, rounds: int) -> tuple[list[float], list[float]]:
        """Seconds of an evaluation with views, and of its model calls alone, per round."""
        import comfy.samplers
        from comfy.patcher_extension import WrapperExecutor, WrappersMP

        viewed, plain = [], []

        def time_both(executor, model, conds, x, timestep, options):
            for _ in range(rounds + 1):
                started = time.perf_counter()
                out = executor(model, conds, x, timestep, options)
                viewed.append(time.perf_counter() - started)
                plain.append(self._plain(model, conds, timestep, options))
                self.calls.clear()
            return out

        def remember(executor, model, conds, x, timestep, options):
            self.calls.append(tuple(x.shape))
            return executor(model, conds, x, timestep, options)

        self._executor = WrapperExecutor.new_executor(comfy.samplers._calc_cond_batch, [])
        model = self.session.model.clone()
        kind = WrappersMP.CALC_COND_BATCH
        model.add_wrapper_with_key(kind, "time", time_both)
        for key, wrappers in self.model.wrappers[kind].items():
            model.model_options = self.model.model_options.copy()
            for wrapper in wrappers:
                model.add_wrapper_with_key(kind, key, wrapper)
        model.add_wrapper_with_key(kind, "remember", remember)
        steps, self.session.steps = self.session.steps, 1
        self.session.sample(PROMPT, torch.zeros(1, 4, self.side, self.side), 7, model)
        self.session.steps = steps
        return viewed[1:], plain[1:]  # the first round warms up

    def _plain(self, model, conds, timestep, options) -> float:
        """Seconds of the same model calls on ready tensors."""
        inputs = [torch.randn(shape) for shape in self.calls]
        started = time.perf_counter()
        for x in inputs:
            self._executor.execute(model, conds, x, timestep.repeat(len(x)), options)
        return time.perf_counter() - started


def speed(scale: int, view_batch_size: int, rounds: int, threads: int) -> str:
    """A row of the table of speeds."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        evaluation = Evaluation(Session(), scale, view_batch_size)
        viewed, plain = evaluation.watch(rounds)
    ratio = statistics.median(a / b for a, b in zip(viewed, plain, strict=True))
    views = (2 * scale - 1) ** 2 + scale**2
    rate = views / statistics.median(viewed)
    return f"| {scale}× | {view_batch_size} | {views} | {rate:.1f} | {100 * (ratio - 1):+.1f} % |"


def memory(scale: int) -> str:
    """A row of the table of memory: called in a process of its own."""
    from .methods import progressive
    from .task import Task, draw_native

    enter()
    from hires_fusion.sampling.denoiser import add_views

    session = Session(steps=2)
    session.model = add_views(session.model, view_batch_size=4)
    with torch.inference_mode():
        native = draw_native(session, PROMPT, 7)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        before = resident("VmRSS")
        latent = draw_native(session, PROMPT, 7)
        if scale > 1:
            latent = progressive(Task(session, PROMPT, 7, scale, native))
    cells = latent.shape[-1]
    return f"| {scale}× | {cells} × {cells} | {resident('VmHWM') - before:.0f} MiB |"


def resident(line: str) -> float:
    """A figure of this process from Linux, in MiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split(f"{line}:")[1].split()[0]) / 1024


def table(head: str, row: Callable[..., str], cases: list[tuple]) -> None:
    print(f"{head}\n{'|---' * (head.count('|') - 1)}|")
    for case in cases:
        print(row(*case), flush=True)
    print()


def in_new_process(scale: int) -> str:
    """`memory` in a fresh process."""
    command = [sys.executable, "-m", "lab.bench.overhead", "--memory", str(scale)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--memory", type=int, default=0, help="only the memory of this scale")
    args = p.parse_args()
    if args.memory:
        print(memory(args.memory))
        return
    cases = [(s, b, args.rounds, args.threads) for s, b in ((2, 4), (2, 16), (3, 16))]
    table("| scale | views a call | views | views/s | our share |", speed, cases)
    table(
        "| scale | canvas, cells | memory of the run |",
        in_new_process,
        [(s,) for s in (1, 2, 3, 4)],
    )


if __name__ == "__main__":
    main()
