"""A graph file (what the page saves) as the API format, where that can be done exactly.

The page itself decides what some of its nodes mean: groups, subgraphs, muted and bypassed nodes,
widgets that a pack's script adds. Those are refused by name; Workflow > Export (API) on the page
writes them out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..client import Prompt
from .settings import SEEDS, Info, inputs_of

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"Note", "MarkdownNote"}
AFTER = ("fixed", "increment", "decrement", "randomize")  # what the page does to a seed afterwards
REMEDY = "export it from the page with Workflow > Export (API)"


class WorkflowError(ValueError):
    """A file is no workflow that can be queued; the message says why."""


def read(path: Path) -> dict[str, Any]:
    """A workflow file in either format; WorkflowError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise WorkflowError(f"{path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise WorkflowError(f"{path} is no JSON file ({problem})") from problem
    if is_graph(found):
        return found
    if isinstance(found, dict) and isinstance(found.get("prompt"), dict):
        found = found["prompt"]  # a whole request body
    if not isinstance(found, dict) or not found:
        raise WorkflowError(f"{path} holds no workflow")
    for node, entry in found.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            raise WorkflowError(f"{path}: {node!r} is no node in API format; {REMEDY}")
        if not isinstance(entry.get("inputs"), dict):
            raise WorkflowError(f"{path}: node {node} has no inputs; {REMEDY}")
    return found


def is_graph(found: Any) -> bool:
    """Whether that is what the page saves."""
    return isinstance(found, dict) and isinstance(found.get("nodes"), list)


def classes(workflow: Mapping[str, Any]) -> list[str]:
    """Node classes in a workflow of either format."""
    if is_graph(workflow):
        return sorted({node["type"] for node in workflow["nodes"]} - NOTES - {"Reroute"})
    return sorted({entry["class_type"] for entry in workflow.values()})


def to_prompt(graph: Mapping[str, Any], info: Info) -> Prompt:
    """The graph in API format; WorkflowError where only the page knows what it means."""
    if graph.get("definitions", {}).get("subgraphs"):
        raise WorkflowError(f"it has subgraphs, which only the page takes apart: {REMEDY}")
    nodes = {node["id"]: node for node in graph["nodes"] if node["type"] not in NOTES}
    links = {}
    for link in graph.get("links", []):
        if not isinstance(link, list):
            raise WorkflowError(f"its links have a form that this tool does not know: {REMEDY}")
        links[link[0]] = (link[1], link[2])
    prompt = {}
    for number, node in nodes.items():
        title = node.get("title") or node["type"]
        if node.get("mode", 0) != 0:
            raise WorkflowError(f"{title!r} (node {number}) is muted or bypassed: {REMEDY}")
        if node["type"] == "Reroute":
            continue
        if node["type"] not in info:
            raise WorkflowError(
                f"{title!r} (node {number}) is a {node['type']}, which this server doesn't have, "
                f"or which lives in the page alone: install its pack, or {REMEDY}"
            )
        inputs = values(node, title, info)
        for socket in node.get("inputs") or []:
            if socket.get("link") is not None:
                inputs[socket["name"]] = source(nodes, links, socket["link"], title)
        prompt[str(number)] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": title},
        }
    return prompt


def source(nodes: Mapping, links: Mapping, link: int, title: str) -> list:
    """Node and output that a link comes from, through reroutes."""
    seen = set()
    while link in links and link not in seen:
        seen.add(link)
        number, output = links[link]
        node = nodes.get(number)
        if node is None:
            break
        if node["type"] != "Reroute":
            return [str(number), output]
        link = node["inputs"][0].get("link")
    raise WorkflowError(f"a wire into {title!r} comes from nowhere: {REMEDY}")


def values(node: Mapping[str, Any], title: str, info: Info) -> dict[str, Any]:
    """The node's widgets by name. Files keep them by position, so every one has to be known."""
    given = node.get("widgets_values") or []
    if isinstance(given, dict):
        raise WorkflowError(f"{title!r} keeps its values in a way of its pack's own: {REMEDY}")
    left, found = list(given), {}
    for name, (what, options) in inputs_of(info, node["type"]).items():
        kind = "COMBO" if isinstance(what, list) else what
        if not is_widget(kind, title):
            continue
        if options.get("forceInput"):
            continue
        value = left.pop(0) if left else default(what, options)
        if value is None:
            raise WorkflowError(f"{title!r} has no value for {name!r}: {REMEDY}")
        if not fits(value, kind):
            raise WorkflowError(
                f"{title!r} holds {value!r} where {name!r} ({kind}) should be; "
                f"it was saved with another version of its pack: {REMEDY}"
            )
        found[name] = value
        after = options.get("control_after_generate") or (kind == "INT" and name in SEEDS)
        if after and left and left[0] in AFTER:
            left.pop(0)
        if options.get("image_upload") and left and left[0] == "image":
            left.pop(0)  # the button that uploads
    if left:
        raise WorkflowError(f"{title!r} holds more values than it has inputs: {REMEDY}")
    return found


def default(what: Any, options: Mapping[str, Any]) -> Any:
    """What the page shows for an input that is newer than the file; None if it has no default."""
    choices = what if isinstance(what, list) else options.get("options") or []
    return options.get("default", choices[0] if choices else None)


def is_widget(kind: Any, title: str) -> bool:
    """Whether the page shows a value for inputs of that type."""
    if isinstance(kind, str) and kind.startswith("COMFY_"):
        raise WorkflowError(f"{title!r} has inputs that come and go ({kind}): {REMEDY}")
    return kind in WIDGETS


def fits(value: Any, kind: str) -> bool:
    """Whether a value may be one of that type."""
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "FLOAT" or float(value).is_integer())
    return isinstance(value, str) or kind == "COMBO"
