"""The real page in a real browser: the demo workflow is dropped on the canvas, run, and seen."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "demofusion_demo.json"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)
READY = "() => !!window.app?.graph && !!LiteGraph.registered_node_types.HRF_ProgressiveUpscale"
DROP = """([name, text]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([text], name, { type: "application/json" }));
    const canvas = document.getElementById("graph-canvas");
    const at = { bubbles: true, cancelable: true, clientX: 640, clientY: 480, dataTransfer };
    for (const kind of ["dragenter", "dragover", "drop"])
        canvas.dispatchEvent(new DragEvent(kind, at));
}"""
NODES = """() => app.graph.nodes.map((node) => ({
    id: node.id,
    type: node.type,
    known: node.type in LiteGraph.registered_node_types && !node.has_errors,
}))"""
# The queue's own form of the graph, without the titles.
QUEUED = """async () => Object.fromEntries(
    Object.entries((await app.graphToPrompt()).output).map(
        ([id, node]) => [id, { class_type: node.class_type, inputs: node.inputs }]
    )
)"""
SET = """([titles, name, value]) => {
    for (const node of app.graph.nodes.filter((n) => !titles.length || titles.includes(n.title)))
        for (const widget of (node.widgets ?? []).filter((w) => w.name === name))
            widget.value = value;
}"""
PICTURES = """(title) => {
    const node = app.graph.nodes.find((n) => n.title === title);
    return (node.imgs ?? []).map((img) => [img.naturalWidth, img.naturalHeight]);
}"""
# How much a picture varies: 0 for one colour, 127 for black and white.
CONTRAST = """(title) => {
    const [img] = app.graph.nodes.find((n) => n.title === title).imgs;
    const canvas = new OffscreenCanvas(img.naturalWidth, img.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(img, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const greens = Array.from(data).filter((_, i) => i % 4 === 1);
    const mean = greens.reduce((a, b) => a + b) / greens.length;
    return Math.sqrt(greens.reduce((a, b) => a + (b - mean) ** 2, 0) / greens.length);
}"""
# What the page says went wrong, {} if nothing.
TROUBLE = "() => ({ ...app.lastExecutionError, ...app.lastNodeErrors })"
ENDED = f"""(title) => {{
    const node = app.graph.nodes.find((n) => n.title === title);
    const seen = node.imgs?.length && node.imgs.every((img) => img.naturalWidth);
    return !!seen || Object.keys(({TROUBLE})()).length > 0;
}}"""


@pytest.fixture
def page(server: Any, chromium: Path) -> Iterator[Page]:
    """ComfyUI's page, opened and with an empty canvas; it reaches nothing but the server."""

    def only_the_server(route: Route) -> None:
        if route.request.url.startswith((server.url, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    new_user = not server.get_json("/settings").get("Comfy.TutorialCompleted")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, headless=True, args=list(FLAGS)
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(120_000)
        page.route("**/*", only_the_server)
        page.goto(server.url)
        page.wait_for_function(READY)
        page.get_by_role("button", name="Run", exact=True).wait_for()
        if new_user:
            close_templates(page)
        page.evaluate("() => app.graph.clear()")
        yield page
        browser.close()


def close_templates(page: Page) -> None:
    """A new user is shown the templates first."""
    dialog = page.get_by_role("dialog").first
    with contextlib.suppress(TimeoutError):
        dialog.wait_for(timeout=20_000)
        dialog.locator("button:visible:has(.pi-times)").click(timeout=20_000)
    dialog.wait_for(state="hidden")


def drop(page: Page, name: str, graph: dict) -> None:
    """Drop a workflow file on the canvas and wait until the page has read it."""
    page.evaluate(DROP, [name, json.dumps(graph)])
    page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(graph["nodes"]))
    page.wait_for_timeout(2000)  # dialogs and alerts come after the nodes


def complaints(page: Page) -> list[str]:
    """Texts of the dialogs and alerts that are open."""
    return page.locator("[role=dialog], .p-toast-message").all_inner_texts()


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def as_queued(prompt: dict) -> dict:
    """An API file as the page queues its graph: previews instead of files, no titles."""
    queued = {n: {k: e[k] for k in ("class_type", "inputs")} for n, e in prompt.items()}
    for entry in queued.values():
        if entry["class_type"] == "SaveImage":
            entry |= {"class_type": "PreviewImage", "inputs": {"images": entry["inputs"]["images"]}}
    return queued


def test_the_demo_workflow_is_dropped_run_and_seen(page):
    drop(page, WORKFLOW.name, load(WORKFLOW))
    assert complaints(page) == []
    nodes = page.evaluate(NODES)
    assert [node for node in nodes if not node["known"]] == []
    assert page.evaluate(QUEUED) == as_queued(load(WORKFLOW.parent / "api" / WORKFLOW.name))

    # Quick on a CPU: what is tested is the page.
    page.evaluate(SET, [[], "steps", 2])
    page.evaluate(SET, [[], "scale", 2])
    for side in ("width", "height"):
        page.evaluate(SET, [["direct size"], side, 320])
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function(ENDED, arg="final", timeout=400_000)
    assert page.evaluate(TROUBLE) == {}
    assert page.evaluate(PICTURES, "final") == [[512, 512]]
    assert page.evaluate(CONTRAST, "final") > 1
    for title, sizes in (
        ("native", [[256, 256]]),
        ("stage", [[256, 256], [512, 512]]),
        ("direct", [[320, 320]]),
        ("multidiffusion", [[320, 320]]),
    ):
        page.wait_for_function(ENDED, arg=title, timeout=200_000)
        assert page.evaluate(TROUBLE) == {}
        assert page.evaluate(PICTURES, title) == sizes
    assert complaints(page) == []


def test_the_other_workflow_loads_and_a_missing_node_would_be_seen(page):
    path = WORKFLOW.with_name("demofusion_by_hand.json")
    graph = load(path)
    drop(page, path.name, graph)
    assert complaints(page) == []
    assert all(node["known"] for node in page.evaluate(NODES))
    assert page.evaluate(QUEUED) == as_queued(load(path.parent / "api" / path.name))

    graph["nodes"][0]["type"] = "HRF_NotThere"
    drop(page, path.name, graph)
    assert any("HRF_NotThere" in text for text in complaints(page))
    unknown = [node["type"] for node in page.evaluate(NODES) if not node["known"]]
    assert unknown == ["HRF_NotThere"]


@pytest.mark.parametrize("node", ["HRF_ProgressiveUpscale", "HRF_SkipResidual"])
def test_help_pages_are_served(server, node):
    with urllib.request.urlopen(f"{server.url}/extensions/hires-fusion/docs/{node}.md") as answer:
        text = answer.read().decode()
    assert text == (ROOT / "web" / "docs" / f"{node}.md").read_text(encoding="utf-8")
