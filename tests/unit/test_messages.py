"""What the pack says to a user names no file that a user from the Registry lacks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("nodes", "sampling", "fusion_ops", "critic", "demo", "evaluation")
FOLDERS = sorted(p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] != ".")
# "docs/samplers.md", "tools.graph", "Makefile": a path or module below the root, a file in it.
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]+")
MODULE = re.compile(rf"python -m ({'|'.join(FOLDERS)})\b")
FILES = re.compile(r"(?<![\w./-])(Makefile|requirements-dev\.txt|pyproject\.toml|README\.md)\b")


def ignored(path: str, lines: list[str]) -> bool:
    """Whether .comfyignore leaves a path of the checkout out of the package."""
    parts = Path(path).parts
    heads = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    for line in (line.strip().rstrip("/") for line in lines if line.strip() and line[0] != "#"):
        anchored = "/" in line
        names = heads if anchored else parts
        if any(fnmatch(name, line.lstrip("/")) for name in names):
            return True
    return False


def messages(tree: ast.AST) -> Iterator[str]:
    """Every text in a source that is no docstring."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    about = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, owners) and _doc(n)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about:
            yield node.value


def _doc(node: ast.AST) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


def lacking(text: str, lines: list[str]) -> list[str]:
    """What a text names and the package lacks."""
    named = [m.group().rstrip(".,") for m in PATH.finditer(text)]
    named += [m.group(1) for pattern in (MODULE, FILES) for m in pattern.finditer(text)]
    return [n for n in named if not (ROOT / n).exists() or ignored(n, lines)]


IGNORE = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_names_a_file_that_the_package_lacks(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [found for text in messages(tree) for found in lacking(text, IGNORE)]


def test_the_scan_sees_what_it_should():
    tree = ast.parse('"""See docs/x.md."""\nX = f"see {1} docs/samplers.md"\ndef f():\n    "lab/a"')
    assert list(messages(tree)) == ["see ", " docs/samplers.md"]
    lines = ["docs", "/tools", "*.txt", "/web/subs/"]
    assert ignored("web/docs/a.md", lines) and ignored("tools/a.py", lines)
    assert not ignored("web/tools/a.py", lines) and ignored("a/b.txt", lines)
    assert ignored("web/subs/a", lines) and not ignored("subs/a", lines)
    assert lacking("another sampler of docs/samplers.md.", ["docs"]) == ["docs/samplers.md"]
    assert lacking("run python -m tools.graph", ["tools"]) == ["tools"]
    assert lacking("see Makefile or demo/nowhere.py", ["Makefile"]) == [
        "demo/nowhere.py",
        "Makefile",
    ]
    assert not lacking("put it into models/evaluation/, and/or use nodes/tiled.py", lines)
