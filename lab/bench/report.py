"""The tournament as one page: `python -m lab.bench.report`, or `make report`

Tables that sort, plots, and a viewer of two rows of one seed, in one HTML file that needs no server
and no network. Everything is from what is stored in `lab/results/`.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ..scenes.wishes import wish
from . import results
from .paired import SAME, Estimate
from .published import Figures, how
from .registered import Plan
from .report_plots import plots
from .results import Rows
from .standings import HEADLINE, SEAM, Standing, Table, cells, heads
from .tournament import plan_of

PAGE = Path(__file__).with_name("page")
OUT = Path("out/report.html")
HELP = {
    "KID of crops": "distance of native-size crops from those of true renders; less is better",
    "excess objects": "focal objects that the native picture does not have",
    "PSNR, dB": "reduced to native size, against the native picture",
    "ST-LPIPS": "perceptual distance from the native picture",
    "worst line": "gradient across the worst line of cells against that of its neighbours",
    "spectrum, dB": "off the true renders; never a ranking of its own",
    "evaluations": "of the model, in latents of native size",
    "s": "processor seconds, native picture and decoding included",
}


def _value(number: float) -> str:
    return f"{number:.6g}" if math.isfinite(number) else ""


def _tone(difference: Estimate) -> str:
    return {"better": "good", "worse": "bad"}.get(difference.verdict(), "")


def row(standing: Standing, against: tuple[str, ...]) -> list[dict[str, str]]:
    """Cells of the sortable table: what is shown, what is sorted by, and the colour."""
    differences = [standing.against.get(other) for other in against]
    values: list[Any] = [
        standing.name,
        len(standing.seeds),
        standing.kid.value,
        *(d.value if d else math.nan for d in differences),
        standing.excess.value,
        standing.psnr.value,
        standing.lpips.value,
        standing.seam,
        standing.spectrum,
        standing.evaluations,
        standing.seconds,
    ]
    tones = ["", "", "", *(_tone(d) if d else "" for d in differences), _tone(standing.excess)]
    tones += ["", "", "bad" if standing.seam_chance < SEAM else "", "", "", ""]
    return [
        {"text": text, "value": value if isinstance(value, str) else _value(value), "tone": tone}
        for text, value, tone in zip(cells(standing, against), values, tones, strict=True)
    ]


def matrix(table: Table, names: list[str]) -> list[tuple[str, list[dict[str, str]]]]:
    """Every row against every other: cells that are empty where nothing is told apart."""

    def cell(name: str, other: str) -> dict[str, str]:
        difference = table.difference(name, other)
        if not difference.exists:
            return {"text": "", "tone": "", "help": ""}
        verdict = difference.verdict()
        low, high = f"{difference.low:+.3f}", f"{difference.high:+.3f}"
        said = f"{name} against {other}: {difference.value:+.3f} ({low}..{high}), {verdict}"
        text = "" if verdict == SAME else f"{difference.value:+.3f}"
        return {"text": text, "tone": _tone(difference), "help": said}

    return [(name, [cell(name, other) for other in names]) for name in names]


def scale_of(found: Rows, plan: Plan, scale: int, standings: list[Standing]) -> dict[str, Any]:
    """What the page says of one scale."""
    against = plan.against[:HEADLINE]
    table, names = Table(found, plan, scale), [standing.name for standing in standings]
    return {
        "scale": scale,
        "rows": [row(standing, against) for standing in standings],
        "plots": [Markup(plot) for plot in plots(table, standings)],
        "names": names,
        "matrix": matrix(table, names),
        "pairs": len(names) * (len(names) - 1) // 2,
    }


def shown(folder: Path, plan: Plan) -> dict[str, Any]:
    """The stored pictures as data: {scale: {seed: {"caption": .., "rows": {name: URL}}}}."""
    found: dict[str, Any] = {}
    order = {scale: plan.rows_of(scale) for scale in plan.scales}
    for path in (folder / "pictures").glob("*x/*/*.webp"):
        scale, seed, name = path.parts[-3][:-1], path.parts[-2], path.stem
        url = "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()
        place = found.setdefault(scale, {}).setdefault(seed, {})
        place["caption"] = wish(int(seed)).prompt
        place.setdefault("rows", {})[name] = url
    for scale, seeds in found.items():
        known = order.get(int(scale), [])
        for place in seeds.values():
            rank = {n: known.index(n) if n in known else len(known) for n in place["rows"]}
            place["rows"] = dict(sorted(place["rows"].items(), key=lambda kv: rank[kv[0]]))
    return {s: dict(sorted(found[s].items())) for s in sorted(found)}


def page(found: Rows, plan: Plan, folder: Path = results.STORED) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    figures, pictures = Figures(found, plan), shown(folder, plan)
    against = plan.against[:HEADLINE]
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = {name: (PAGE / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    # A script ends at the first "</", whatever it is in.
    data = json.dumps(pictures).replace("</", "<\\/")
    most = max(len(standings) for standings in figures.standings.values())
    return environment.get_template("report.html").render(
        how=how(figures),
        comparisons=most * len(against),
        heads=[{"name": name, "help": HELP.get(name, "")} for name in heads(against)],
        scales=[scale_of(found, plan, s, standing) for s, standing in figures.standings.items()],
        pictures=bool(pictures),
        pictures_json=Markup(data),
        plotly=Markup(get_plotlyjs()),
        style=Markup(text["css"]),
        script=Markup(text["js"]),
    )


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--stored", type=Path, default=results.STORED, help="folder of the results")
    p.add_argument("--out", type=Path, default=OUT)
    args = p.parse_args()
    try:
        text = page(results.load(args.stored), plan_of(), args.stored)
    except FileNotFoundError as problem:
        p.error(str(problem))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
