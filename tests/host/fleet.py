"""A table on several servers as somebody starts it from a shell, to be watched and disturbed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import requests

from tools.host import ROOT, find_host

PATIENCE = 900.0  # seconds; a busy machine starts several servers in minutes
STARTED: list[Running] = []
TESTPACK = Path(__file__).with_name("testpack")


def picture(seconds: float = 0.05) -> dict[str, Any]:
    """A small picture of the demo model, that takes `seconds` more than it has to."""

    def node(kind: str, title: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}

    return {
        "1": node("HRF_LoadDemoModel", "Demo model", variant="base"),
        "5": node("CLIPTextEncode", "Prompt", text="a red balloon", clip=["1", 1]),
        "6": node("EmptyLatentImage", "Size", width=64, height=64, batch_size=1),
        "2": node("KSampler", "Draw", model=["1", 0], positive=["5", 0], negative=["5", 0],
                  latent_image=["6", 0], seed=1, steps=2, cfg=1.0, sampler_name="euler",
                  scheduler="normal", denoise=1.0),
        "3": node("HRFT_Slow", "Wait", samples=["2", 0], seconds=seconds),
        "4": node("VAEDecode", "Decode", samples=["3", 0], vae=["1", 2]),
        "7": node("SaveImage", "Save", images=["4", 0], filename_prefix="runs"),
    }  # fmt: skip


def workflow(folder: Path, prompt: dict[str, Any]) -> Path:
    """The workflow as a file."""
    path = folder / "workflow.json"
    path.write_text(json.dumps(prompt), encoding="utf-8")
    return path


def table(path: Path, seeds: Iterable[Any], **more: Iterable[Any]) -> None:
    """A table of seeds, and of other columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["seed", *(name.replace("__", ".") for name in more)])
        lines.writerows(zip(seeds, *more.values(), strict=True))


def user_host(folder: Path) -> Path:
    """A ComfyUI as a user has it, with the test pack among its custom nodes."""
    host = folder / "ComfyUI"
    if not host.exists():
        host.mkdir()
        for name in ("main.py", "comfy", "comfyui_version.py"):
            (host / name).symlink_to(find_host() / name)
        for name in ("custom_nodes", "models", "input"):
            (host / name).mkdir()
        (host / "custom_nodes" / "testpack").symlink_to(TESTPACK)
    return host


class Running:
    """A table in another process."""

    def __init__(self, folder: Path, process: subprocess.Popen, out: Path) -> None:
        self.folder, self.process, self.out = folder, process, out
        self.begun = time.monotonic()

    def rows(self) -> int:
        """Rows that are done."""
        journal = self.out / "rows.jsonl"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def servers(self) -> list[psutil.Process]:
        """The ComfyUI processes that were started for it, whoever owns them by now."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            main = str(self.folder / "ComfyUI" / "main.py")
            if main in words and not any(word.endswith("keeper.py") for word in words):
                found.append(process)
        return found

    def kill_a_server(self, sign: int = signal.SIGKILL) -> None:
        """`kill -9`, or another signal, for one that is drawing a row."""
        busy: list[psutil.Process] = []

        def found() -> bool:
            busy.extend(process for process in self.servers() if draws(process))
            return bool(busy)

        wait_for(self, found)
        os.kill(busy[0].pid, sign)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said, when it has ended and its servers with it."""
        self.process.wait(PATIENCE)
        deadline = time.monotonic() + 60
        while self.servers() and time.monotonic() < deadline:
            time.sleep(0.5)
        return self.process.returncode, (self.folder / "stderr").read_text(encoding="utf-8")


def draws(process: psutil.Process) -> bool:
    """Whether a server has something in hand just now."""
    words = process.info["cmdline"]
    address = f"http://127.0.0.1:{words[words.index('--port') + 1]}/queue"
    try:
        return bool(requests.get(address, timeout=60).json()["queue_running"])
    except (requests.RequestException, ValueError):
        return False


def start_table(folder: Path, file: Path, *words: str, out: str = "many") -> Running:
    """`python -m tools table t.csv FILE …` in the checkout, servers on the CPU."""
    command = [sys.executable, "-m", "tools", "table", str(folder / "t.csv"), str(file)]
    if "--server" not in words:
        words = (*words, "--cpu", "--comfyui", str(user_host(folder)))
    with (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [*command, "--out", str(folder / out), *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
            # a suite in a shell's background ignores SIGINT, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    STARTED.append(Running(folder, process, folder / out))
    return STARTED[-1]


def end_all() -> None:
    """What a test that failed has left running."""
    for running in STARTED:
        if running.process.poll() is None:
            running.process.kill()
            running.end()
    STARTED.clear()


def wait_for(running: Running, condition: Callable[[], bool]) -> None:
    """Until that is so; an error if the table ends before it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        said = (running.folder / "stderr").read_text(encoding="utf-8")
        assert running.process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
