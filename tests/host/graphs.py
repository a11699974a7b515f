"""The workflow files, made small enough for a test."""

from __future__ import annotations

import copy
import json
from pathlib import Path

API = Path(__file__).resolve().parents[2] / "workflows" / "api"


def load(name: str) -> dict:
    """A workflow in API format."""
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def small(prompt: dict, width: int = 64, height: int = 64, part: int = 12) -> dict:
    """The same graph with pictures of that size and a `part`-th of the steps, 2 at least."""
    prompt = copy.deepcopy(prompt)
    for entry in prompt.values():
        inputs = entry["inputs"]
        if entry["class_type"] == "EmptyLatentImage":
            inputs |= {"width": width, "height": height}
        if entry["class_type"] == "KSampler" and isinstance(inputs["steps"], int):
            inputs["steps"] = max(2, inputs["steps"] // part)
    return prompt
