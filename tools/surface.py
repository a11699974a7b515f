"""`python -m tools.surface`: what graphs and users know of the nodes, as committed files.

tools/surface.json holds what saved graphs depend on: ids, inputs in order with types, defaults,
ranges and choices, outputs. A change of it is made by this command, so it is seen in review.

locales/<language>/ holds what the page shows: names, tooltips, categories. The English one is what
the nodes say. The others are made from tools/words/<language>.json, which maps each English text
to its translation: a text that was changed has none any more, and the command says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from tools.host import ROOT
from tools.server import NODE_PREFIX, start_server

SNAPSHOT = ROOT / "tools" / "surface.json"
LOCALES = ROOT / "locales"
LANGUAGES = ("zh", "ja", "ko")
FOLDER = "hires-fusion"  # of the pack, as its templates are listed
SPECIAL = re.compile(r"[@${}|%]")  # what the page's messages read as syntax
NUMBERED = re.compile(r"^(Number |latent_)(\d+)( of the list\.)?$")  # said of many inputs alike
# Their choices grow with the host, or are files and accounts of the user, and so are defaults.
HOST_CHOICES = {"sampler_name", "scheduler", "latent_format"}
USER_CHOICES = {"weights", "provider"}
KEPT = ("default", "min", "max", "step")
Info = dict[str, Any]


def words_file(language: str) -> Any:
    """Where a language's translations are written by hand."""
    return ROOT / "tools" / "words" / f"{language}.json"


def inputs_of(node: Info) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """(name, type, options, optional) of each input, in order."""
    for part in ("required", "optional"):
        for name, (kind, *options) in node["input"].get(part, {}).items():
            options = dict(options[0]) if options else {}
            if isinstance(kind, list | tuple):  # the older form of a combo
                kind, options = "COMBO", {"options": list(kind), **options}
            yield name, kind, options, part == "optional"


def contract(info: Info) -> dict[str, Any]:
    """What saved graphs depend on, by node id.

    Args:
        info: of our nodes, as the host's /object_info has them.
    """
    found = {}
    for node_id, node in sorted(info.items()):
        inputs = []
        for name, kind, options, optional in inputs_of(node):
            entry = {"name": name, "type": kind} | ({"optional": True} if optional else {})
            users = name in USER_CHOICES
            entry |= {
                k: options[k] for k in KEPT if k in options and not (users and k == "default")
            }
            if "options" in options and not users and name not in HOST_CHOICES:
                entry["choices"] = list(options["options"])
            inputs.append(entry)
        lists = node["output_is_list"]
        outputs = [
            {"name": name, "type": kind} | ({"list": True} if listed else {})
            for name, kind, listed in zip(node["output_name"], node["output"], lists, strict=True)
        ]
        found[node_id] = {"inputs": inputs, "outputs": outputs}
    return json.loads(json.dumps(found))


def refusals(prompt: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Why a graph in API format would not load or run with the nodes of a contract."""
    found = []
    for number, entry in prompt.items():
        kind, given = entry["class_type"], entry["inputs"]
        if not kind.startswith(NODE_PREFIX):
            continue
        where = f"{number} {kind}"
        if kind not in known:
            found.append(f"{where}: no such node")
            continue
        inputs = {one["name"]: one for one in known[kind]["inputs"]}
        found += [f"{where}: no input {name}" for name in given.keys() - inputs.keys()]
        for name, one in inputs.items():
            if name not in given:
                if not one.get("optional"):
                    found.append(f"{where}: {name} is required")
            elif not isinstance(given[name], list) and not _takes(one, given[name]):
                found.append(f"{where}: {name} does not take {given[name]!r}")
        for name, value in given.items():
            if isinstance(value, list) and prompt[value[0]]["class_type"] in known:
                outputs = known[prompt[value[0]]["class_type"]]["outputs"]
                wanted = inputs.get(name, {}).get("type")
                if value[1] >= len(outputs) or outputs[value[1]]["type"] != wanted:
                    found.append(f"{where}: {name} is linked to an output that is no {wanted}")
    return found


def _takes(one: dict[str, Any], value: Any) -> bool:
    if "choices" in one:
        return value in one["choices"]
    if one["type"] in ("INT", "FLOAT"):
        return one.get("min", -math.inf) <= value <= one.get("max", math.inf)
    return isinstance(value, bool) if one["type"] == "BOOLEAN" else isinstance(value, str)


def english(info: Info) -> dict[str, Any]:
    """What the nodes say, in the form of nodeDefs.json."""
    found = {}
    for node_id, node in info.items():
        inputs = {
            name.replace(".", "_"): {"name": options.get("display_name") or name}
            | ({"tooltip": options["tooltip"]} if options.get("tooltip") else {})
            for name, _, options, _ in inputs_of(node)
        }
        tips = node.get("output_tooltips") or [None] * len(node["output_name"])
        outputs = {
            str(i): {"name": name} | ({"tooltip": tip} if tip else {})
            for i, (name, tip) in enumerate(zip(node["output_name"], tips, strict=True))
        }
        found[node_id.replace(".", "_")] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": inputs,
            "outputs": outputs,
        }
    return found


def categories(info: Info) -> list[str]:
    """The menus' names, one path segment each."""
    return sorted({part for node in info.values() for part in node["category"].split("/")})


def texts(defs: Any) -> Iterator[str]:
    """Every text of nodeDefs, each once for all of its places."""
    if isinstance(defs, str):
        yield NUMBERED.sub(r"\1N\3", defs)
    elif isinstance(defs, dict):
        for value in defs.values():
            yield from texts(value)


def translated(text: str, table: dict[str, str]) -> str | None:
    """A text in another language; None where it has no translation."""
    number = NUMBERED.match(text)
    found = table.get(NUMBERED.sub(r"\1N\3", text))
    return found.replace("N", number[2]) if found and number else found


def escaped(text: str) -> str:
    """A name as the page's messages want it."""
    return SPECIAL.sub(lambda sign: "{'" + sign[0] + "'}", text)


def localized(defs: Any, table: dict[str, str] | None, key: str = "") -> Any:
    """nodeDefs in another language (English without a table). Left out, so that the page shows
    the node's own, is what has no translation, and a long text with the signs of messages: hosts
    differ in how they read them there."""
    if isinstance(defs, str):
        text = defs if table is None else translated(defs, table)
        if text is None or (key in ("tooltip", "description") and SPECIAL.search(text)):
            return None
        return escaped(text)
    parts = {name: localized(value, table, name) for name, value in defs.items()}
    return {name: value for name, value in parts.items() if value is not None}


def locale(info: Info, table: dict[str, str] | None) -> dict[str, Any]:
    """The files of a language, by name."""
    menus = {name: name if table is None else table.get(name) for name in categories(info)}
    group = "HiRes Fusion" if table is None else table.get("HiRes Fusion", "HiRes Fusion")
    return {
        "main.json": {
            "nodeCategories": {name: escaped(text) for name, text in menus.items() if text},
            "templateWorkflows": {"category": {FOLDER: escaped(group)}},
        },
        "nodeDefs.json": localized(english(info), table),
    }


def gaps(info: Info, table: dict[str, str]) -> tuple[list[str], list[str]]:
    """(English texts without a translation, translations of what no node says any more)."""
    said = {*texts(english(info)), *categories(info)}
    return sorted(said - table.keys()), sorted(table.keys() - said)


def written(value: Any) -> str:
    """JSON as it is committed."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def snapshot_text(known: dict[str, Any]) -> str:
    """The contract as it is committed: an input or output a line."""
    nodes = []
    for node_id, node in known.items():
        parts = [
            f'  "{part}": [\n'
            + ",\n".join("   " + json.dumps(one, ensure_ascii=False) for one in node[part])
            + "\n  ]"
            for part in ("inputs", "outputs")
        ]
        nodes.append(f' "{node_id}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(nodes).replace("[\n\n  ]", "[]") + "\n}\n"


def read_table(language: str) -> dict[str, str]:
    """Translations by their English text."""
    return json.loads(words_file(language).read_text(encoding="utf-8"))


def main() -> None:
    """Command line."""
    with start_server() as server:
        nodes = server.get_json("/object_info")
    info = {name: node for name, node in nodes.items() if name.startswith(NODE_PREFIX)}
    SNAPSHOT.write_text(snapshot_text(contract(info)), encoding="utf-8")
    problems = []
    for language in ("en", *LANGUAGES):
        table = None if language == "en" else read_table(language)
        folder = LOCALES / language
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in locale(info, table).items():
            (folder / name).write_text(written(value), encoding="utf-8")
        missing, stale = gaps(info, table) if table is not None else ([], [])
        problems += [f"{language}: no translation of {text!r}" for text in missing]
        problems += [f"{language}: no node says {text!r} any more" for text in stale]
    print(*problems or ["complete"], sep="\n")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
