"""`python -m tools.architecture`: draw docs/architecture.svg from the code.

A box for each room with the first sentence of its docstring, a line for each import between rooms,
drawn downwards. A test draws it anew and compares.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

from tools.host import ROOT

PICTURE = ROOT / "docs" / "architecture.svg"
HOST = re.compile(r"(comfy\w*|folder_paths|latent_preview|node_helpers)(\.|$)")
BOX = (216, 104)
GAP = (28, 92)
MARGIN = 24
LETTERS = 32  # of a line in a box
STYLE = (
    "text{font-family:Verdana,DejaVu Sans,sans-serif;fill:#1d2433}"
    ".n{font-size:17px;font-weight:bold}.t{font-size:11.5px}"
    "rect{stroke:#31507c;stroke-width:1.5;fill:#eef3fb}.host{fill:#fdeedb;stroke:#a4622a}"
    ".paper{fill:#fff;stroke:none}path{fill:none;stroke:#8794ab;stroke-width:1.6}"
)


def rooms(root: Path) -> list[str]:
    """Packages of the checkout that have something to say, but for the tests."""
    found = (path.parent.name for path in root.glob("*/__init__.py"))
    return sorted(name for name in found if name != "tests")


def imports(path: Path, root: Path) -> Iterator[str]:
    """First parts of the modules that a file imports, relative ones counted from the root."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            where = ".".join([*base, *filter(None, [node.module])])
            yield from [where] if where else (name.name for name in node.names)


def graph(root: Path) -> tuple[dict[str, set[str]], set[str]]:
    """Room -> rooms that it imports; and the rooms that import ComfyUI."""
    names = rooms(root)
    below: dict[str, set[str]] = {name: set() for name in names}
    hosts = set()
    for name in names:
        for path in sorted((root / name).rglob("*.py")):
            wanted = [m.removeprefix("hires_fusion.") for m in imports(path, root)]
            below[name] |= {m.split(".")[0] for m in wanted} & set(names) - {name}
            hosts |= {name for m in wanted if HOST.match(m)}
    return below, hosts


def level(name: str, below: dict[str, set[str]]) -> int:
    """How many rooms lie under one, at most."""
    return max((level(other, below) + 1 for other in below[name]), default=0)


def places(below: dict[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Left upper corner of each box: rooms stand over the middle of what they import."""
    levels = {name: level(name, below) for name in below}
    rows = [sorted(n for n in below if levels[n] == k) for k in range(max(levels.values()) + 1)]
    # What the others want most stands last, so that lines to it pass beside the rows between.
    rows[0].sort(key=lambda n: (sum(n in wants for wants in below.values()), n))
    width = max(map(len, rows))
    column = {name: float(number) for number, name in enumerate(rows[0])}
    for row in rows[1:]:
        middle = {n: sum(column[o] for o in below[n]) / len(below[n]) for n in row}
        free = 0.0
        for number, name in enumerate(sorted(row, key=lambda n: (middle[n], n))):
            most = width - len(row) + number
            column[name] = min(max(middle[name], free), most)
            free = column[name] + 1
    top = len(rows) - 1
    return {
        name: (
            MARGIN + column[name] * (BOX[0] + GAP[0]),
            MARGIN + (top - levels[name]) * (BOX[1] + GAP[1]),
        )
        for name in below
    }


def ports(below: dict[str, set[str]], at: dict[str, tuple[float, float]]) -> dict:
    """(room, imported room) -> where its line leaves and where it arrives, side by side."""
    lines = [(name, other) for name in below for other in below[name]]
    found = {}
    for end in (0, 1):
        for name in below:
            mine = [line for line in lines if line[end] == name]
            mine.sort(key=lambda line: (at[line[1 - end]][0], line))
            for number, line in enumerate(mine):
                share = (number + 1) / (len(mine) + 1)
                found[line, end] = at[name][0] + share * BOX[0]
    return {line: (found[line, 0], found[line, 1]) for line in lines}


def sentence(path: Path) -> str:
    """First sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0].rstrip(".")


def draw(root: Path = ROOT) -> str:
    """The picture as SVG."""
    below, hosts = graph(root)
    at = places(below)
    right = max(x for x, _ in at.values()) + BOX[0] + MARGIN
    bottom = max(y for _, y in at.values()) + BOX[1] + MARGIN + 26
    parts = [f'<rect class="paper" width="{right:.1f}" height="{bottom:g}"/>']
    for (name, other), (x0, x1) in sorted(ports(below, at).items()):
        y0, y1 = at[name][1] + BOX[1], at[other][1]
        curve = f"C{x0:.1f} {y0 + GAP[1]:g} {x1:.1f} {y1 - GAP[1]:g} {x1:.1f} {y1:g}"
        parts.append(f'<path d="M{x0:.1f} {y0:g}{curve}"/>')
    for name, (x, y) in at.items():
        kind = ' class="host"' if name in hosts else ""
        size = f'width="{BOX[0]}" height="{BOX[1]}" rx="9"'
        parts.append(f'<rect{kind} x="{x:.1f}" y="{y:g}" {size}/>')
        parts.append(f'<text class="n" x="{x + 12:.1f}" y="{y + 25:g}">{name}/</text>')
        lines = textwrap.wrap(sentence(root / name / "__init__.py"), LETTERS)
        for number, line in enumerate(lines[:4]):
            top = y + 45 + 15 * number
            parts.append(f'<text class="t" x="{x + 12:.1f}" y="{top:g}">{escape(line)}</text>')
    said = "A line leads from a room down to what it imports. Orange: the room imports ComfyUI."
    parts.append(f'<text class="t" x="{MARGIN}" y="{bottom - 14:g}">{said}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.1f} {bottom:g}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
