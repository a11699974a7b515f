"""Every workflow file in the real page: known nodes, texts that can be read, nothing covered."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tools import layout, templates
from tools.graph import NOTES
from tools.server import EXAMPLE

from .page import Canvas

# The largest files get a screenshot each, and one of every kind.
SHOWN = ("sdxl_best", "sdxl_critifusion", "demofusion_demo", "qwen_enlarge", "critifusion_demo")
UNKNOWN = "() => app.graph.nodes.filter((n) => !(n.type in LiteGraph.registered_node_types))"
# Loaders are red where their model is missing: no fault of the file.
RED = """() => app.graph.nodes.filter((n) => n.has_errors && !/Loader/.test(n.type))
    .map((n) => n.type)"""
# [id, left, top, right, bottom] of every node in the canvas' own pixels: what is drawn, be it on
# the canvas or as HTML.
BOXES = """() => app.graph.nodes.map((node) => {
    const html = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!html) {
        const [x, y, width, height] = node.getBounding();
        return [String(node.id), x, y, x + width, y + height];
    }
    const seen = html.getBoundingClientRect();
    const pane = app.canvas.canvas.getBoundingClientRect();
    const { scale, offset } = app.canvas.ds;
    const at = (value, edge, shift) => (value - edge) / scale - shift;
    return [String(node.id), at(seen.left, pane.left, offset[0]), at(seen.top, pane.top, offset[1]),
        at(seen.right, pane.left, offset[0]), at(seen.bottom, pane.top, offset[1])];
})"""
# Pixels on the screen of the smallest text of a node: titles and widgets of the canvas, and what
# is HTML, texts and notes, or the whole node.
SMALLEST = """() => {
    const { scale } = app.canvas.ds;
    const drawn = [scale * LiteGraph.NODE_TEXT_SIZE, scale * LiteGraph.NODE_SUBTEXT_SIZE];
    const pane = document.querySelector("[data-testid=transform-pane]");
    const html = [...document.querySelectorAll(".dom-widget textarea, .dom-widget p, "
        + ".dom-widget li, [data-node-id] textarea, [data-node-id] p, [data-node-id] li, "
        + "[data-node-id] [data-testid=node-title], [data-node-id] button span")];
    const says = (e) => (e.innerText || `${e.value ?? ""}`).trim();
    const zoom = (e) => e.getBoundingClientRect().width / e.offsetWidth;
    const sizes = html.filter((e) => e.offsetWidth && says(e))
        .map((e) => parseFloat(getComputedStyle(e).fontSize) * zoom(e));
    return Math.min(...(pane ? [] : drawn), ...sizes);
}"""
# What a run tells the page: previews of samplers, pictures, a text.
PRETEND = """async (file) => {
    const query = new URLSearchParams({ filename: file, type: "input" });
    const blob = await (await fetch(`/api/view?${query}`)).blob();
    for (const node of app.graph.nodes) {
        const id = String(node.id);
        const ids = { nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id };
        const images = [{ filename: file, subfolder: "", type: "input" }];
        const text = ["A report. ".repeat(60)];
        const output = node.type === "PreviewAny" ? { text } : { images };
        if (/^(KSampler|SamplerCustom|HRF_ProgressiveUpscale)(Advanced)?$/.test(node.type))
            app.api.dispatchCustomEvent("b_preview_with_metadata",
                { blob, ...ids, promptId: "a", jobId: "a" });
        else if (/^(PreviewAny|PreviewImage|SaveImage|LoadImage)$/.test(node.type))
            app.api.dispatchCustomEvent("executed",
                { node: id, display_node: id, output, prompt_id: "a" });
    }
    app.canvas.setDirty(true, true);
}"""
# The page draws only what is in the window and, from afar, no pictures, if it is not told to.
ALL = """([left, top, right, bottom]) => {
    const { ds } = app.canvas;
    app.canvas.min_font_size_for_lod = 0;
    ds.scale = Math.min(1500 / (right - left), 850 / (bottom - top));
    ds.offset[0] = 80 / ds.scale - left;
    ds.offset[1] = 120 / ds.scale - top;
    app.canvas.setDirty(true, true);
}"""
PICTURES_SEEN = """() => {
    app.canvas.setDirty(true, true);
    const shows = (n) => n.imgs?.length || document.querySelector(`[data-node-id="${n.id}"] img`);
    return app.graph.nodes.filter((n) => n.type === "PreviewImage").every(shows);
}"""


def covered(boxes: list[list[Any]], titles: dict[str, str]) -> list[tuple]:
    """Pairs of titles of nodes and notes that cover each other, and by how many pixels."""
    found = []
    for (a, *one), (b, *other) in itertools.combinations(boxes, 2):
        wide = min(one[2], other[2]) - max(one[0], other[0])
        high = min(one[3], other[3]) - max(one[1], other[1])
        if wide > 1 and high > 1:  # frames and shadows
            found.append((titles[a], titles[b], round(wide), round(high)))
    return found


def show_all(canvas: Canvas, boxes: list[list[Any]]) -> None:
    """Zoom out until every node is in the window."""
    sides = [min(b[1] for b in boxes), min(b[2] for b in boxes)]
    sides += [max(b[3] for b in boxes), max(b[4] for b in boxes)]
    canvas.page.evaluate(ALL, sides)
    canvas.settle()


@pytest.mark.parametrize("name", templates.NAMES)
def test_a_file_can_be_read_and_nothing_is_covered(opened, name):
    canvas = opened  # a dropped file has a tab of its own
    path = templates.graph(name)
    file = json.loads(path.read_text(encoding="utf-8"))
    titles = {str(node["id"]): node["title"] for node in file["nodes"]}
    canvas.drop(path.name, file)
    assert canvas.page.evaluate(UNKNOWN) == [] and canvas.page.evaluate(RED) == []
    assert canvas.page.evaluate(SMALLEST) >= layout.LEGIBLE - 0.05
    if name in SHOWN:
        canvas.close_dialogs()
        canvas.shot(f"file_{name}")
    boxes = canvas.page.evaluate(BOXES)
    show_all(canvas, boxes)
    assert covered(canvas.page.evaluate(BOXES), titles) == []
    canvas.page.evaluate(PRETEND, EXAMPLE)
    canvas.page.wait_for_function(PICTURES_SEEN)
    canvas.settle()
    grown = canvas.page.evaluate(BOXES)
    if name in SHOWN:
        canvas.shot(f"ran_{name}")
    assert covered(grown, titles) == []
    # As HTML, previews take the room that folded inputs leave.
    kinds = {node["type"] for node in file["nodes"]}
    if not canvas.kind.html and kinds & {"KSampler", "HRF_ProgressiveUpscale"}:
        assert any(a[4] > b[4] + 50 for a, b in zip(grown, boxes, strict=True))


def test_what_is_covered_would_be_seen(canvas):
    file = json.loads(templates.graph("demofusion_demo").read_text(encoding="utf-8"))
    first, second = [node for node in file["nodes"] if node["type"] not in NOTES][:2]
    second["pos"] = [first["pos"][0] + 10, first["pos"][1] + 10]
    file["extra"]["ds"]["scale"] = 0.5
    canvas.drop("covered.json", file)
    titles = {str(node["id"]): node["title"] for node in file["nodes"]}
    found = covered(canvas.page.evaluate(BOXES), titles)
    assert any({a, b} == {first["title"], second["title"]} for a, b, *_ in found)
    assert canvas.page.evaluate(SMALLEST) < layout.LEGIBLE
