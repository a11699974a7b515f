"""ComfyUI's page as a user handles it: one class that hides the differences between its editions.

`Kind` says which: the page that came with ComfyUI 0.3.75, or the newest of PyPI with its nodes
drawn on the canvas as ever or, "Nodes 2.0", as HTML.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import requests
from playwright.sync_api import Browser, Locator, Page, Route, TimeoutError

from tools.host import ROOT

SHOTS = ROOT / "out" / "browser"
# The end of a hang, not a pace.
PATIENCE = 300_000
SIZE = {"width": 1600, "height": 1000}
FREE = (900, 880)  # where tests leave the canvas empty
SEARCH = "input[role=combobox]"
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "version": 0.4}
READY = "() => !!window.app?.graph && !!LiteGraph.registered_node_types.HRF_ProgressiveUpscale"
# What counts as read: the page's own function has come to its end, whoever called it.
COUNT_LOADS = """() => {
    const load = app.loadGraphData;
    window.loads = 0;
    app.loadGraphData = async (...given) => {
        try { return await load.apply(app, given); } finally { window.loads += 1; }
    };
}"""
DROP = """([name, text]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([text], name, { type: "application/json" }));
    const canvas = document.getElementById("graph-canvas");
    const at = { bubbles: true, cancelable: true, clientX: 640, clientY: 480, dataTransfer };
    for (const kind of ["dragenter", "dragover", "drop"])
        canvas.dispatchEvent(new DragEvent(kind, at));
}"""
FRAMES = """async (count) => {
    for (let i = 0; i < count; i++) await new Promise((next) => requestAnimationFrame(next));
}"""
SET = """([titles, name, value]) => {
    let count = 0;
    for (const node of app.graph.nodes.filter((n) => !titles.length || titles.includes(n.title)))
        for (const widget of (node.widgets ?? []).filter((w) => w.name === name)) {
            widget.value = value;
            widget.callback?.(value);
            count += 1;
        }
    return count;
}"""
# Sizes of the pictures in a node: on the canvas, or in its HTML.
PICTURES = """(title) => {
    const node = app.graph.nodes.find((n) => n.title === title);
    const shown = document.querySelectorAll(`[data-node-id="${node.id}"] img`);
    const images = node.imgs?.length ? node.imgs : [...shown];
    return images.map((img) => [img.naturalWidth, img.naturalHeight]);
}"""
# What the server made for a node, as the page knows it: addresses of /view.
MADE = """(title) => {
    const node = app.graph.nodes.find((n) => n.title === title);
    return (app.nodeOutputs[node.id]?.images ?? []).map((image) => new URLSearchParams(image) + "");
}"""
# The page loads a node's pictures when it draws the node: who wants to see one scrolls to it.
SCROLL = "(title) => app.canvas.centerOnNode(app.graph.nodes.find((n) => n.title === title))"
# What the page says went wrong, {} if nothing.
TROUBLE = "() => ({ ...app.lastExecutionError, ...app.lastNodeErrors })"
ENDED = f"""(title) => {{
    const sizes = ({PICTURES})(title);
    return (sizes.length && sizes.every(([w]) => w)) || Object.keys(({TROUBLE})()).length > 0;
}}"""
# The queue's own form of the graph, without the titles.
QUEUED = """async () => Object.fromEntries(
    Object.entries((await app.graphToPrompt()).output).map(
        ([id, node]) => [id, { class_type: node.class_type, inputs: node.inputs }]
    )
)"""

OPTIONS = """() => [...document.querySelectorAll("[role=option]")]
    .map((option) => option.innerText.replaceAll("\\u00a0", " ").trim().split("\\n")[0].trim())
    .filter(Boolean)"""
CHANGED = f"(before) => JSON.stringify(({OPTIONS})()) !== JSON.stringify(before)"
# Help stays open beside the canvas, over what lies there.
CLOSE_PANEL = """() => {
    const tabs = app.extensionManager?.sidebarTab;
    if (tabs?.activeSidebarTabId) tabs.toggleSidebarTab(tabs.activeSidebarTabId);
}"""
# Where an output and an input are on the screen.
ENDS = """([source, output, target, slot]) => {
    const [from, to] = [source, target].map((type) => app.graph.nodes.find((n) => n.type === type));
    const out = from.getOutputPos(from.outputs.findIndex((o) => o.name === output));
    const into = to.getInputPos(to.inputs.findIndex((i) => i.name === slot));
    const pane = app.canvas.canvas.getBoundingClientRect();
    const { scale, offset } = app.canvas.ds;
    return [out, into].map(([x, y]) =>
        [pane.left + (x + offset[0]) * scale, pane.top + (y + offset[1]) * scale]);
}"""
# Every link: type and output of the one end, type and input of the other.
LINKS = """() => app.graph.nodes.flatMap((node) => node.inputs.map((input) => {
    const link = app.graph.links.get?.(input.link) ?? app.graph.links[input.link];
    const from = link && app.graph.getNodeById(link.origin_id);
    return link && [from.type, from.outputs[link.origin_slot].name, node.type, input.name];
})).filter(Boolean)"""
TRIES = 5


class Kind(NamedTuple):
    """An edition of the page."""

    name: str
    newest: bool  # from PyPI; else the host's own
    html: bool  # nodes drawn as HTML ("Nodes 2.0")


KINDS = (Kind("own", False, False), Kind("newest", True, False), Kind("nodes2", True, True))


@dataclass
class Canvas:
    """The page of a server, opened in a browser."""

    kind: Kind
    server: Any
    page: Page

    @classmethod
    def open(cls, kind: Kind, server: Any, browser: Browser, language: str = "en") -> Canvas:
        """A page with an empty canvas, as a user finds it who has seen the first tour."""
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE)
        canvas = cls(kind, server, page)
        canvas.settings({"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": kind.html})
        canvas.language(language)
        page.route("**/*", canvas._only_the_server)
        page.goto(server.url)
        page.wait_for_function(READY)
        canvas.run_button.wait_for()
        page.evaluate(COUNT_LOADS)
        canvas.clear()
        return canvas

    def settings(self, values: dict) -> None:
        """What the server keeps for its user, and the page reads when it is opened."""
        answer = requests.post(f"{self.server.url}/settings", json=values, timeout=600)
        answer.raise_for_status()

    def language(self, code: str) -> None:
        """The language of the next page that is opened."""
        self.settings({"Comfy.Locale": code})

    def _only_the_server(self, route: Route) -> None:
        if route.request.url.startswith((self.server.url, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    def clear(self) -> None:
        """An empty canvas without dialogs, panels, complaints, queue or pictures of before."""
        self.stop()
        self.close_dialogs()
        self.page.evaluate(CLOSE_PANEL)
        self.page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
        self.page.evaluate("() => { app.lastNodeErrors = null; app.lastExecutionError = null; }")
        self.settle()
        self.close_dialogs()

    def settle(self, frames: int = 8) -> None:
        """Let the page draw what it knows."""
        self.page.evaluate(FRAMES, frames)

    # Files

    def drop(self, name: str, graph: dict) -> None:
        """Drop a workflow file on the canvas and wait until the page has read and drawn it."""
        before = self.page.evaluate("() => window.loads")
        self.page.evaluate(DROP, [name, json.dumps(graph)])
        self.page.wait_for_function("(before) => window.loads > before", arg=before)
        self.settle()

    def queued(self) -> dict:
        """The graph as the page would queue it."""
        return self.page.evaluate(QUEUED)

    def set(self, name: str, value: object, *titles: str) -> None:
        """Give a widget a value, in the nodes of these titles (all, if none is said)."""
        assert self.page.evaluate(SET, [list(titles), name, value]), f"no widget {name}"

    # By hand

    def search(self, typed: str) -> list[str]:
        """Names that the page offers for a text, typed after a double click on the canvas."""
        while not self.page.locator(SEARCH).count():
            # A double click that follows a click at once is none to the canvas.
            self.page.wait_for_timeout(400)
            self.page.mouse.dblclick(*FREE)
            with contextlib.suppress(TimeoutError):
                self.page.locator(SEARCH).last.wait_for(timeout=2_000)
        self.page.keyboard.press("Control+A")
        nothing = self.options()
        self.page.keyboard.type(typed)
        with contextlib.suppress(TimeoutError):  # "nothing found" may look like nothing typed
            self.page.wait_for_function(CHANGED, arg=nothing, timeout=2_000)
        last = None
        while last != (last := self.options()):
            self.page.wait_for_timeout(300)
        return last

    def options(self) -> list[str]:
        """First lines of what is offered."""
        return self.page.evaluate(OPTIONS)

    def close_search(self) -> None:
        """Back to the canvas."""
        while self.page.locator(SEARCH).count():
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(100)

    def place(self, typed: str, name: str) -> None:
        """Search, and take the node of this name."""
        count = "() => app.graph.nodes.length"
        before = self.page.evaluate(count)
        self.search(typed)
        self.page.locator("[role=option]").filter(has_text=name).first.click()
        self.page.wait_for_function(f"(before) => ({count})() > before", arg=before)
        self.settle()
        if self.kind.newest:  # it hangs at the pointer until it is put down
            self.page.mouse.move(FREE[0] - 40, FREE[1] - 40)
            self.page.mouse.click(FREE[0] - 40, FREE[1] - 40)
        self.close_search()
        self.settle()

    def wire(self, source: str, output: str, target: str, slot: str) -> None:
        """Drag from an output to an input, nodes by their types, until the link holds: a page
        that is still drawing moves its sockets."""
        wanted = [source, output, target, slot]
        for _ in range(TRIES):
            start, end = self.page.evaluate(ENDS, wanted)
            self.page.mouse.move(*start)
            self.page.mouse.down()
            self.page.mouse.move(*end, steps=6)
            self.settle(3)
            self.page.mouse.up()
            self.settle(3)
            if wanted in self.page.evaluate(LINKS):
                return
            # Let go beside a socket, a wire asks what to end in.
            self.shot("no_wire")
            self.page.keyboard.press("Escape")
            self.close_search()
            self.close_dialogs()
            self.settle(30)
        raise AssertionError(f"no wire after {TRIES} tries: {wanted}")

    # Queue

    @property
    def run_button(self) -> Locator:
        """The button that queues."""
        old = "[data-testid=queue-button] > button.p-splitbutton-button"
        return self.page.locator(f"button[data-testid=queue-button], {old}")

    def run(self) -> None:
        """Press Run."""
        self.run_button.click()

    def cancel(self) -> None:
        """Press the cross beside Run."""
        self.page.get_by_role("button", name="Cancel current run").click()

    def stop(self) -> None:
        """Empty the server's queue, and wait for it."""
        requests.post(f"{self.server.url}/queue", json={"clear": True}, timeout=600)
        while self.running():
            requests.post(f"{self.server.url}/interrupt", timeout=600)
            self.page.wait_for_timeout(100)

    def running(self) -> int:
        """Jobs that run or wait on the server."""
        jobs = self.server.get_json("/queue", timeout=600)
        return len(jobs["queue_running"]) + len(jobs["queue_pending"])

    def trouble(self) -> dict:
        """Errors of the last run as the page keeps them."""
        return self.page.evaluate(TROUBLE)

    def pictures(self, title: str) -> list[list[int]]:
        """Sizes of the pictures in the node of this title, once it shows them; errors are
        raised."""
        self.page.evaluate(SCROLL, title)
        self.page.wait_for_function(ENDED, arg=title)
        assert self.trouble() == {}
        return self.page.evaluate(PICTURES, title)

    def made(self, title: str) -> list[bytes]:
        """The files that the server made for the node of this title."""
        queries = self.page.evaluate(MADE, title)
        return [
            requests.get(f"{self.server.url}/view?{query}", timeout=600).content
            for query in queries
        ]

    # What it says

    def complaints(self) -> list[str]:
        """Texts of dialogs, alerts and the error overlay that can be seen."""
        kinds = "[role=dialog], .p-toast-message, [data-testid=error-overlay]"
        shown = [found for found in self.page.locator(kinds).all() if found.is_visible()]
        return [text for found in shown if (text := found.inner_text().strip())]

    def close_dialogs(self) -> None:
        """Close what lies over the canvas."""
        for name in ("[data-testid=error-overlay-dismiss]", ".p-toast-close-button"):
            for button in self.page.locator(name).all():
                with contextlib.suppress(Exception):
                    button.click(timeout=5_000)
        dialog = self.page.get_by_role("dialog")
        for _ in range(TRIES):
            if not (dialog.count() and dialog.first.is_visible()):
                return
            self.page.keyboard.press("Escape")
            with contextlib.suppress(Exception):
                dialog.first.wait_for(state="hidden", timeout=5_000)
        raise AssertionError(f"a dialog stays open: {dialog.first.inner_text()[:200]}")

    def shot(self, name: str) -> Path:
        """A screenshot in out/browser/, for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}_{self.kind.name}.png"
        self.page.screenshot(path=path)
        return path
