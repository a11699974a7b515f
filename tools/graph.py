"""`python -m tools.graph [name …]`: make workflows/<name>.json from workflows/api/<name>.json.

The API file is the source. Its `_meta` says what the graph file needs besides: `title` of the
node, `group` (this node and those after it in the file, until the next one), and `note` (Markdown,
shown below the group). Groups stand left to right, and within a group a node stands right of
those it takes from. Inputs that the API file leaves out get their defaults, in both files.
A node that saves becomes one that previews, so that pressing Run fills nobody's folder.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tools.host import ROOT
from tools.server import start_server

WORKFLOWS = ROOT / "workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = ("seed", "noise_seed")
COLOUR = "#3f789e"
GAP = 40
BAR = 70  # of a group's title and a node's own
PREVIEW = (320, 340)


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
        for order, number in enumerate(prompt):
            self.nodes[number] = self.node(number, order)
        for number in prompt:
            self.connect(number)
        self.place()

    def node(self, number: str, order: int) -> dict:
        entry = self.prompt[number]
        kind, given = entry["class_type"], dict(entry["inputs"])
        if kind == "SaveImage":
            kind = "PreviewImage"
        sockets, widgets, values, height = [], [], [], 0
        for name, what, options, optional in definitions(self.info, kind):
            socket = {"name": name, "type": what} | ({"shape": 7} if optional else {})
            if what not in WIDGETS or options.get("forceInput"):
                sockets.append(socket | {"link": None})
                continue
            widgets.append(socket | {"widget": {"name": name}, "link": None})
            value = given[name] if name in given else default(what, options)
            values.append(default(what, options) if is_link(value) else value)
            height += 110 if options.get("multiline") else 28
            if name in SEEDS:
                values.append("fixed")
                height += 28
        names = self.info[kind].get("output_name") or self.info[kind]["output"]
        outputs = [
            {"name": name, "type": what, "links": []}
            for name, what in zip(names, self.info[kind]["output"], strict=True)
        ]
        size = [320, 40 + 22 * max(len(sockets), len(outputs)) + height]
        if kind in ("PreviewImage", "LoadImage"):
            size = list(PREVIEW)
        node = {
            "id": int(number),
            "type": kind,
            "pos": [0, 0],
            "size": size,
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": sockets + widgets,
            "outputs": outputs,
            "title": entry.get("_meta", {}).get("title", self.info[kind]["display_name"]),
            "properties": {"Node name for S&R": kind},
        }
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
        left = 20
        for title, members in self.members().items():
            depth = self.depths(members)
            x, bottom = left + GAP / 2, 0
            for column in range(max(depth.values()) + 1):
                y, width = BAR, 0
                for number in (n for n in members if depth[n] == column):
                    node = self.nodes[number]
                    node["pos"] = [x, y]
                    y += node["size"][1] + BAR
                    width = max(width, node["size"][0])
                bottom = max(bottom, y)
                x += width + GAP
            for text in (self.meta(n, "note") for n in members if self.meta(n, "note")):
                height = 60 + 24 * (text.count("\n") + len(text) // 45)
                self.note(text, [left + GAP / 2, bottom], [400, height])
                bottom += height + BAR
                x = max(x, left + GAP / 2 + 400 + GAP)
            bounds = [left, 0, x - left - GAP / 2, bottom - BAR / 2]
            self.groups.append(
                {"id": len(self.groups) + 1, "title": title, "bounding": bounds, "color": COLOUR}
                | {"font_size": 24, "flags": {}}
            )
            left = x + GAP

    def meta(self, number: str, key: str) -> str:
        return self.prompt.get(number, {}).get("_meta", {}).get(key, "")

    def members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        group = "Workflow"
        for number in self.prompt:
            group = self.meta(number, "group") or group
            found.setdefault(group, []).append(number)
        return found

    def depths(self, members: list[str]) -> dict[str, int]:
        """Longest way to each node from the group's first ones."""
        depth = dict.fromkeys(members, 0)
        for _ in members:
            for _, source, _, target, *_ in self.links:
                if str(source) in depth and str(target) in depth:
                    depth[str(target)] = max(depth[str(target)], depth[str(source)] + 1)
        return depth

    def note(self, text: str, pos: list, size: list) -> None:
        number = max(node["id"] for node in self.nodes.values()) + 1
        self.nodes[str(number)] = {
            **{"id": number, "type": "MarkdownNote", "pos": pos, "size": size, "flags": {}},
            **{"order": len(self.nodes), "mode": 0, "inputs": [], "outputs": []},
            **{"title": "Note", "properties": {}, "widgets_values": [text]},
        }

    def as_file(self) -> dict:
        return {
            "last_node_id": max(node["id"] for node in self.nodes.values()),
            "last_link_id": len(self.links),
            "nodes": list(self.nodes.values()),
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }


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
    names = sys.argv[1:]
    if not names:
        raise SystemExit("say which: python -m tools.graph <name of workflows/api/<name>.json>")
    with start_server() as server:
        info = server.get_json("/object_info")
    for name in names:
        source = WORKFLOWS / "api" / f"{name}.json"
        prompt = json.loads(source.read_text(encoding="utf-8"))
        complete(prompt, info)
        source.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        graph = Graph(prompt, info).as_file()
        target = WORKFLOWS / f"{name}.json"
        target.write_text(written(graph) + "\n", encoding="utf-8")
        print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
