"""`python -m tools.graph [--layout] [name …]`: the files to drag onto the canvas.

workflows/api/<name>.json is the source, and of graphs for real checkpoints `tools.ready`; what they
are called in ComfyUI's template browser stands in `tools.templates`. Without names all are made
(blueprints by `python -m tools.blueprints`). The API file's `_meta` says what the graph
file needs besides: `title` of the node, `group` (this node and those after it in the file, until
the next one), `models` that its widgets name, and `note` (Markdown; a first line "## ..." is its
title). Inputs that the API file leaves out get their defaults, in both files. A node that saves
becomes one that previews, so that pressing Run fills nobody's folder.

What somebody has moved or written in the page stays as it is: places, groups and notes are laid
out anew only where they still are as this command made them, or with --layout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import Any

from tools import layout, ready, templates, wires
from tools.host import ROOT
from tools.server import start_server

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = ("seed", "noise_seed")
NOTES = ("MarkdownNote", "Note")
COLOUR = "#3f789e"
GREEN = {"color": "#232", "bgcolor": "#353"}
RED = {"color": "#322", "bgcolor": "#533"}
# Inputs that the host's own nodes have got since the oldest version that we run on: a server passes
# over those that it doesn't know, and refuses a prompt without those that it does.
NEWER = {"ImageScaleToTotalPixels": {"resolution_steps": 1}}
WRITTEN = ("CLIPTextEncode", "PrimitiveStringMultiline")  # where a user writes


def definitions(info: dict[str, Any], kind: str) -> list[tuple[str, str, dict[str, Any], bool]]:
    """(name, type, options, optional) of each input of a node class, as /object_info has them."""
    found = []
    for part in ("required", "optional"):
        for name, (what, *options) in info[kind]["input"].get(part, {}).items():
            options = options[0] if options else {}
            if isinstance(what, list):  # the older form of a combo
                options = {"options": what, **options}
                what = "COMBO"
            found.append((name, what, options, part == "optional"))
    return found


def default(kind: str, options: dict[str, Any]) -> Any:
    """What the page would put into a widget."""
    if "default" in options:
        return options["default"]
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    return empty[kind] if kind in empty else [*options["options"], ""][0]


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def complete(prompt: dict, info: dict) -> None:
    """Give every node all of its widgets' values, in place, in the order of its definition."""
    for entry in prompt.values():
        given, ordered = entry["inputs"], {}
        for name, kind, options, _ in definitions(info, entry["class_type"]):
            if name in given:
                ordered[name] = given.pop(name)
            elif kind in WIDGETS and not options.get("forceInput"):
                ordered[name] = default(kind, options)
        for name, value in NEWER.get(entry["class_type"], {}).items():
            ordered.setdefault(name, given.pop(name, value))
        if given:
            raise ValueError(f"{entry['class_type']} has no input {', '.join(given)}")
        entry["inputs"] = ordered


class Graph:
    """A graph file in the making."""

    def __init__(self, prompt: dict, info: dict):
        self.prompt = prompt
        self.info = info
        self.links: list[list] = []
        self.nodes: dict[str, dict] = {}
        self.groups: list[dict] = []
        self.notes: list[dict] = []
        self.extra: dict[str, list] = {}
        self.last = max(map(int, prompt))
        for order, number in enumerate(prompt):
            self.nodes[number] = self.node(number, order)
        for number in prompt:
            self.connect(number)

    def node(self, number: str, order: int) -> dict:
        entry = self.prompt[number]
        kind, given = entry["class_type"], dict(entry["inputs"])
        if kind == "SaveImage":
            kind = "PreviewImage"
        sockets, widgets, values, long = [], [], [], []
        for name, what, options, optional in definitions(self.info, kind):
            socket = {"name": name, "type": what} | ({"shape": 7} if optional else {})
            if what not in WIDGETS or options.get("forceInput"):
                sockets.append(socket | {"link": None})
                continue
            widgets.append(socket | {"widget": {"name": name}, "link": None})
            value = given[name] if name in given else default(what, options)
            values.append(default(what, options) if is_link(value) else value)
            long.append(bool(options.get("multiline")))
            if name in SEEDS:
                values.append("fixed")
                long.append(False)
        names = self.info[kind].get("output_name") or self.info[kind]["output"]
        outputs = [
            {"name": name, "type": what, "links": []}
            for name, what in zip(names, self.info[kind]["output"], strict=True)
        ]
        title = self.meta(number, "title") or self.info[kind]["display_name"]
        models = self.meta(number, "models")
        node = {
            "id": int(number),
            "type": kind,
            "pos": [0, 0],
            "size": layout.node_size(kind, len(sockets), len(outputs), long),
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": sockets + widgets,
            "outputs": outputs,
            "title": title,
            "properties": {"Node name for S&R": kind} | ({"models": models} if models else {}),
        }
        if kind in WRITTEN:
            node |= RED if "egative" in title else GREEN
        return node | ({"widgets_values": values} if values else {})

    def connect(self, number: str) -> None:
        for slot, socket in enumerate(self.nodes[number]["inputs"]):
            value = self.prompt[number]["inputs"].get(socket["name"])
            if not is_link(value):
                continue
            source, output = value
            link = len(self.links) + 1
            out = self.nodes[source]["outputs"][output]
            self.links.append([link, int(source), output, int(number), slot, out["type"]])
            out["links"].append(link)
            socket["link"] = link

    def place(self) -> None:
        """Lay everything out."""
        placed = []
        for title, members in self.members().items():
            notes = [self.note(text) for n in members if (text := self.meta(n, "note"))]
            placed.append(layout.Group(title, {n: self.nodes[n] for n in members}, notes))
        links = [(str(source), str(target)) for _, source, _, target, *_ in self.links]
        layout.arrange(placed, links)
        rows = layout.by_row(placed)
        numbers = [[int(n) for group in row for n in group.nodes] for row in rows]
        self.notes = [note for group in placed for note in group.notes]
        standing = {node["id"]: node for node in (*self.nodes.values(), *self.notes)}
        lanes = wires.Lanes(standing, numbers, self.links)
        self.extra = lanes.reroutes(layout.make_room(placed, lanes.heights()))
        for number, group in enumerate(placed, 1):
            box = group.box
            bounding = [round(side) for side in (box.x, box.y, box.width, box.height)]
            self.groups.append(
                {"id": number, "title": group.title, "bounding": bounding, "color": COLOUR}
                | {"font_size": 24, "flags": {}}
            )

    def keep(self, old: dict) -> None:
        """Places, groups and notes of the file as it is; nodes that it does not have go below."""
        known = {(node["id"], node["type"]): node for node in old["nodes"]}
        self.notes = [node for node in old["nodes"] if node["type"] in NOTES]
        below = max(layout.box_of(node).bottom for node in old["nodes"]) + layout.GAP
        for node in self.nodes.values():
            before = known.get((node["id"], node["type"]))
            if before is None:
                node["pos"] = [layout.PAD, round(below) + layout.TITLE]
                below = layout.box_of(node).bottom + layout.GAP
                continue
            title = self.meta(str(node["id"]), "title") or before.get("title", node["title"])
            node |= {"pos": before["pos"], "size": before["size"], "title": title}
        last = max(node["id"] for node in self.nodes.values())
        for note in self.notes:
            last = note["id"] = max(last + 1, note["id"])
        self.groups = old["groups"]
        if [link[:5] for link in old["links"]] == [link[:5] for link in self.links]:
            kept = ("reroutes", "linkExtensions")
            self.extra = {name: old["extra"][name] for name in kept if name in old["extra"]}

    def meta(self, number: str, key: str) -> Any:
        return self.prompt.get(number, {}).get("_meta", {}).get(key, "")

    def members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        group = "Workflow"
        for number in self.prompt:
            group = self.meta(number, "group") or group
            found.setdefault(group, []).append(number)
        return found

    def note(self, text: str) -> dict:
        """A note that stands nowhere yet."""
        first, _, rest = text.partition("\n")
        if not first.startswith("## "):
            raise ValueError(f"a note needs a title that tells, '## ...' above it: {text[:60]}")
        self.last += 1
        return {
            **{"id": self.last, "type": "MarkdownNote", "pos": [0, 0], "size": [0, 0]},
            **{"flags": {}, "order": len(self.nodes), "mode": 0, "inputs": [], "outputs": []},
            **{"title": first[3:], "properties": {}, "widgets_values": [rest.strip()]},
        }

    def as_file(self) -> dict:
        nodes = [*self.nodes.values(), *self.notes]
        return {
            "last_node_id": max(node["id"] for node in nodes),
            "last_link_id": len(self.links),
            "nodes": nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": layout.view([group["bounding"] for group in self.groups])} | self.extra,
            "version": 0.4,
        }


def fingerprint(file: dict) -> str:
    """Of a layout: changes when somebody moves something or writes into a note."""
    placed = [[node["id"], node["pos"], node["size"]] for node in file["nodes"]]
    notes = [n.get("widgets_values") for n in file["nodes"] if n["type"] in NOTES]
    groups = [[group["title"], group["bounding"]] for group in file["groups"]]
    text = json.dumps([placed, notes, groups])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make(prompt: dict, info: dict, old: dict | None, anew: bool = False) -> dict:
    """The graph file of a complete API file; `old` is the one that there is."""
    graph = Graph(prompt, info)
    own = old is None or old["extra"].get("layout") == fingerprint(old)
    if own or anew:
        graph.place()
        file = graph.as_file()
        file["extra"]["layout"] = fingerprint(file)
        return file
    graph.keep(old)
    return graph.as_file()


def written(value: Any, indent: str = "") -> str:
    """JSON with whatever fits on a line on one line, so that changes can be read."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= 96 or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(k)}: {written(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + written(v, inner) for v in value) + f"\n{indent}]"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0].strip("`"))
    parser.add_argument("names", nargs="*", help="of workflows/api/<name>.json; all if left out")
    parser.add_argument("--layout", action="store_true", help="lay out anew what was moved, too")
    given = parser.parse_args()
    names = given.names or list(templates.NAMES)
    with start_server() as server:
        info = server.get_json("/object_info")
    for name in names:
        source, target = templates.api(name), templates.graph(name)
        if name in ready.GRAPHS:
            prompt = ready.make(name)
        else:
            prompt = json.loads(source.read_text(encoding="utf-8"))
        complete(prompt, info)
        source.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        old = json.loads(target.read_text(encoding="utf-8")) if target.exists() else None
        file = make(prompt, info, old, given.layout)
        target.write_text(written(file) + "\n", encoding="utf-8")
        print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
