"""The real page in a real browser: the demo workflow is dropped on the canvas, run, and seen."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import templates

from .page import Canvas

WORKFLOW, OTHER = "demofusion_demo", "demofusion_by_hand"


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def as_queued(name: str, canvas: Canvas) -> dict:
    """An API file as the page queues its graph: previews instead of files, no titles, no inputs
    that only newer hosts have, the widget that the older page adds to PreviewAny."""
    info = canvas.server.get_json("/object_info", timeout=600)
    queued = {}
    for number, node in load(templates.api(name)).items():
        kind, inputs = node["class_type"], node["inputs"]
        known = {key for keys in info[kind]["input_order"].values() for key in keys}
        inputs = {key: value for key, value in inputs.items() if key in known}
        if kind == "SaveImage":
            kind, inputs = "PreviewImage", {"images": inputs["images"]}
        if kind == "PreviewAny" and not canvas.kind.newest:
            inputs = {"preview": "", **inputs}
        queued[number] = {"class_type": kind, "inputs": inputs}
    return queued


def contrast(picture: bytes) -> float:
    """How much a picture varies: 0 for one colour, 127 for black and white."""
    return float(np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), float).std())


def test_the_demo_workflow_is_dropped_run_and_seen(canvas):
    path = templates.graph(WORKFLOW)
    canvas.drop(path.name, load(path))
    assert canvas.complaints() == []
    assert canvas.queued() == as_queued(WORKFLOW, canvas)

    # Quick on a CPU: what is tested is the page.
    canvas.set("steps", 2)
    canvas.set("scale", 2)
    for side in ("width", "height"):
        canvas.set(side, 320, "direct size")
    canvas.run()
    assert canvas.pictures("final") == [[512, 512]]
    for title, sizes in (
        ("native", [[256, 256]]),
        ("stage", [[256, 256], [512, 512]]),
        ("direct", [[320, 320]]),
        ("multidiffusion", [[320, 320]]),
    ):
        assert canvas.pictures(title) == sizes
        assert all(contrast(picture) > 1 for picture in canvas.made(title))
    assert canvas.complaints() == []
    canvas.shot("run")


def test_a_missing_node_is_complained_of(canvas):
    path = templates.graph(OTHER)
    graph = load(path)
    graph["nodes"][0]["type"] = "HRF_NotThere"
    canvas.drop(path.name, graph)
    assert any("HRF_NotThere" in text for text in canvas.complaints())
    canvas.close_dialogs()
    assert canvas.complaints() == []


@pytest.mark.parametrize("name", [OTHER, "sdxl_best", "sdxl_critifusion", "flux_enlarge"])
def test_a_graph_is_queued_as_it_is_written(canvas, name):
    path = templates.graph(name)
    canvas.drop(path.name, load(path))
    assert canvas.queued() == as_queued(name, canvas)
