"""What a workflow is told to do differently: inputs by the title or id of their node."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..client import Prompt, title_of

Info = Mapping[str, Mapping[str, Any]]  # node class -> what /object_info says of it
Place = tuple[str, str]  # node id, input
SEEDS = ("seed", "noise_seed")


class SettingError(ValueError):
    """A setting fits nothing in the workflow; the message says what would."""


def inputs_of(info: Info, kind: str) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Input -> its type and options, in the order of the definition ({} for an unknown class)."""
    parts = info.get(kind, {}).get("input", {})
    return {
        name: (what, options[0] if options else {})
        for part in ("required", "optional")
        for name, (what, *options) in parts.get(part, {}).items()
    }


def is_link(value: Any) -> bool:
    """Whether an input's value is the output of another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def split(text: str) -> tuple[str, str]:
    """ "Prompt.text=a boat" -> ("Prompt.text", "a boat")."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingError(f"{text!r} is no setting: write NODE.INPUT=VALUE, like Prompt.text=fog")
    return key.strip(), value


def grid(settings: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Every combination of the values given for each key, the last key fastest."""
    values: dict[str, list[str]] = {}
    for key, value in settings:
        values.setdefault(key, []).append(value)
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def places(prompt: Prompt, info: Info, key: str) -> list[Place]:
    """The inputs that a key means; SettingError if there is none, or no saying which.

    NODE.INPUT is an input by its node's id or title. INPUT alone is the only input of that name
    in the workflow, or the `value` of the node with that title; `seed` is every seed there is.
    """
    found = [
        (node, key[at + 1 :])
        for at, letter in enumerate(key)
        if letter == "."
        for node in nodes_called(prompt, key[:at])
        if key[at + 1 :] in settable(prompt, info, node)
    ]
    if not found:
        found = bare(prompt, key)
    if not found:
        raise SettingError(missing(prompt, info, key))
    if len(found) > 1 and key not in SEEDS:
        names = ", ".join(f"{node}.{name} ({title_of(prompt, node)})" for node, name in found)
        raise SettingError(f"{key} means several inputs; say which: {names}")
    return found


def bare(prompt: Prompt, key: str) -> list[Place]:
    """Values named `key`, or of a node titled so; a seed has two names."""
    wanted = SEEDS if key in SEEDS else (key,)
    return [
        (node, name)
        for node, entry in prompt.items()
        for name, value in entry["inputs"].items()
        if not is_link(value)
        and (
            name in wanted
            or (name == "value" and title_of(prompt, node).casefold() == key.casefold())
        )
    ]


def nodes_called(prompt: Prompt, name: str) -> list[str]:
    """The node of that id, else those of that title."""
    if name in prompt:
        return [name]
    return [node for node in prompt if title_of(prompt, node) == name]


def settable(prompt: Prompt, info: Info, node: str) -> list[str]:
    """Inputs of a node, those that the file leaves at their defaults too."""
    entry = prompt[node]
    return [*dict.fromkeys([*entry["inputs"], *inputs_of(info, entry["class_type"])])]


def missing(prompt: Prompt, info: Info, key: str) -> str:
    """Why a key fits nothing, and what is near."""
    for at in [at for at, letter in enumerate(key) if letter == "."][::-1]:
        if nodes := nodes_called(prompt, key[:at]):
            has = ", ".join(settable(prompt, info, nodes[0])) or "none"
            return f"{key[:at]} has no input {key[at + 1 :]!r}; it has: {has}"
    known = [
        f"{title_of(prompt, node)}.{name}"
        for node, entry in prompt.items()
        for name, value in entry["inputs"].items()
        if not is_link(value)
    ]
    near = difflib.get_close_matches(key, known, 3, 0.3) or known[:3]
    return f"nothing in the workflow is called {key!r}; it has for instance {', '.join(near)}"


def converted(text: str, what: Any, options: Mapping[str, Any], present: Any) -> Any:
    """`text` as a value of type `what`, as the server names types; ValueError if it is none."""
    if isinstance(what, list) or what == "COMBO":
        choices = what if isinstance(what, list) else options.get("options") or []
        return next((choice for choice in choices if str(choice) == text), text)
    if what not in ("INT", "FLOAT", "BOOLEAN", "STRING"):
        what = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}.get(type(present))
    match what:
        case "STRING":
            return text
        case "BOOLEAN":
            known = {"true": True, "false": False}
            if text.strip().casefold() not in known:
                raise ValueError("true or false")
            return known[text.strip().casefold()]
        case "INT":
            try:
                return int(text)
            except ValueError:
                raise ValueError("a whole number") from None
        case "FLOAT":
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise ValueError("a number")
            return number
    raise ValueError("a wire from another node, which no setting can bring")


def applied(prompt: Prompt, info: Info, settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The workflow with those settings, as a new one; SettingError says what fits nowhere."""
    changed = json.loads(json.dumps(prompt))
    taken: dict[Place, str] = {}
    for key, text in settings.items():
        for node, name in places(prompt, info, key):
            if (node, name) in taken:
                raise SettingError(f"{key} and {taken[node, name]} are the same input")
            taken[node, name] = key
            entry = prompt[node]
            present = entry["inputs"].get(name)
            if is_link(present):
                source = title_of(prompt, present[0])
                raise SettingError(f"{key} comes by a wire from {source!r}: set it there")
            what, options = inputs_of(info, entry["class_type"]).get(name, (None, {}))
            try:
                changed[node]["inputs"][name] = converted(text, what, options, present)
            except ValueError as wanted:
                raise SettingError(f"{key}={text}: it takes {wanted}") from None
    return changed
