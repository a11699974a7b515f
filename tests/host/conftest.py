"""In-process tests: `comfy` and ComfyUI's `nodes` importable, on the CPU."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest
import torch

from tools.host import find_host
from tools.server import outdated


def _enter_host() -> None:
    """Make this process a ComfyUI that writes nothing into the user's folders."""
    sys.path.insert(0, str(find_host()))
    from comfy.cli_args import args

    args.cpu = True  # bounds are those of float32
    args.base_directory = tempfile.mkdtemp(prefix="hires-fusion-")
    atexit.register(shutil.rmtree, args.base_directory, ignore_errors=True)


_enter_host()


@pytest.fixture(autouse=True)
def nothing_outdated(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test calls what the host is about to take away."""
    yield
    assert not outdated("\n".join(caplog.messages))


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    """The host executes every node in it."""
    with torch.inference_mode():
        yield
