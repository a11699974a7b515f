"""Quality against PFLOP, of every preset that the tournament has drawn:
`python -m lab.bench.quality_cost`

Distances are the stored ones of the demo model at twice the native size, and costs those that
`lab.bench.costs` counts for SDXL at 2048 pixels, the native picture included: the demo model's
pictures over a real model's price.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from . import results
from .costs import count
from .paired import Estimate
from .plot import Point, panels, scatter
from .standings import Standing, Table
from .tournament import plan_of

SCALE, PIXELS = 2, 2048
COST = f"PFLOP of SDXL at {PIXELS} pixels"


def panel(pairs: list[tuple[Standing, float]], title: str, figure: str) -> Image.Image:
    """One figure of a standing against cost, with its interval."""
    points = []
    for standing, pflop in pairs:
        found: Estimate = getattr(standing, figure)
        points.append(Point(standing.name, "preset", pflop, found.value, found.low, found.high))
    return scatter(points, title, COST, "less is better")


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--fewest", type=int, default=16, help="seeds that a row must have")
    p.add_argument("--out", type=Path, default=Path("docs/quality_cost.png"))
    args = p.parse_args()
    cost = {each.preset: each.pflop for each in count("SDXL", None, [PIXELS])}
    table = Table(results.load(), plan_of(), SCALE)
    pairs = [
        (standing, cost[standing.name])
        for standing in table.standings()
        if standing.name in cost and len(standing.seeds) >= args.fewest
    ]
    titles = {"kid": "KID of crops", "lpips": "ST-LPIPS to the native picture"}
    panels([[panel(pairs, title, name) for name, title in titles.items()]]).save(args.out)


if __name__ == "__main__":
    main()
