"""Where the checkout is, and files that are never half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def save_atomic(obj: object, path: Path) -> None:
    """`torch.save` that never leaves a half-written file."""
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(obj, partial)
    os.replace(partial, path)


def write_json(obj: object, path: Path) -> None:
    """Write JSON atomically."""
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps(obj, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
