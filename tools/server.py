"""A ComfyUI server process with only this pack in it, and nothing of the user's touched.

All of its folders (custom_nodes, input, output, temp, user, database) lie in a scratch folder;
the pack is a link in its custom_nodes. A yaml with a custom_nodes path would serve too, but it
loads every sibling of the checkout, and the menu would show the folder's name of the day.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host import PACK_NAME, ROOT, HostError, find_host, front_end, python_of

NODE_PREFIX = "HRF_"
EXAMPLE = "hires_fusion_example.png"  # every ComfyUI has an example.png of its own
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
PORTS = range(20_000, 60_000)
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")  # Linux; elsewhere from 49152 on
PORT_TAKEN = re.compile(r"address already in use|Errno 98|Errno 48|WinError 10048", re.I)
KEEPER = (sys.executable, "-I", str(Path(__file__).with_name("keeper.py")))
# What the host logs about a pack that it goes on without.
FAILED_IMPORT = re.compile(
    r"Cannot import .* module for custom nodes|Error while calling comfy_entrypoint"
    r"|Skip .* module for custom nodes|\(IMPORT FAILED\)"
)
# What a host logs when a function is used that it means to take away, and Python's own warning
# where the line that it names is in our pack.
OUTDATED = re.compile(
    r"(function|class|method|argument|parameter|node) (\S+ )?(is|has been) deprecated"
    r"|/custom_nodes/hires-fusion/[^.]\S+:\d+: (\w*Deprecation|Future)Warning",
    re.I,
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


def ephemeral_ports() -> range:
    """Ports that the system gives to connections.

    Who asks one of them whether a server is there may be given that very port for his end: the
    connection then reaches itself, answers with its own question, and the server finds it taken.
    """
    try:
        first, last = map(int, EPHEMERAL.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        first, last = 49_152, 65_535
    return range(first, last + 1)


def free_port() -> int:
    """A TCP port that nothing listens on now, outside the ephemeral ones where there are others."""
    given_away = ephemeral_ports()
    ports = [port for port in PORTS if port not in given_away] or list(PORTS)
    # Not the seeded generator: two runs with one seed would want the same port.
    for port in random.SystemRandom().sample(ports, min(200, len(ports))):
        if port_is_free(port):
            return port
    raise HostError(f"no free port among {min(ports)}..{max(ports)}: give one with PORT=")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port`."""
    with socket.socket() as probe:
        # As the server does it: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        except OverflowError:
            raise HostError(f"PORT={port} is no port: give one of 1..65535") from None
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
    page = front_end()
    wanted += [("--front-end-root", str(page))] if page else []
    flags = [part for flag in wanted if f'"{flag[0]}"' in known for part in flag]
    return flags + (["--cpu"] if cpu else [])


def _environment() -> dict[str, str]:
    import psutil  # not for all who only ask a server

    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    dropped = {"PYTHONPATH", "PYTHONHOME"}
    if "OMP_NUM_THREADS" not in psutil.Process().environ():
        # Ray's, for its workers. One thread is slow, and adds up to other last bits than many.
        dropped.add("OMP_NUM_THREADS")
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


def _is_ours(server: Server, stats: Any) -> bool:
    """Whether the server that answers is the process that was started, not one on its port."""
    system = stats.get("system") if isinstance(stats, dict) else None
    argv = system.get("argv") if isinstance(system, dict) else None
    return argv is not None and str(server.base) in argv


def _wait_ready(server: Server, patience: float) -> None:
    """Return when the server answers; raise if it ends or takes too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if not server.alive():
            raise HostError(f"ComfyUI ended while starting; its last lines:\n{server.tail()}")
        try:
            if _is_ours(server, server.get_json("/system_stats", timeout=5)):
                return
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
            pass
        time.sleep(0.2)
    raise HostError(f"ComfyUI did not answer in {patience:.0f} s; last lines:\n{server.tail()}")


def outdated(log: str) -> list[str]:
    """Lines of a host's log that say our nodes use something that it is about to take away."""
    return [line for line in log.splitlines() if OUTDATED.search(line)]


def check_packs(server: Server, packs: Mapping[str, Path]) -> None:
    """Raise, with the traceback, if one of the packs failed to import or brought no nodes.

    The host only warns, and then runs without the pack. Nodes of its own that it can't import are
    its affair.
    """
    log = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    ours = re.compile(rf"custom_nodes.({'|'.join(map(re.escape, packs))})\b")
    failed = [i for i, line in enumerate(log) if FAILED_IMPORT.search(line) and ours.search(line)]
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
    python: Path | None = None,
) -> Iterator[Server]:
    """Run a server until the block ends.

    packs: folder name in custom_nodes -> folder (this pack alone if not given);
    cpu: run without a GPU (None: if torch sees none); log: keep the log there;
    python: the interpreter that runs it (None: as `python_of` finds it).
    """
    host = host or find_host()
    packs = {PACK_NAME: ROOT} if packs is None else packs
    python = python or python_of(host)
    cpu = not has_accelerator(python) if cpu is None else cpu
    if port is not None and not port_is_free(port):
        raise HostError(f"port {port} is in use: stop what listens there, or give another PORT=")
    base = Path(tempfile.mkdtemp(prefix="hires-fusion-"))
    log = log or base / "server.log"
    try:
        for name in FOLDERS:
            (base / name).mkdir()
        # What Load Image shows before a picture is chosen; a package without the pack lacks it.
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(ROOT / "demo" / "example.png", base / "input" / EXAMPLE)
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


def model_paths(host: Path) -> str:
    """An extra_model_paths file that names every folder in `host`'s models folder."""
    folders = sorted(p.name for p in (host / "models").glob("*") if p.is_dir())
    lines = [f"  {name}: {name}" for name in folders]
    return "\n".join(["host:", f"  base_path: '{host / 'models'}'", *lines]) + "\n"


def _launch(command: list[str], port: int, base: Path, log: Path) -> Server:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*KEEPER, *command, "--listen", "127.0.0.1", "--port", str(port)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,  # closed when we end, in whatever way
            cwd=base,
            env=_environment(),
            start_new_session=True,
        )
    return Server(f"http://127.0.0.1:{port}", base, log, process)
