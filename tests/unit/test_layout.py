"""Graph files can be read when they are opened, and still after a run; nobody's layout is lost."""

from __future__ import annotations

import copy
import itertools
import json

import pytest

from tools import graph, layout, templates, wires
from tools.layout import Box, box_of

FILES = {name: templates.graph(name) for name in templates.NAMES}


def load(name: str) -> dict:
    return json.loads(FILES[name].read_text(encoding="utf-8"))


def overlaps(file: dict, grown: bool) -> list[tuple]:
    """Pairs of titles of nodes and notes that cover each other."""
    boxes = [(node["title"], box_of(node, grown)) for node in file["nodes"]]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.meets(other)]


def hidden(file: dict) -> list[int]:
    """Links that run behind a node or back, but for those that have reroutes."""
    nodes = {node["id"]: node for node in file["nodes"]}
    led = {end["id"] for end in file["extra"].get("linkExtensions", [])}
    return [link[0] for link in wires.hidden(nodes, file["links"]) if link[0] not in led]


def test_every_file_has_a_name_and_every_name_a_file():
    assert {path.stem for path in templates.API.glob("*.json")} == set(templates.NAMES)
    assert {*templates.GRAPHS.glob("*.json")} == set(FILES.values())
    assert {*templates.GRAPHS.glob("*.jpg")} == set(map(templates.picture, templates.NAMES))
    numbers = [name.split()[0] for name in templates.NAMES.values()]
    assert numbers == sorted(set(numbers)) and all(len(n) == 2 and n.isdigit() for n in numbers)


@pytest.mark.parametrize("name", FILES)
def test_nothing_covers_anything(name):
    file = load(name)
    assert not overlaps(file, grown=False) and not overlaps(file, grown=True)
    groups = [Box(*group["bounding"]) for group in file["groups"]]
    assert not [pair for pair in itertools.combinations(groups, 2) if pair[0].meets(pair[1])]
    for node in file["nodes"]:
        box = box_of(node)
        touched = [group for group in groups if group.meets(box)]
        assert node["type"] in graph.NOTES or len(touched) == 1, node["title"]
        assert all(group.holds(box) for group in touched), f"{node['title']} leaves its group"


@pytest.mark.parametrize("name", FILES)
def test_wires_are_seen(name):
    file = load(name)
    assert not hidden(file)
    boxes = [box_of(node) for node in file["nodes"]]
    points = {point["id"]: point for point in file["extra"].get("reroutes", [])}
    assert not [p for p in points.values() if wires.behind([tuple(p["pos"])], boxes)]
    nodes = {node["id"]: node for node in file["nodes"]}
    links = {link[0]: link for link in file["links"]}
    for end in file["extra"].get("linkExtensions", []):
        _, source, output, target, slot, _ = links[end["id"]]
        way = [wires.input_of(nodes[target], slot)]
        number = end["parentId"]
        while number:  # every point of the way knows the link
            assert end["id"] in points[number]["linkIds"]
            way.append(tuple(points[number]["pos"]))
            number = points[number].get("parentId")
        way.append(wires.output_of(nodes[source], output))
        for (x, y), (right, bottom) in itertools.pairwise(way):
            line = [(x + (right - x) * t / 50, y + (bottom - y) * t / 50) for t in range(51)]
            assert not wires.behind(line, boxes), f"link {end['id']}"


@pytest.mark.parametrize("name", FILES)
def test_texts_are_large_enough_to_be_read(name):
    file = load(name)
    scale, (x, y) = (file["extra"]["ds"][key] for key in ("scale", "offset"))
    assert layout.TEXT * scale >= layout.LEGIBLE
    left, top = (min(group["bounding"][i] for group in file["groups"]) for i in (0, 1))
    assert 0 < (left + x) * scale < 200 and 0 < (top + y) * scale < 200, "it opens elsewhere"
    assert layout.fit([(b[0] - left, b[1] - top) for b in bounds(file)], sizes(file)) > 0.35
    for node in file["nodes"]:
        if node["type"] in graph.NOTES:
            assert "Note" not in node["title"].split() and node["widgets_values"][0].strip()


def bounds(file: dict) -> list[list[float]]:
    return [group["bounding"] for group in file["groups"]]


def sizes(file: dict) -> list[tuple[float, float]]:
    return [tuple(bounding[2:]) for bounding in bounds(file)]


def test_what_should_be_seen_is_seen():
    file = load("demofusion_demo")
    sampler = next(node for node in file["nodes"] if node["type"] == "KSampler")
    under = copy.deepcopy(sampler) | {"id": 99, "type": "VAEDecode", "size": [150, 80]}
    under["pos"] = [sampler["pos"][0], sampler["pos"][1] + sampler["size"][1] + 60]
    file["nodes"].append(under)
    assert overlaps(file, grown=True) and not overlaps(file, grown=False)
    assert not hidden(file)
    file["extra"]["linkExtensions"].pop()
    assert hidden(file)


# One node class, as /object_info tells of it.
INFO = {
    "Load": {"input": {}, "output": ["MODEL"], "display_name": "Load"},
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0}],
                "steps": ["INT", {"default": 20}],
                "note": ["STRING", {"default": "", "multiline": True}],
            }
        },
        "output": ["LATENT"],
        "display_name": "KSampler",
    },
}


def prompt() -> dict:
    sample = {"model": ["1", 0], "steps": 5}
    told = {"title": "Sampling", "group": "2 Picture", "note": "## Steps\n\nMore take longer."}
    made = {
        "1": {"class_type": "Load", "inputs": {}, "_meta": {"group": "1 Model"}},
        "2": {"class_type": "KSampler", "inputs": sample, "_meta": told},
    }
    graph.complete(made, INFO)
    return made


def test_what_nobody_has_moved_is_laid_out_anew():
    first = graph.make(prompt(), INFO, None)
    again = prompt()
    again["2"]["_meta"]["note"] = "## Steps\n\nFewer are faster."
    second = graph.make(again, INFO, first)
    assert [n["widgets_values"] for n in second["nodes"] if n["title"] == "Steps"] == [
        ["Fewer are faster."]
    ]
    assert graph.make(again, INFO, second) == second


def test_a_layout_made_by_hand_is_kept():
    mine = graph.make(prompt(), INFO, None)
    node, note = (next(n for n in mine["nodes"] if n["id"] == i) for i in (2, 3))
    node["pos"], note["title"], note["widgets_values"] = [900, 700], "Mine", ["My words."]
    mine["groups"][1] |= {"title": "My group", "bounding": [880, 600, 400, 700]}
    changed = prompt()
    changed["2"]["inputs"]["steps"] = 9
    changed["7"] = {"class_type": "Load", "inputs": {}, "_meta": {"title": "Another"}}
    made = graph.make(changed, INFO, mine)
    by_title = {n["title"]: n for n in made["nodes"]}
    assert by_title["Sampling"]["pos"] == [900, 700]
    assert by_title["Sampling"]["widgets_values"][2] == 9
    assert by_title["Mine"]["widgets_values"] == ["My words."]
    assert made["groups"] == mine["groups"]
    assert by_title["Another"]["pos"][1] > 900 and not overlaps(made, grown=True)
    assert len({n["id"] for n in made["nodes"]}) == len(made["nodes"]) == 4
    anew = graph.make(changed, INFO, mine, anew=True)
    assert {group["title"] for group in anew["groups"]} == {"1 Model", "2 Picture"}


def test_a_note_without_a_title_is_refused():
    bad = prompt()
    bad["2"]["_meta"]["note"] = "More take longer."
    with pytest.raises(ValueError, match="a note needs a title"):
        graph.make(bad, INFO, None)
    with pytest.raises(ValueError, match="no name yet for the template browser"):
        templates.graph("another")
