"""Every name of the host that the shipped code uses exists in the host in use, takes the arguments
it is called with, and is listed in docs/compatibility.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("nodes", "sampling", "demo")
HOST = re.compile(r"(comfy\w*|nodes|folder_paths|latent_preview|node_helpers)(\.|$)")


def dotted(node: ast.AST) -> str | None:
    """a.b.c as text, None for anything else."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return inner and f"{inner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def uses(path: Path) -> Iterator[tuple[str, ast.Call | None]]:
    """(full name of a host symbol, its call) in a file; None where it is not called."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [n.name for n in node.names if HOST.match(n.name)]
            names |= {n.split(".")[0]: n.split(".")[0] for n in found}
        elif isinstance(node, ast.ImportFrom) and not node.level and HOST.match(node.module):
            names |= {n.asname or n.name: f"{node.module}.{n.name}" for n in node.names}
    calls = {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        text = dotted(node) if id(node) not in inner else None
        if text and (head := text.split(".")[0]) in names:
            yield names[head] + text[len(head) :], calls.get(id(node))


def used() -> dict[str, list[ast.Call]]:
    """Every host symbol of the shipped rooms, with its calls."""
    found: dict[str, list[ast.Call]] = {}
    for path in (p for room in SHIPPED for p in sorted((ROOT / room).rglob("*.py"))):
        for name, call in uses(path):
            found.setdefault(name, []).extend([call] if call else [])
    return found


USED = used()


def resolve(name: str) -> Any:
    """The object of a dotted name, imported."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_the_reader_finds_what_is_there():
    assert len(USED) > 40
    assert USED["comfy.model_management.throw_exception_if_processing_interrupted"]


@pytest.mark.parametrize("name", USED)
def test_a_symbol_exists_and_takes_what_it_is_given(name):
    found = resolve(name)
    for call in USED[name]:
        positional, keywords = call.args, call.keywords
        open_ended = [a for a in positional if isinstance(a, ast.Starred)]
        if open_ended or any(k.arg is None for k in keywords):
            continue
        try:
            signature = inspect.signature(found)
        except ValueError:
            continue  # of C code
        signature.bind(*positional, **{k.arg: k.value for k in keywords})


def test_the_compatibility_page_lists_every_symbol():
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `((?:comfy|folder_paths)[\w.]*)` \|", page, re.M))
    assert listed == USED.keys()
