"""Find a ComfyUI and tell what it is. Standard library only: runs before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
OWN_HOST = ROOT / ".comfyui"
NEWEST_HOST = ROOT / ".comfyui-newest"
FRONT_ENDS = ROOT / ".cache" / "front-ends"
PACK_NAME = "hires-fusion"
FLOOR = (0, 3, 75)


class HostError(RuntimeError):
    """Something outside the code is wrong; the message says in one line what to do."""


def is_host(folder: Path) -> bool:
    """Whether `folder` holds a whole ComfyUI."""
    return (folder / "main.py").is_file() and (folder / "comfy" / "cli_args.py").is_file()


def version_of(host: Path) -> str:
    """Version text of a ComfyUI checkout ("0.0.0" where it does not say)."""
    try:
        text = (host / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return "0.0.0"
    found = re.search(r"__version__\s*=\s*[\"']([^\"']+)", text)
    return found.group(1) if found else "0.0.0"


def _checked(host: Path) -> Path:
    version = version_of(host)
    if tuple(int(n) for n in re.findall(r"\d+", version)[:3]) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        raise HostError(f"ComfyUI at {host} is {version}; update it to {floor} or newer")
    return host


def wants_newest() -> bool:
    """Whether HOST=newest was asked for; HostError for any other word."""
    asked = os.environ.get("HRF_HOST", "").strip()
    if asked not in ("", "newest"):
        raise HostError(f"HOST={asked} is unknown: HOST=newest, or COMFYUI_PATH= for one of yours")
    return asked == "newest"


def front_end() -> Path | None:
    """The newest page, where HOST=newest has brought it; None for the host's own."""
    return newest_page() if wants_newest() else None


def newest_page() -> Path | None:
    """The newest page that lies here, a folder for `--front-end-root`; None where none does."""
    found = [path for path in FRONT_ENDS.glob("*") if (path / "index.html").is_file()]
    return max(
        found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], default=None
    )


def external_host() -> Path | None:
    """The host that was asked for: `COMFYUI_PATH`, HOST=newest, or the one whose custom_nodes
    holds this checkout."""
    given = os.environ.get("COMFYUI_PATH", "").strip()
    if given:
        host = Path(given).expanduser().absolute()
        if not is_host(host):
            raise HostError(
                f"COMFYUI_PATH={given} is no ComfyUI folder (no main.py with comfy/ in it)"
            )
        return _checked(host)
    if wants_newest():
        if not is_host(NEWEST_HOST):
            raise HostError("no newest ComfyUI here yet: run `make host HOST=newest`")
        return _checked(NEWEST_HOST)
    if ROOT.parent.name == "custom_nodes" and is_host(ROOT.parent.parent):
        return _checked(ROOT.parent.parent)
    return None


def find_host() -> Path:
    """Folder of the ComfyUI to use."""
    host = external_host()
    if host is None and is_host(OWN_HOST):
        host = OWN_HOST
    if host is None:
        raise HostError("no ComfyUI here yet: run `make host`, or set COMFYUI_PATH to yours")
    return host


def venv_python(venv: Path) -> Path:
    """Interpreter inside a virtual environment (whether or not it exists)."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def own_interpreter(host: Path) -> Path | None:
    """Interpreter that belongs to the user's ComfyUI, if it has one."""
    given = os.environ.get("COMFYUI_PYTHON", "").strip()
    if given:
        found = shutil.which(os.path.expanduser(given))
        if found is None:
            raise HostError(f"COMFYUI_PYTHON={given} is not an interpreter that can be run")
        return Path(found).absolute()
    if host == OWN_HOST:
        return None
    candidates = (venv_python(host / name) for name in ("venv", ".venv"))
    return next((python for python in candidates if python.is_file()), None)


def python_of(host: Path) -> Path:
    """Interpreter that runs `host`: its own if it has one, else our .venv's."""
    own = own_interpreter(host)
    if own is not None:
        return own
    ours = venv_python(ROOT / ".venv")
    return ours if ours.is_file() else Path(sys.executable)


def find_browser() -> Path | None:
    """A Chromium or Chrome on this machine (`HRF_CHROMIUM` says which)."""
    names = (
        os.environ.get("HRF_CHROMIUM") or "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    )
    found = (shutil.which(name) for name in names)
    return next((Path(path) for path in found if path), None)
