"""`python -m tools.symbols`: list every name of the host that the shipped code uses.

The table of docs/compatibility.md, written anew. A test compares both, and each name with the host.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tools.host import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
SHIPPED = ("nodes", "sampling", "demo")
HOST = re.compile(r"(comfy\w*|nodes|folder_paths|latent_preview|node_helpers)(\.|$)")
ROW = re.compile(r"^\| `((?:comfy|folder_paths)[\w.]*)` \|.*\n", re.M)
MOST_FILES = 3  # named in a row


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


def used() -> dict[str, dict[Path, list[ast.Call]]]:
    """Every host symbol of the shipped rooms: file -> its calls there."""
    found: dict[str, dict[Path, list[ast.Call]]] = {}
    for path in (p for room in SHIPPED for p in sorted((ROOT / room).rglob("*.py"))):
        for name, call in uses(path):
            found.setdefault(name, {}).setdefault(path, []).extend([call] if call else [])
    return found


def row(name: str, paths: list[Path]) -> str:
    """A row of the table."""
    files = [path.relative_to(ROOT).as_posix() for path in paths]
    rooms = {file.split("/")[0] for file in files}
    if len(files) > MOST_FILES:
        where = f"{len(files)} files of {' and '.join(f'{room}/' for room in sorted(rooms))}"
    else:
        where = ", ".join(files)
    return f"| `{name}` | {where} |\n"


def main() -> None:
    """Rewrite the page's table."""
    page = PAGE.read_text(encoding="utf-8")
    found = [*ROW.finditer(page)]
    first, last = found[0].start(), found[-1].end()
    rows = [row(name, list(places)) for name, places in sorted(used().items())]
    PAGE.write_text(page[:first] + "".join(rows) + page[last:], encoding="utf-8")


if __name__ == "__main__":
    main()
