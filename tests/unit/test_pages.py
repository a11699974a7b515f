"""Every node has a help page that fits its schema, and a place in a workflow of both formats."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image, ImageStat

from tools import templates
from tools.graph import NEWER

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
APIS = {templates.graph(name): templates.api(name) for name in templates.NAMES}
WORKFLOWS = sorted(APIS)
NOTES = {"MarkdownNote", "Note"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
AFTER_SEED = {"fixed", "increment", "decrement", "randomize"}
# "- **scale** FLOAT, 2.0 (0.25 to 16)<br>what it does"
ROW = re.compile(r"^- \*\*(\w+)\*\* (\w+)(?:, ([^<]*))?<br>\S", re.M)
PANEL = 28  # letters that a line of the help panel (306 px) holds beside a table's padding
Inputs = dict[str, tuple[str, dict[str, Any]]]


class Schema(NamedTuple):
    """What the source says of one node."""

    inputs: Inputs
    hidden: bool  # only a part of another node's expansion


def constants(call: ast.Call) -> dict[str, Any]:
    """Keyword arguments that are written as plain values."""
    found = {}
    for keyword in call.keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return found


def inputs_in(tree: ast.AST) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """(pattern of the id, (type, options)) of every `io.X.Input(...)`, and of every
    `XWire.Input(...)` for a type of our own; an id may be an f-string."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        found = re.fullmatch(r"io\.(\w+)\.Input|(\w+)Wire\.Input", ast.unparse(call.func))
        if not found:
            continue
        name = call.args[0]
        parts = name.values if isinstance(name, ast.JoinedStr) else [name]
        pattern = "".join(p.value if isinstance(p, ast.Constant) else r"\w+" for p in parts)
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", found[1] or "").upper()
        kind = words or f"HRF_{found[2].upper()}"
        yield pattern, (kind, constants(call))


def schemas() -> dict[str, Schema]:
    """Every node by its id, read from nodes/*.py without importing ComfyUI."""
    files = sorted((ROOT / "nodes").glob("*.py"))
    tops = [top for p in files for top in ast.parse(p.read_text(encoding="utf-8")).body]
    functions = {top.name: top for top in tops if isinstance(top, ast.FunctionDef)}
    found = {}
    for node in (top for top in tops if isinstance(top, ast.ClassDef)):
        calls = [c for c in ast.walk(node) if isinstance(c, ast.Call)]
        ids = [i for c in calls if (i := constants(c).get("node_id"))]
        if ids:
            # A schema may take inputs from shared functions.
            called = {ast.unparse(c.func) for c in calls} & functions.keys()
            parts = [node, *(functions[name] for name in sorted(called))]
            inputs = dict(pair for part in parts for pair in inputs_in(part))
            hidden = any(constants(c).get("is_dev_only") for c in calls)
            found[ids[0]] = Schema(inputs, hidden)
    return found


SCHEMAS = schemas()


def said(options: dict[str, Any]) -> list[str]:
    """What the page says of an input's default and range."""
    words = []
    default = options.get("default")
    if default not in (None, ""):
        words.append(str(default).lower() if isinstance(default, bool) else str(default))
    if {"min", "max"} <= options.keys() and options["max"] < 2**53:
        words.append(f"({options['min']:g} to {options['max']:g})")
    return words + (["optional"] if options.get("optional") else [])


def linked(graph: dict, number: int) -> list:
    """Where a link comes from, as the API format writes it."""
    link = next(link for link in graph["links"] if link[0] == number)
    return [str(link[1]), link[2]]


def as_api(graph: dict) -> dict[str, tuple[str, dict[str, Any]]]:
    """(class, inputs) of each node of a graph file, as the page would queue it."""
    found = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        values = iter(node.get("widgets_values", []))
        inputs = {}
        for entry in node["inputs"]:
            if "widget" in entry:
                inputs[entry["name"]] = next(values)
                if entry["name"] in ("seed", "noise_seed"):
                    assert next(values) in AFTER_SEED
            if entry.get("link") is not None:
                inputs[entry["name"]] = linked(graph, entry["link"])
        assert not list(values), f"node {node['id']} has more values than widgets"
        found[str(node["id"])] = (node["type"], inputs)
    return found


def from_api(prompt: dict) -> dict[str, tuple[str, dict[str, Any]]]:
    """(class, inputs) of each node of an API file. What it saves, the page previews, and to what
    newer hosts ask for it adds the default."""
    found = {}
    for number, entry in prompt.items():
        kind, inputs = entry["class_type"], dict(entry["inputs"])
        if kind == "SaveImage":
            kind = "PreviewImage"
            del inputs["filename_prefix"]
        for name in NEWER.get(kind, ()):
            del inputs[name]
        found[number] = (kind, inputs)
    return found


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_is_something_to_compare():
    assert len(SCHEMAS) >= 9 and len(WORKFLOWS) >= 2
    assert SCHEMAS["HRF_DilatedSampling"].inputs.keys() == {
        *("model", "factor", "cosine_scale_2", "cosine_scale_3", "sigma"),
        *("interaction", "native"),
    }
    assert SCHEMAS["HRF_SkipResidual"].inputs["cosine_scale_1"][1]["default"] == 3.0


def test_every_page_belongs_to_a_node():
    assert {path.stem for path in PAGES.glob("*.md")} == SCHEMAS.keys()


@pytest.mark.parametrize("node", SCHEMAS)
def test_a_help_page_names_every_input(node):
    text = (PAGES / f"{node}.md").read_text(encoding="utf-8")
    assert "## Outputs" in text
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures and all((PAGES / name).is_file() for name in pictures)
    rows = ROW.findall(text.split("## Inputs")[1].split("## Outputs")[0])
    known = SCHEMAS[node].inputs
    for pattern, (kind, options) in known.items():
        found = [row for row in rows if re.fullmatch(pattern, row[0])]
        assert found, f"no row for {pattern}"
        assert {row[1] for row in found} == {kind}
        assert all(word in row[2] for row in found for word in said(options)), found
    assert not [row[0] for row in rows if not any(re.fullmatch(p, row[0]) for p in known)]


def unfit_tables(text: str) -> list[str]:
    """Lines of tables whose longest words are wider than the help panel, which cuts them off."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    words = [
        [max(map(len, re.split(r"<br>|\s", cell)), default=0) for cell in line.split("|")[1:-1]]
        for line in lines
    ]
    return [line for line, widths in zip(lines, words, strict=True) if sum(widths) > PANEL]


def test_a_table_that_is_cut_off_is_seen():
    wide = "| **num_resample_timesteps**<br>INT | the papers' latents, in models/latent_fusion |"
    assert unfit_tables(f"| a | b |\n{wide}\n") == [wide]


@pytest.mark.parametrize("node", SCHEMAS)
def test_a_help_page_can_be_read_in_the_panel(node):
    text = (PAGES / f"{node}.md").read_text(encoding="utf-8")
    assert not unfit_tables(text)
    head = text.split("## Inputs")[0]
    assert re.search(r"^\*\*When to use\*\*: \S.+ \*\*When not\*\*: \S.+\.$", head, re.M)
    links = re.findall(r"(?<!!)\[[^]]+\]\(([^)]+)\)", text)
    assert not [link for link in links if "://" not in link], "dead inside the page"


@pytest.mark.parametrize("node", [node for node in SCHEMAS if not SCHEMAS[node].hidden])
def test_a_node_has_a_place_in_a_workflow(node):
    assert any(node == kind for path in WORKFLOWS for kind, _ in as_api(load(path)).values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_both_formats_are_the_same_graph(path):
    graph, prompt = load(path), load(APIS[path])
    assert as_api(graph) == from_api(prompt)
    titles = {str(node["id"]): node.get("title") for node in graph["nodes"]}
    named = {n: e["_meta"]["title"] for n, e in prompt.items() if "_meta" in e}
    assert named == {number: titles[number] for number in named}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_every_widget_of_our_nodes(path):
    for entry in load(APIS[path]).values():
        known = SCHEMAS.get(entry["class_type"], Schema({}, False)).inputs
        widgets = [
            pattern
            for pattern, (kind, options) in known.items()
            if kind in WIDGETS and not options.get("force_input")
        ]
        missing = [w for w in widgets if not any(re.fullmatch(w, n) for n in entry["inputs"])]
        assert not missing, f"{entry['class_type']} lacks {missing}: run python -m tools.graph"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_graph_can_be_read(path):
    graph = load(path)
    assert any(node["type"] in NOTES for node in graph["nodes"]) and graph["groups"]
    assert {node["mode"] for node in graph["nodes"]} == {0}, "a node is muted or bypassed"
    picture = path.with_suffix(".jpg")
    with Image.open(picture) as opened:
        # Nothing else fills the browser's square; a screenshot of a canvas is dark.
        assert opened.format == "JPEG" and opened.width == opened.height
        assert ImageStat.Stat(opened.convert("L")).mean[0] > 40
    assert picture.stat().st_size < 300_000


TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("d*/*.md")), *sorted(PAGES.glob("*.md"))]


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_local_links_of_every_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (page.parent / target).exists(), target
    assert not re.search(r"@[A-Z]+@", text), "a figure is missing"


# ComfyUI gives new nodes another seed after every run, and then nothing is found again.
PROMISE = re.compile(r"stays? cached|(?:is|and) cached (?:by itself|while)|already done", re.I)


def promises() -> list[str]:
    """What pages, nodes and workflows say of results that need not be drawn again."""
    found = []
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *PAGES.rglob("*.md")):
        found += path.read_text(encoding="utf-8").splitlines()
    for path in ROOT.glob("nodes/*.py"):
        told = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        values = [node.value for node in told if isinstance(node, ast.keyword)]
        found += [v.value for v in values if isinstance(v, ast.Constant)]
    for path in WORKFLOWS:
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            found += node.get("widgets_values", [])
    return [text for text in found if isinstance(text, str) and PROMISE.search(text)]


def test_who_promises_a_cache_says_that_seeds_must_be_fixed():
    found = promises()
    assert len(found) >= 5
    assert not [text for text in found if "fixed" not in text]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_checkpoint_that_is_missing_can_be_had(path):
    for node in load(path)["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            (model,) = node["properties"]["models"]
            name = node["widgets_values"][0]
            assert model["name"] == name and model["directory"] == "checkpoints"
            assert re.fullmatch(rf"https://\S+/{re.escape(name)}", model["url"])
