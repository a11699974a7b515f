"""What the page offers to read: help of every node, templates, blueprints, other languages."""

from __future__ import annotations

import json

import pytest

from tools import templates
from tools.blueprints import BLUEPRINTS
from tools.host import ROOT
from tools.server import EXAMPLE

NODE = """(type) => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    node.pos = [600, 400];
    app.graph.add(node);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    app.canvas.deselectAll();
    app.canvas.selectNode(node);
}"""
TYPES = """() => Object.keys(LiteGraph.registered_node_types)
    .filter((type) => type.startsWith("HRF_")).sort()"""
HELP = ".node-help-content"
# What the panel shows of a page: text, links, pictures, and elements that it cuts off at its right.
PANEL = f"""() => {{
    const help = document.querySelector("{HELP}");
    const edge = help.getBoundingClientRect().right + 1;
    const images = [...help.querySelectorAll("img, video")];
    return {{
        text: help.innerText,
        links: [...help.querySelectorAll("a")].map((link) => link.getAttribute("href")),
        dead: images.filter((i) => !(i.naturalWidth || i.videoWidth)).map((i) => i.src),
        cut: [...help.querySelectorAll("*")].filter((e) =>
            e.getBoundingClientRect().right > edge || e.scrollWidth > e.clientWidth + 1
                && e.clientWidth > 0).map((e) => e.outerHTML.slice(0, 80)),
    }};
}}"""
SHOWS = f"""(title) => {{
    const help = document.querySelector("{HELP}");
    const images = [...(help?.querySelectorAll("img") ?? [])];
    return help?.innerText.trim().startsWith(title) && images.every((i) => i.complete);
}}"""
CARDS = """() => [...document.querySelectorAll("[data-testid^=template-workflow-]")]
    .map((card) => card.dataset.testid.replace("template-workflow-", ""))"""
CARD_PICTURES = """() => [...document.querySelectorAll("[role=dialog] img")]
    .filter((img) => img.complete && img.naturalWidth).length"""
NAMES = """() => {
    const [node] = app.graph.nodes;
    const inputs = node.inputs.map((i) => [i.name, i.label ?? i.localized_name ?? i.name]);
    return [node.title, Object.fromEntries(inputs)];
}"""
LANGUAGES = ("zh", "ja", "ko")
PICTURED = ("HRF_ProgressiveUpscale", "HRF_TiledDiffusion", "HRF_Stage", "HRF_SpecFusion")


def test_help_of_every_node_opens_whole(canvas):
    types = canvas.page.evaluate(TYPES)
    assert {path.stem for path in (ROOT / "web" / "docs").glob("HRF_*.md")} == set(types)
    faults = {}
    for type_ in types:
        page = (ROOT / "web" / "docs" / f"{type_}.md").read_text(encoding="utf-8")
        title = page.split("\n")[0].removeprefix("# ").strip()
        canvas.page.evaluate(NODE, type_)
        canvas.page.locator("[data-testid=info-button]").click()
        canvas.page.wait_for_function(SHOWS, arg=title)
        seen = canvas.page.evaluate(PANEL)
        links = [link for link in seen["links"] if not (link or "").startswith("https://")]
        if seen["cut"] or seen["dead"] or links or len(seen["text"]) < 200:
            faults[type_] = seen | {"links": links, "text": seen["text"][:60]}
        if type_ in PICTURED:
            canvas.shot(f"help_{type_}")
    assert faults == {}


def test_templates_are_offered_and_one_is_opened(canvas):
    canvas.page.get_by_role("button", name="Templates").first.click()
    dialog = canvas.page.get_by_role("dialog").first
    dialog.get_by_text("HiRes Fusion", exact=True).first.click()
    canvas.page.wait_for_function(f"() => ({CARDS})().length >= 6")
    assert set(canvas.page.evaluate(CARDS)) <= set(templates.NAMES.values())
    canvas.page.wait_for_function(f"() => ({CARD_PICTURES})() >= 6")
    canvas.shot("templates")
    name = templates.NAMES["demofusion_demo"]
    file = json.loads(templates.graph("demofusion_demo").read_text(encoding="utf-8"))
    dialog.get_by_placeholder("Search").first.fill(name)
    # The page filters a moment later, and draws the cards anew.
    found = f"(name) => ({CARDS})().length < 6 && ({CARDS})().includes(name)"
    canvas.page.wait_for_function(found, arg=name)
    canvas.settle(30)
    canvas.page.locator(f'[data-testid="template-workflow-{name}"]').first.click()
    canvas.page.wait_for_function(
        "(count) => app.graph.nodes.length === count", arg=len(file["nodes"])
    )
    dialog.wait_for(state="hidden")
    canvas.settle()
    assert canvas.complaints() == []
    canvas.shot("template_opened")


# Around a blueprint: the demo model, a prompt, our picture, and the wires by their types.
AROUND = """([file, prompt]) => {
    const [inner] = app.graph.nodes;
    const add = (type, y, values) => {
        const node = LiteGraph.createNode(type);
        node.pos = [inner.pos[0] - 500, inner.pos[1] + y];
        app.graph.add(node);
        for (const widget of node.widgets ?? [])
            if (widget.name in values) widget.value = values[widget.name];
        return node;
    };
    const model = add("HRF_LoadDemoModel", -300, {});
    const text = add("CLIPTextEncode", -100, { text: prompt });
    const image = add("LoadImage", 150, { image: file });
    const seen = add("PreviewImage", 550, {});
    model.connect(1, text, 0);
    const from = { MODEL: [model, 0], VAE: [model, 2], CONDITIONING: [text, 0], IMAGE: [image, 0] };
    inner.inputs.forEach((input, slot) => {
        const [source, output] = from[input.type] ?? [];
        source?.connect(output, inner, slot);
    });
    inner.connect(0, seen, 0);
}"""


def test_blueprints_are_found_placed_and_run(canvas):
    for name in BLUEPRINTS:
        assert any(text == name for text in canvas.search(name.lower())), name
    canvas.close_search()
    canvas.place("enlarge picture", "Enlarge Picture")
    (title,) = canvas.page.evaluate("() => app.graph.nodes.map((n) => n.title)")
    assert title == "Enlarge Picture"
    inside = canvas.page.evaluate("() => app.graph.nodes[0].subgraph.nodes.map((n) => n.type)")
    assert "HRF_ProgressiveUpscale" in inside
    canvas.shot("blueprint")
    canvas.page.evaluate(AROUND, [EXAMPLE, "a sailing boat"])
    canvas.set("steps", 2, "Enlarge Picture")
    canvas.run()
    assert canvas.pictures("Preview Image") == [[512, 512]]
    canvas.settle()
    assert canvas.complaints() == []
    canvas.shot("blueprint_ran")


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_in_other_languages(opened, in_language, language):
    if not opened.kind.newest:
        pytest.skip("this page shows no pack's words: it loads its own over them")
    canvas = in_language(language)
    words = ROOT / "locales" / language / "nodeDefs.json"
    words = json.loads(words.read_text(encoding="utf-8"))["HRF_ProgressiveUpscale"]
    canvas.page.evaluate(NODE, "HRF_ProgressiveUpscale")
    canvas.settle()
    canvas.shot(f"language_{language}")
    title, inputs = canvas.page.evaluate(NAMES)
    assert title == words["display_name"]
    known = {name: entry["name"] for name, entry in words["inputs"].items() if "name" in entry}
    assert known and {name: inputs[name] for name in known} == known
    assert not title.isascii() and sum(not text.isascii() for text in known.values()) > 8
