"""One ComfyUI server and the runs that it is given: attached to by its URL, or started here."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import client
from ..host import HostError
from ..server import Server, model_paths, start_server

NO_SPACE = re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded", re.I)
FLAGS = ("--cache-classic",)  # whatever newer hosts prefer: what a row saved stays known
OWNED = "hires_fusion"  # the key in the metadata of PNG files


@dataclass(frozen=True)
class Address:
    """Where a server answers that somebody else started."""

    url: str


class Gone(RuntimeError):
    """A server does not answer and cannot be brought back."""


class Worker:
    """Carries out one run at a time. Ray makes an actor of it as it is.

    url: the server to attach to; else one is started as `launch` says (keywords of
    `start_server`, and `models`: the ComfyUI whose models it may use);
    patience: seconds in which a living server answers; timeout: seconds that a run may take.
    """

    def __init__(
        self,
        url: str | None = None,
        launch: Mapping[str, Any] | None = None,
        patience: float = 60,
        timeout: float = 3600,
        previews: bool = False,
    ) -> None:
        self.url, self.launch = url, dict(launch or {})
        self.patience, self.timeout, self.previews = patience, timeout, previews
        self.on_progress: Callable[[client.Progress], None] | None = None
        self.started = contextlib.ExitStack()
        self.server: Server | None = None
        self.saved: set[Path] = set()
        self.queued: str | None = None
        self.met = False
        self.mishaps: list[str] = []
        self.closing = threading.Event()
        self.starting = threading.Lock()  # Ray asks for `info` and gives a row at the same time

    def info(self, classes: Iterable[str]) -> dict[str, Any]:
        """What the server tells of those node classes."""
        return client.definitions(self.address(), classes, self.patience)

    def here(self) -> bool:
        """True: that its process lives."""
        return True

    def run(self, prompt: client.Prompt, png_info: Mapping[str, Any]) -> dict[str, Any]:
        """What came of it, as one of

        - files [(node title, kind of file, name, content)], texts, previews, seconds, and mishaps,
          why servers were lost on the way to it;
        - error: the row's own fault; full: a disk is; gone: the server is, for good.

        ConnectionError: the server was lost on the way, try again.
        """
        try:
            return self.attempt(prompt, png_info)
        except client.NoServer as problem:
            reason = self.drop() or str(problem)
            self.mishaps.append(reason)
            raise ConnectionError(reason) from None
        except TimeoutError:
            if not self.url:
                self.drop()  # it may hang
            return {"error": f"it did not end within {self.timeout:g} s, and was stopped"}
        except client.PromptError as problem:
            kind = "full" if NO_SPACE.search(str(problem)) else "error"
            return {kind: str(problem)}
        except (Gone, HostError) as problem:
            return {"gone": str(problem)}

    def attempt(self, prompt: client.Prompt, png_info: Mapping[str, Any]) -> dict[str, Any]:
        """`run` without its care for failures."""
        address, begun = self.address(), time.monotonic()
        previews: list[bytes] = []
        try:
            result = client.submit(
                address,
                prompt,
                self.on_progress,
                self.timeout,
                on_preview=previews.append if self.previews else None,
                on_queued=lambda number: setattr(self, "queued", number),
                png_info={OWNED: png_info},
                patience=self.patience,
            )
        except client.NoServer:
            self.cancel()  # on a server that lost us, but not the run
            raise
        finally:
            self.queued = None
        result.raise_for_error()
        outcome = {
            "seconds": time.monotonic() - begun,
            "files": self.collect(address, prompt, result),
            "texts": texts(prompt, result),
            "previews": previews,
            "mishaps": self.mishaps,
        }
        self.mishaps = []
        if self.server:
            client.forget(address, result.prompt_id)
        return outcome

    def collect(self, address: Any, prompt: client.Prompt, result: client.Result) -> list[tuple]:
        """The files of a run; of a server of ours, those of the run before are then deleted."""
        named = [(node, file) for node in result.outputs for file in result.files(node)]
        kept = [pair for pair in named if pair[1].get("type") == "output"]
        if self.previews or not kept:
            kept = named
        files = [
            (client.title_of(prompt, node), Path(file["filename"]).suffix, file["filename"],
             client.fetch(address, file, self.patience))
            for node, file in kept
        ]  # fmt: skip
        if self.server:
            # A node that was cached shows the files of its last run, so these are kept for one.
            now = {
                self.server.base / file["type"] / file.get("subfolder", "") / file["filename"]
                for _, file in named
            }
            for path in self.saved - now:
                path.unlink(missing_ok=True)
            self.saved = now
        return files

    def address(self) -> Server | Address:
        """The server, started as need be; one that was met before is waited for."""
        if self.closing.is_set():
            raise Gone("it was told to stop")
        if not self.url:
            with self.starting:
                if self.server is None or not self.server.alive():
                    self.mishaps += filter(None, [self.drop()])
                    self.server = self.start()
                return self.server
        deadline = time.monotonic() + self.patience
        while True:
            try:
                client.ask(Address(self.url), "GET", "/system_stats", timeout=self.patience)
                self.met = True
                return Address(self.url)
            except client.NoServer as problem:
                if not self.met or time.monotonic() > deadline or self.closing.wait(1):
                    raise Gone(str(problem)) from None

    def start(self) -> Server:
        """A server of our own, which ends with this process in whatever way that ends."""
        options = dict(self.launch)
        extra = [*options.pop("extra_args", ()), *options.pop("flags", FLAGS)]
        models = options.pop("models", None)
        if models:
            folder = Path(self.started.enter_context(tempfile.TemporaryDirectory()))
            (folder / "models.yaml").write_text(model_paths(Path(models)), encoding="utf-8")
            extra = ["--extra-model-paths-config", str(folder / "models.yaml"), *extra]
        return self.started.enter_context(start_server(extra_args=extra, **options))

    def drop(self) -> str:
        """End our server if there is one; its last words."""
        words = ""
        if self.server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(2)  # its connections end a little before it does
            state = "did not answer" if self.server.alive() else "ended"
            last = textwrap.shorten(self.server.tail(1), 120) or "nothing"
            words = f"the server {state}; the last line of its log: {last}"
        self.server, self.saved = None, set()
        self.started.close()
        return words

    def cancel(self) -> None:
        """Stop what runs on a server that goes on without us."""
        if self.queued and self.url:
            with contextlib.suppress(client.PromptError):
                client.cancel(Address(self.url), self.queued)

    def close(self) -> None:
        """Stop what runs and the server that was started."""
        self.closing.set()
        self.cancel()
        self.drop()


def texts(prompt: client.Prompt, result: client.Result) -> dict[str, str]:
    """What nodes say in words, by their title."""
    return {
        client.title_of(prompt, node): "\n".join(map(str, shown["text"]))
        for node, shown in result.outputs.items()
        if shown.get("text")
    }
