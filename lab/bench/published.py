"""The tournament's figures in README.md and docs/benchmarks.md, between marks in those files.

    <!-- tournament: NAME -->    what follows is written by `python -m lab.bench.tournament publish`
    <!-- tournament: end -->

NAME is a key of BLOCKS. A test fails where the text is not what the stored results give.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..files import ROOT
from . import rows
from .registered import Plan
from .results import Rows
from .standings import Standing, Table, excess, markdown, words

FILES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
BLOCK = re.compile(
    r"(<!-- tournament: (?P<name>[\w ]+) -->\n)(?:(?!<!-- tournament:).)*?"
    r"(<!-- tournament: end -->)",
    re.S,
)
COMPARED = "DemoFusion"


NOTHING = "Nothing has been drawn with these weights yet: `make tournament`."


class Figures:
    """Standings by scale, computed once; none where nothing is stored."""

    def __init__(self, found: Rows, plan: Plan):
        self.made, self.plan = found.made, plan
        self.standings = {scale: Table(found, plan, scale).standings() for scale in found.scales}


def how(figures: Figures) -> str:
    """What the tables were drawn with."""
    if not figures.standings:
        return NOTHING
    made, recipe = figures.made, figures.made["recipe"]
    machine = made["machine"]
    lines = [
        f"Weights {made['weights']}, {recipe['steps']} steps of Euler a stage, cfg "
        f"{recipe['cfg']:g}, {recipe['crops']} crops a picture; {machine['device']}, torch "
        f"{machine['torch']}, ComfyUI {machine['comfyui']}, commit {machine['commit']}."
    ]
    drawn = {each.name for standings in figures.standings.values() for each in standings}
    if absent := [name for name in made["absent"] if name not in drawn]:
        lines.append("Without " + ", ".join(absent) + ": not on that machine.")
    return " ".join(lines)


def table_of(scale: int) -> Callable[[Figures], str]:
    """The whole table of a scale."""

    def table(figures: Figures) -> str:
        if scale not in figures.standings:
            return NOTHING
        return markdown(figures.standings[scale], figures.plan)

    return table


def presets(figures: Figures) -> str:
    """Presets and what people use elsewhere at 2x, in few columns."""
    if 2 not in figures.standings:
        return NOTHING
    standings = figures.standings[2]
    names = {name for name, method in rows.rows().items() if method.kind == "preset"}
    names |= {rows.TILED, rows.TILED_UPSCALER, rows.ULTIMATE}
    lines = [
        "Measured on the demo model; seeds in brackets. `make report` shows pictures, intervals "
        "and other sizes.",
        "",
        "| at 2×, paired seeds | crops against DemoFusion | against the native picture, enlarged "
        "| objects added | PSNR to the native picture | evaluations |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_short(s) for s in standings if s.name in names]
    return "\n".join(lines)


def tiled(figures: Figures) -> str:
    """What was drawn at every scale against enlarge + tiled image-to-image."""
    scales = sorted(figures.standings)
    by_name = [{s.name: s for s in figures.standings[scale]} for scale in scales]
    names = [n for n, s in by_name[0].items() if s.follows and n != rows.TILED] if scales else []
    names = [n for n in names if all(n in found for found in by_name)]
    if not names or any(rows.TILED not in found for found in by_name):
        return NOTHING
    heads = "".join(f" {scale}×, crops | evaluations |" for scale in scales)
    rule = f"|---|{'---|---|' * len(scales)}"
    lines = [f"| against enlarge + tiled image-to-image |{heads}", rule]
    for name in names:
        cells = []
        for found in by_name:
            each, other = found[name].against.get(rows.TILED), found[rows.TILED].evaluations
            seeds = f" ({each.count})" if each else ""
            cells += [words(each) + seeds if each else "", f"{found[name].evaluations / other:.0%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(standing: Standing) -> str:
    against = (standing.against.get(other) for other in (COMPARED, rows.BICUBIC))
    cells = [
        f"{standing.name} ({len(standing.seeds)})",
        *(words(each) if each else "" for each in against),
        excess(standing),
        f"{standing.psnr.value:.1f}" if standing.follows else "",
        f"{standing.evaluations:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


BLOCKS: dict[str, Callable[[Figures], str]] = {
    "how": how,
    "presets": presets,
    "tiled": tiled,
    **{f"{scale}x": table_of(scale) for scale in (2, 3, 4)},
}


def filled(text: str, figures: Figures) -> str:
    """A file's text with every block as the results give it.

    Raises:
        ValueError: a block of an unknown name, or one without an end.
    """

    def block(found: re.Match) -> str:
        name = found["name"]
        if name not in BLOCKS:
            raise ValueError(f"no block is called {name}: use {', '.join(BLOCKS)}")
        return f"{found[1]}{BLOCKS[name](figures)}\n{found[3]}"

    out, count = BLOCK.subn(block, text)
    if 2 * count != text.count("<!-- tournament:"):
        raise ValueError("a tournament block has no end: close it by <!-- tournament: end -->")
    return out


def write(found: Rows, plan: Plan, files: tuple[Path, ...] = FILES) -> None:
    """Bring the files up to date."""
    figures = Figures(found, plan)
    for path in files:
        text = path.read_text(encoding="utf-8")
        new = filled(text, figures)
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.name}: written")
