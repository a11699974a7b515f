"""The workflow files, made small enough for a test."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

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


def run_here(graph: dict, given: dict[str, Any]) -> dict[str, tuple]:
    """Execute a node's expansion in this process; the outputs of all nodes by name.

    `given` are values of links that lead out of the expansion, by the node that they name.
    """
    from comfy_extras import nodes_custom_sampler as custom

    from hires_fusion.nodes import NODES

    ours = {kind.define_schema().node_id: kind for kind in NODES}
    done: dict[str, tuple] = {name: (value,) for name, value in given.items()}

    def outputs(name: str) -> tuple:
        if name not in done:
            entry = graph[name]
            kind = entry["class_type"]
            inputs = {
                key: outputs(value[0])[value[1]] if isinstance(value, list) else value
                for key, value in entry["inputs"].items()
            }
            node = ours.get(kind) or getattr(custom, kind)
            done[name] = node.execute(**inputs).result
        return done[name]

    for name in graph:
        outputs(name)
    return done
