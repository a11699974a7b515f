"""`python -m tools.node_pictures [node …]`: nodes as they stand in their workflows, for help pages.

Pages whose picture is drawn by a study show what a technique does to a picture; those of nodes that
hand on words, numbers or settings show the node itself with what it is wired to:
`web/docs/<node>.png`. Needs Chromium, as the browser tests do.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tools import templates
from tools.host import ROOT, HostError, find_browser
from tools.server import NODE_PREFIX, start_server

PAGES = ROOT / "web" / "docs"
NODES = (
    *("CADR", "CritiCore", "CriticProvider", "DecomposePrompt", "EvaluateImages", "ExpandTags"),
    *("InitRateSigmas", "LatentList", "MergePrompt", "NativeLatent", "Stage", "StageList"),
    *("VAELimits", "ViewPrompts"),
)
SIZE = {"width": 1500, "height": 1100}
MARGIN = 90  # px of the canvas round a node: where its wires go
COLOURS = 128
READY = "() => !!window.app?.graph && !!LiteGraph.registered_node_types.HRF_Stage"
ALONE = """(kind) => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    app.graph.add(node);
    node.pos = [400, 300];
}"""
# The node's place in the window, at the canvas' own scale.
PLACE = """async (kind) => {
    const node = app.graph.nodes.find((n) => n.type === kind);
    app.canvas.deselectAll?.();
    app.canvas.ds.scale = 1;
    app.canvas.centerOnNode(node);
    app.canvas.setDirty(true, true);
    for (let i = 0; i < 10; i++) await new Promise((next) => requestAnimationFrame(next));
    const [x, y, width, height] = node.getBounding();
    const box = document.getElementById("graph-canvas").getBoundingClientRect();
    const [left, top] = app.canvas.ds.offset;
    return { x: x + left + box.x, y: y + top + box.y, width, height };
}"""


def shown_in(kind: str) -> str:
    """The workflow that shows a node: the first one of the demo model's that has it."""
    names = sorted(templates.NAMES, key=lambda name: "demo" not in name)
    for name in names:
        file = json.loads(templates.graph(name).read_text(encoding="utf-8"))
        if any(node["type"] == kind for node in file["nodes"]):
            return name
    return ""


def take(page: Any, node: str) -> Path:
    """The picture of a node."""
    kind = NODE_PREFIX + node
    if name := shown_in(kind):
        file = json.loads(templates.graph(name).read_text(encoding="utf-8"))
        page.evaluate("(file) => app.loadGraphData(file)", file)
    else:
        page.evaluate(ALONE, kind)
    place = page.evaluate(PLACE, kind)
    clip = {
        "x": max(place["x"] - MARGIN, 0),
        "y": max(place["y"] - MARGIN / 2, 0),
        "width": place["width"] + 2 * MARGIN,
        "height": place["height"] + MARGIN,
    }
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as shot:
        path = PAGES / f"{kind}.png"
        shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main() -> None:
    """Command line."""
    from playwright.sync_api import sync_playwright

    wanted = sys.argv[1:] or list(NODES)
    browser = find_browser()
    if browser is None:
        sys.exit("error: no Chromium here: install one, as for the browser tests")
    try:
        with start_server() as server, sync_playwright() as playwright:
            launched = playwright.chromium.launch(
                executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
            )
            page = launched.new_page(viewport=SIZE)
            page.request.post(f"{server.url}/settings", data={"Comfy.TutorialCompleted": True})
            page.goto(server.url)
            page.wait_for_function(READY)
            for node in wanted:
                print(take(page, node).relative_to(ROOT), flush=True)
            launched.close()
    except HostError as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
