"""How the tests see the checkout: `hires_fusion`, `lab` and others are importable, ComfyUI wins.

The root is not on sys.path, because its nodes/ would hide ComfyUI's `nodes` module; and its
__init__.py is not run, because it imports ComfyUI.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTPACK = ROOT / "tests" / "host" / "testpack"


def _make_importable() -> None:
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    pack = types.ModuleType("hires_fusion")
    pack.__path__ = [str(ROOT)]
    sys.modules.setdefault("hires_fusion", pack)
    for name in ("evaluation", "lab", "tools"):
        spec = importlib.machinery.PathFinder.find_spec(name, [str(ROOT)])
        if spec is not None and name not in sys.modules:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            if spec.loader is not None:
                spec.loader.exec_module(module)


_make_importable()

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser last: as long as it is open, its event loop counts as running in this thread,
    and asyncio.run is refused."""
    items.sort(key=lambda item: (ROOT / "tests" / "browser") in item.path.parents)


def pytest_configure() -> None:
    """End like Ctrl-C when told to, so that the server's process ends with us."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@dataclass
class Outputs:
    """What one workflow made, by node id and by node title."""

    result: Any
    images: dict[str, Any] = field(default_factory=dict)  # [B, H, W, 3] float32, 0..1
    latents: dict[str, Any] = field(default_factory=dict)  # [B, C, H, W] tensor


def collect(server: Any, prompt: Mapping[str, Any], result: Any) -> Outputs:
    """Read the pictures and latents that a workflow saved."""
    import numpy as np
    import safetensors.torch
    import torch
    from PIL import Image

    from tools.client import fetch, title_of

    outputs = Outputs(result)
    for node in result.outputs:
        names = {node, title_of(prompt, node)}
        shown = result.outputs[node]
        pictures = [
            np.asarray(Image.open(io.BytesIO(fetch(server, file))).convert("RGB"), np.float32) / 255
            for file in shown.get("images") or []
        ]
        latents = [
            safetensors.torch.load(fetch(server, file))["latent_tensor"]
            for file in shown.get("latents") or []
        ]
        if pictures:
            outputs.images |= dict.fromkeys(names, np.stack(pictures))
        if latents:
            outputs.latents |= dict.fromkeys(names, torch.cat(latents))
    return outputs


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A real ComfyUI server with this pack and tests/host/testpack, for the whole run."""
    from tools.host import PACK_NAME
    from tools.server import outdated, start_server

    packs = {PACK_NAME: ROOT, "hires-fusion-testpack": TESTPACK}
    extra = ["--preview-method", "latent2rgb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "default::DeprecationWarning")
        with start_server(packs=packs, extra_args=extra) as running:
            patch.undo()
            yield running
            found = outdated(running.log.read_text(encoding="utf-8", errors="replace"))
    assert not found, "the host is about to take away what our nodes use"


@pytest.fixture
def run(server: Any) -> Callable[..., Outputs]:
    """`run(prompt)` queues a workflow in API format; its outputs. `check=False`: errors allowed."""
    from tools.client import submit

    def queue(prompt: Mapping[str, Any], *, check: bool = True) -> Outputs:
        result = submit(server, prompt)
        if check:
            result.raise_for_error()
        return collect(server, prompt, result)

    return queue


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser of the browser test; without one it is skipped, and on CI it fails."""
    from tools.host import find_browser

    found = find_browser()
    if found is None:
        reason = "no Chromium: apt-get install chromium, or set HRF_CHROMIUM to a browser"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found
