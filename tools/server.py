"""A ComfyUI server process with only this pack in it, and nothing of the user's touched.

All of its folders (custom_nodes, input, output, temp, user, database) lie in a scratch folder;
the pack is a link in its custom_nodes. A yaml with a custom_nodes path would serve too, but it
loads every sibling of the checkout, and the menu would show the folder's name of the day.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.host import PACK_NAME, ROOT, HostError, find_host, python_of

NODE_PREFIX = "HRF_"
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
PORT_TAKEN = re.compile(r"address already in use|Errno 98|Errno 48|WinError 10048", re.I)
# What the host logs about a pack that it goes on without.
FAILED_IMPORT = re.compile(
    r"Cannot import .* module for custom nodes|Error while calling comfy_entrypoint"
    r"|Skip .* module for custom nodes|\(IMPORT FAILED\)"
)


@dataclass
class Server:
    """A running server: where it answers, its scratch folder, its log."""

    url: str
    base: Path
    log: Path
    process: subprocess.Popen

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 25) -> str:
        """Last lines of the log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def get_json(self, path: str, timeout: float = 60) -> dict:
        """Answer of a GET request."""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return json.load(answer)


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port`."""
    with socket.socket() as probe:
        # As the server does it: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def has_accelerator(python: Path) -> bool:
    """Whether torch in that interpreter sees a GPU."""
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 3)"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if asked.returncode in (0, 3):
        return asked.returncode == 0
    reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
    raise HostError(
        f"{python} cannot import torch ({reason}): "
        "set COMFYUI_PYTHON to the interpreter that runs your ComfyUI"
    )


def _arguments(host: Path, base: Path, cpu: bool) -> list[str]:
    """Flags that keep the server inside `base`, as far as this host's version knows them."""
    known = (host / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    wanted = [
        ("--base-directory", str(base)),
        *((f"--{name}-directory", str(base / name)) for name in ("input", "output", "user")),
        # The host adds /temp itself.
        ("--temp-directory", str(base)),
        ("--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"),
        ("--disable-auto-launch",),
        ("--disable-api-nodes",),
        ("--disable-all-custom-nodes",),
    ]
    flags = [part for flag in wanted if f'"{flag[0]}"' in known for part in flag]
    return flags + (["--cpu"] if cpu else [])


def _environment() -> dict[str, str]:
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    dropped = ("PYTHONPATH", "PYTHONHOME")
    return {k: v for k, v in os.environ.items() if k not in dropped} | quiet


def _stop(process: subprocess.Popen) -> None:
    """End the server's whole process group: politely, then not."""
    for sign, patience in ((signal.SIGINT, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived it


def _wait_ready(server: Server, patience: float) -> None:
    """Return when the server answers; raise if it ends or takes too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not server.alive():
            raise HostError(f"ComfyUI ended while starting; its last lines:\n{server.tail()}")
        try:
            server.get_json("/system_stats", timeout=5)
            return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(0.2)
    raise HostError(f"ComfyUI did not answer in {patience:.0f} s; last lines:\n{server.tail()}")


def check_packs(server: Server, packs: Mapping[str, Path]) -> None:
    """Raise, with the traceback, if a pack failed to import or brought no nodes.

    The host only warns, and then runs without the pack.
    """
    log = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [i for i, line in enumerate(log) if FAILED_IMPORT.search(line)]
    if failed:
        starts = [i for i, line in enumerate(log[: failed[0]]) if "Traceback (most recent" in line]
        first = starts[-1] if starts else failed[0]
        raise HostError("a pack failed to import:\n" + "\n".join(log[first : failed[0] + 1]))
    nodes = server.get_json("/object_info")
    if PACK_NAME in packs and not any(name.startswith(NODE_PREFIX) for name in nodes):
        raise HostError(f"the pack loaded, but brought no {NODE_PREFIX} node:\n{server.tail()}")


def _start(
    command: list[str],
    port: int | None,
    base: Path,
    log: Path,
    packs: Mapping[str, Path],
    patience: float,
) -> Server:
    """A server that answers and has its packs."""
    for attempt in (1, 2, 3):
        server = _launch(command, port or free_port(), base, log)
        try:
            _wait_ready(server, patience)
            check_packs(server, packs)
            return server
        except BaseException as problem:
            ended = not server.alive()
            _stop(server.process)
            # Between asking for a free port and listening on it, another may have taken it.
            taken = isinstance(problem, HostError) and ended and PORT_TAKEN.search(server.tail())
            if not taken or attempt == 3:
                raise
            if port:
                raise HostError(f"port {port} is in use: give another PORT=") from None
    raise AssertionError("unreachable")


@contextlib.contextmanager
def start_server(
    *,
    packs: Mapping[str, Path] | None = None,
    host: Path | None = None,
    port: int | None = None,
    cpu: bool | None = None,
    extra_args: Sequence[str] = (),
    log: Path | None = None,
    patience: float = 300,
) -> Iterator[Server]:
    """Run a server until the block ends.

    packs: folder name in custom_nodes -> folder (this pack alone if not given);
    cpu: run without a GPU (None: if torch sees none); log: keep the log there.
    """
    host = host or find_host()
    packs = {PACK_NAME: ROOT} if packs is None else packs
    python = python_of(host)
    cpu = not has_accelerator(python) if cpu is None else cpu
    if port is not None and not port_is_free(port):
        raise HostError(f"port {port} is in use: stop what listens there, or give another PORT=")
    base = Path(tempfile.mkdtemp(prefix="hires-fusion-"))
    log = log or base / "server.log"
    try:
        for name in FOLDERS:
            (base / name).mkdir()
        # What Load Image shows before a picture is chosen.
        shutil.copy(ROOT / "demo" / "example.png", base / "input")
        for name, folder in packs.items():
            (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
        command = [str(python), str(host / "main.py"), *_arguments(host, base, cpu)]
        if packs:
            command += ["--whitelist-custom-nodes", *packs]
        command += extra_args
        server = _start(command, port, base, log, packs, patience)
        try:
            yield server
        finally:
            _stop(server.process)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _launch(command: list[str], port: int, base: Path, log: Path) -> Server:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1", "--port", str(port)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=base,
            env=_environment(),
            start_new_session=True,
        )
    return Server(f"http://127.0.0.1:{port}", base, log, process)
