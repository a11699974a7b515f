"""Instruments of the speed benchmark: model calls and their time, FLOPs, limits, memory."""

from __future__ import annotations

import functools
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..pack import Session
from .overhead import resident

KEY = "hires_fusion_meter"
SHORTEST = 0.3  # seconds that a repeated measurement lasts at least


class Call(NamedTuple):
    """One call of the model; `attention` is what its windows of attention are, None without."""

    shape: tuple[int, ...]
    seconds: float
    attention: Any = None


class Meter:
    """Notes every call of a session's model, from whichever node it comes.

    The session's MODEL is replaced by a clone with a wrapper around the host's `apply_model`.
    """

    def __init__(self, session: Session):
        from comfy.patcher_extension import WrappersMP

        session.model = session.model.clone()
        session.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._note)
        self.base = session.model.model
        self.gpu = session.model.load_device.type == "cuda"
        # Of a CPU the process's own time, so that other programs on the machine don't count.
        self.clock = time.perf_counter if self.gpu else time.process_time
        self.windows, self.window_wrappers = _windows_of_attention()
        self._marks: list[tuple] = []
        self._examples: dict[tuple, tuple] = {}
        self._flops: dict[tuple, int] = {}

    def _note(self, executor, x, t, c_concat, c_crossattn, control, options, **conds) -> Tensor:
        before = self._mark()
        out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        self._marks.append((tuple(x.shape), before, self._mark(), options.get(self.windows)))
        self._examples.setdefault(tuple(x.shape), (x, t, c_crossattn, conds))
        return out

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A network's forward whose calls are noted, for one that the host does not call."""

        def noted(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            before = self._mark()
            out = forward(x, *args, **kwargs)
            self._marks.append((tuple(x.shape), before, self._mark(), None))
            return out

        return noted

    def _mark(self) -> Any:
        if not self.gpu:
            return self.clock()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    def start(self) -> tuple[float, float]:
        """Forget the calls so far, and start the clocks."""
        self._marks.clear()
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()
        return time.perf_counter(), self.clock()

    def stop(self, started: tuple[float, float]) -> tuple[float, float, list[Call], float]:
        """(seconds, seconds of the device's work, calls, peak memory in MiB) since `start`."""
        if self.gpu:
            torch.cuda.synchronize()
        seconds, busy = time.perf_counter() - started[0], self.clock() - started[1]
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.gpu else resident("VmHWM")
        calls = [
            Call(shape, before.elapsed_time(after) / 1000 if self.gpu else after - before, windows)
            for shape, before, after, windows in self._marks
        ]
        return seconds, busy, calls, peak

    def _replay(self, shape: tuple[int, ...], batch: int, attention: Any = None) -> None:
        """A call as one of this shape was, with another batch and windows of attention."""
        x, t, context, conds = self._examples[shape]

        def repeated(tensor: Tensor) -> Tensor:
            times = -(-batch // len(tensor))
            return tensor.repeat(times, *[1] * (tensor.ndim - 1))[:batch]

        conds = {k: repeated(v) if isinstance(v, Tensor) else v for k, v in conds.items()}
        options = {self.windows: attention, "wrappers": self.window_wrappers} if attention else {}
        given = (repeated(x), repeated(t), None, repeated(context), None, options)
        self.base.apply_model(*given, **conds)

    def flops(self, calls: list[Call]) -> int:
        """Floating point operations of calls: two a multiply-add, counted once for each kind."""
        total = 0
        for kind, count in Counter((call.shape, call.attention) for call in calls).items():
            if kind not in self._flops:
                shape, attention = kind
                counter = FlopCounterMode(display=False, custom_mapping=_attention())
                with counter:
                    self._replay(shape, shape[0], attention)
                self._flops[kind] = counter.get_total_flops()
            total += count * self._flops[kind]
        return total

    def best_native(self, native: int, batches: tuple[int, ...]) -> tuple[float, int]:
        """(seconds of one evaluation at the native size, the batch at which it is least)."""
        shape = next(s for s in self._examples if s[-2:] == (native, native))
        found = []
        for batch in batches:
            try:
                seconds = self._repeat(functools.partial(self._replay, shape, batch))
            except torch.OutOfMemoryError:
                break
            found.append((seconds / batch, batch))
        return min(found)

    def matrix_rate(self) -> float:
        """Floating point operations a second of large matrix products in the model's dtype."""
        dtype = self.base.manual_cast_dtype or self.base.get_dtype()
        side = 8192 if self.gpu else 1536
        device = "cuda" if self.gpu else "cpu"
        a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
        return 2 * side**3 / self._repeat(lambda: torch.mm(a, b))

    def _repeat(self, work) -> float:
        """Least seconds of a piece of work; the first call warms up."""
        work()
        seconds: list[float] = []
        while sum(seconds) < SHORTEST or len(seconds) < 2:
            if self.gpu:
                torch.cuda.synchronize()
            started = self.clock()
            work()
            if self.gpu:
                torch.cuda.synchronize()
            seconds.append(self.clock() - started)
        return min(seconds)


def _windows_of_attention() -> tuple[str, dict]:
    """The option that holds their settings, and the wrappers that make them."""
    from hires_fusion.sampling.attention import KEY as WINDOWS
    from hires_fusion.sampling.attention import WRAPPERS

    return WINDOWS, {kind: {WINDOWS: [wrapper]} for kind, wrapper in WRAPPERS.items()}


def _attention() -> dict:
    """The CPU's fused attention, which PyTorch's counter does not know."""

    def count(query, key, value, *_, **__) -> int:
        return sdpa_flop_count(query, key, value)

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: count}


def forget_peak() -> None:
    """Let Linux measure this process's peak of memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def facts() -> dict[str, str]:
    """What a figure depends on: device, versions, commit."""
    from tools.host import ROOT, find_host, version_of

    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if gpu else processor(),
        "threads": "" if gpu else str(torch.get_num_threads()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "" if gpu else "",
        "comfyui": version_of(find_host()),
        "python": platform.python_version(),
        "commit": commit or "unknown",
    }


def processor() -> str:
    """The CPU's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return text.split("model name")[1].split(":", 1)[1].splitlines()[0].strip()
