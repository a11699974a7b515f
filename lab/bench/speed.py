"""How fast is each method, and how fast could it be? `python -m lab.bench.speed`

Runs the demo model, and on a GPU SDXL's architecture with random weights at 2048, 3072 and 4096
pixels (`--tiny` runs a tiny image of it anywhere), to the finished latent; its decoding is a row of
its own. Every model call is noted, so a row tells what was computed beside how long it took:

- "of the limit": seconds of as many evaluations of the model at its native size, each at the
  batch that suits the device best, over the seconds of the run;
- "of the matrix rate": achieved over measured floating point operations a second of large matrix
  products in the model's dtype;
- "outside": share of the time spent outside the model.

Seconds are those of a clock on the wall. TFLOP/s and all shares are, on a CPU, of the process's
own time, in which other programs on the machine don't count.

Nodes of other packs that the host has, and diffusers, do the same work in the same process after
ours, because some change the host while they load; then MultiDiffusion runs again. Absent ones
have a row that says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pack import Session
from . import speed_diffusers, speed_others
from .methods import from_noise, multidiffusion
from .speed_meter import Meter, facts
from .speed_methods import OURS, Work, from_scratch, native
from .speed_models import RandomSDXL
from .task import Task

PROMPT = "a red hot-air balloon over snowy mountains by day"
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # of the limit


class Row(NamedTuple):
    """One run of one method; seconds is None where it could not be done, and the note says why.

    Attributes:
        busy: seconds of the device's work: processor time, on a GPU the same as `seconds`.
        stages: seconds of each sampling run in it.
        calls, evaluations: of the model; an evaluation is one latent of a call's batch.
        at_native: every evaluation was of the native size.
        flops: floating point operations of all calls.
        outside: share of the time spent outside the model.
        peak: memory in MiB; the process's on a CPU, the allocator's on a GPU.
    """

    method: str
    scale: int
    note: str = ""
    seconds: float | None = None
    busy: float = 0.0
    stages: tuple[float, ...] = ()
    calls: int = 0
    evaluations: int = 0
    at_native: bool = False
    flops: int = 0
    outside: float = 0.0
    peak: float = 0.0


class Limits(NamedTuple):
    """What the device can do at best, as measured beside the runs.

    Attributes:
        native_seconds: of one evaluation at the native size.
        native_batch: the batch at which it is least.
        matrix_rate: operations a second.
    """

    native_seconds: float
    native_batch: int
    matrix_rate: float

    def better(self, other: Limits) -> Limits:
        """The faster of two measurements of each."""
        native = min(self[:2], other[:2])
        return Limits(*native, max(self.matrix_rate, other.matrix_rate))

    def shares(self, row: Row) -> dict[str, float | None]:
        """What a row reached of each limit; None where it cannot be said."""
        at_best = row.evaluations * self.native_seconds if row.at_native else None
        return {
            "of_limit": at_best and at_best / row.busy,
            "of_matrix_rate": row.flops / row.busy / self.matrix_rate if row.flops else None,
        }


AGAIN = "MultiDiffusion, again"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Bench:
    """A model with its instruments, and the limits that runs are held against."""

    def __init__(self, session: Session, repeats: int):
        self.session, self.repeats = session, repeats
        self.meter = Meter(session)
        self._stages: list[float] = []
        from comfy.patcher_extension import WrappersMP

        def timed(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            started = time.perf_counter()
            out = executor(*args, **kwargs)
            if self.meter.gpu:
                torch.cuda.synchronize()
            self._stages.append(time.perf_counter() - started)
            return out

        session.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "hires_fusion_bench", timed)
        self.native = self.run("native", native, 1)
        self.limits = self.measure_limits()

    def measure_limits(self) -> Limits:
        """The limits as they are now."""
        best = self.meter.best_native(self.session.native, BATCHES)
        return Limits(*best, self.meter.matrix_rate())

    def run(self, name: str, work: Work, scale: int) -> Row:
        """Warm up with one step a stage, then measure; of several repeats the median one."""
        steps, self.session.steps = self.session.steps, 1
        try:
            work(self.session, PROMPT, 7, scale)
        finally:
            self.session.steps = steps
        runs = []
        for _ in range(self.repeats):
            self._stages.clear()
            started = self.meter.start()
            work(self.session, PROMPT, 7, scale)
            runs.append((*self.meter.stop(started), tuple(self._stages)))
        median = statistics.median_low(run[0] for run in runs)
        seconds, busy, calls, peak, stages = next(run for run in runs if run[0] == median)
        side = self.session.native
        return Row(
            name,
            scale,
            seconds=seconds,
            busy=busy,
            stages=stages or (seconds,),
            calls=len(calls),
            evaluations=sum(call.shape[0] for call in calls),
            at_native=bool(calls) and all(call.shape[-2:] == (side, side) for call in calls),
            flops=self.meter.flops(calls),
            outside=1 - sum(call.seconds for call in calls) / busy,
            peak=peak,
        )

    def rows(
        self,
        scales: list[int],
        packs: list[Path],
        others: list[speed_others.Other],
        only: list[str] | None = None,
    ) -> list:
        """Our methods, then those of others; `only` some of ours."""
        found = [self.native]
        for scale in scales:
            found += [self._row(name, OURS[name], scale) for name in only or OURS]
        if only:
            return found
        if isinstance(self.session, RandomSDXL):
            pipeline = speed_diffusers.work(self.meter.around)
            for scale in (1, *scales):
                found.append(self._row(speed_diffusers.LABEL, pipeline, scale))
        # Some packs replace functions of the host when they are loaded.
        loaded = speed_others.load_packs(packs)
        print(f"packs: {', '.join(loaded) or 'none'}", file=sys.stderr)
        for scale in scales:
            found += [self._row(other.label, self._other(other), scale) for other in others]
            if loaded:  # beside them, in case the machine was busier before
                found.append(self._row(AGAIN, from_scratch(multidiffusion), scale))
        return found

    def _row(self, name: str, work: Work, scale: int) -> Row:
        """A row; one that says why where the work cannot be done."""
        try:
            row = self.run(name, work, scale)
        except speed_others.Absent as problem:
            row = Row(name, scale, f"absent: {problem}")
        except torch.OutOfMemoryError:
            row = Row(name, scale, "out of memory")
        except Exception as problem:
            if name in (*OURS, AGAIN):
                raise
            row = Row(name, scale, f"failed: {problem}")
        told = row.note or f"{row.seconds:.2f} s, {row.calls} calls, {row.peak:.0f} MiB"
        print(f"{name} {scale}×: {told}", file=sys.stderr, flush=True)
        return row

    def _other(self, other: speed_others.Other) -> Work:
        def work(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
            model = speed_others.patched(session, other, self.limits.native_batch)
            return from_noise(Task(session, prompt, seed, scale), model)

        return work


def table(rows: list[Row], limits: Limits) -> str:
    """A Markdown table."""
    head = (
        "method | scale | seconds | of its stages | model calls | evaluations | TFLOP/s | "
        "of the limit | of the matrix rate | outside | peak memory, MiB"
    )
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    for row in rows:
        if row.seconds is None:
            lines.append(f"| {row.method} | {row.scale}× | {row.note} |{' |' * 8}")
            continue
        shares = [*limits.shares(row).values(), row.outside]
        cells = [row.method, f"{row.scale}×", f"{row.seconds:.2f}"]
        cells.append(" + ".join(f"{seconds:.2f}" for seconds in row.stages))
        cells += [str(row.calls), str(row.evaluations), f"{row.flops / row.busy / 1e12:.3g}"]
        cells += ["–" if share is None else f"{share:.1%}" for share in shares]
        lines.append(f"| {' | '.join([*cells, f'{row.peak:.0f}'])} |")
    return "\n".join(lines)


def bench(session: Session, args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure one model, print its table, and return it as JSON holds it."""
    if args.compile:
        from comfy_extras.nodes_torch_compile import TorchCompileModel

        session.model = TorchCompileModel.execute(session.model, "inductor").result[0]
        name += ", compiled"
    with torch.inference_mode():
        made = Bench(session, args.repeats)
        others = [*speed_others.KNOWN]
        others += [speed_others.Other(node, node, {}) for node in args.node]
        rows = made.rows(args.scales, args.packs, others, args.methods)
        # The machine may have been busy the first time.
        limits = made.limits.better(made.measure_limits())
    print(
        f"\n{name}, {session.steps} steps a stage. One evaluation at the native size takes at "
        f"least {1000 * limits.native_seconds:.2f} ms (batch {limits.native_batch}); matrix "
        f"products run at {limits.matrix_rate / 1e12:.3g} TFLOP/s.\n\n{table(rows, limits)}\n",
        flush=True,
    )
    found = [row._asdict() | (limits.shares(row) if row.seconds else {}) for row in rows]
    return {"model": name, "steps": session.steps, **limits._asdict(), "rows": found}


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--models", default="", help="demo, sdxl or both; default: what the device can")
    p.add_argument("--tiny", action="store_true", help="a tiny image of SDXL instead, anywhere")
    p.add_argument("--dtype", choices=DTYPES, default="fp16", help="of SDXL")
    p.add_argument("--compile", action="store_true", help="by the host's TorchCompileModel")
    p.add_argument("--methods", nargs="*", choices=OURS, help="ours alone; all and others' without")
    p.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    p.add_argument("--steps", type=int, default=20, help="of every stage")
    p.add_argument("--repeats", type=int, default=1, help="runs of each method; the median counts")
    p.add_argument("--packs", type=Path, nargs="*", default=[], help="further custom_nodes folders")
    p.add_argument("--node", nargs="*", default=[], help="further MODEL -> MODEL nodes, by id")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=Path, default=Path("lab/runs/speed.json"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    models = args.models.split(",") if args.models else ["demo"]
    if not args.models and (args.tiny or torch.cuda.is_available()):
        models.append("sdxl")
    found, results = facts(), []
    for name in models:
        if name == "demo":
            results.append(bench(Session(args.steps), args, "Demo model"))
        else:
            kind = "fp32" if args.tiny else args.dtype
            label = f"{'Tiny ' if args.tiny else ''}SDXL in {kind} with random weights"
            session = RandomSDXL(args.steps, tiny=args.tiny, dtype=DTYPES[kind])
            results.append(bench(session, args, label))
    made = {**found, "results": results}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{key} {value}" for key, value in found.items() if value))


if __name__ == "__main__":
    main()
