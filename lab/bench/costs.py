"""What does every preset cost, without a GPU? `python -m lab.bench.costs`

Counts what the stages of each preset ask of the network (`lab.bench.dry_run`), the native picture
included. VAE passes are counted apart, in tiles of 1024 pixels without overlap. Seconds are those
of an H100 (SXM, 989.4 TFLOP/s of dense bfloat16) at 60 % of that rate, of the network alone.
`--networks` counts one evaluation of each family by size instead; `--plot` draws from what is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..files import ROOT
from .dry_run import CELL, H100, Cost, Costs
from .flops import FAMILIES, Network
from .plot import GREY, INK

SIZES = (2048, 4096, 8192)


class Published(NamedTuple):
    """Seconds that a paper names, at 2048 and at 4096 pixels; None where it names none."""

    preset: str
    device: str
    seconds: tuple[float | None, float | None]
    source: str


# Of SDXL at 50 steps, where the method is one of our presets.
PUBLISHED = (
    Published("DemoFusion", "A800", (79, 605), "RectifiedHR v4, table 1"),
    Published("DemoFusion", "A100", (75, 507), "PixelRush"),
    Published("DiffuseHigh", "A800", (37, 190), "RectifiedHR v4, table 1"),
    Published("FreCaS", "A800", (14, 74), "RectifiedHR v4, table 1"),
    Published("RectifiedHR", "A800", (13, 37), "RectifiedHR v4, table 1"),
    Published("Rush", "A100", (4, 20), "PixelRush"),
    Published("ScaleDiff", "RTX A6000", (None, 113), "ScaleDiff"),
)


def network_table(networks: dict[str, Network], side: int) -> str:
    """TFLOP of one evaluation, of a native picture and of a larger one; in brackets the share of
    the products of attention."""
    from hires_fusion.sampling.attention import WindowedAttention

    lines = [
        f"| network | parameters, M | native | TFLOP, native | TFLOP, {side} | windowed, {side} |",
        "|---|---|---|---|---|---|",
    ]
    for name, network in networks.items():
        native, cells = network.family.native, side // CELL
        row = [network.work(native, native), network.work(cells, cells)]
        row.append(network.work(cells, cells, WindowedAttention(jitter=False)))
        counts = [f"{work.all / 1e12:.2f} ({work.attention / work.all:.0%})" for work in row]
        millions = f"{network.parameters / 1e6:.0f}"
        lines.append(f"| {name} | {millions} | {native * CELL} | {' | '.join(counts)} |")
    return "\n".join(lines)


def preset_table(costs: list[Cost]) -> str:
    """A row for each preset, cheapest at the middle size first."""
    sides = sorted({cost.pixels for cost in costs})
    titles = ("PFLOP", "s on an H100", "PFLOP of the VAE")
    head = [f"{title}, {side}" for title in titles for side in sides]
    lines = ["| preset | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    by = {(cost.preset, cost.pixels): cost for cost in costs}
    middle = sides[len(sides) // 2]
    for name in sorted({c.preset for c in costs}, key=lambda name: (by[name, middle].pflop, name)):
        row = [by[name, side] for side in sides]
        cells = [f"{c.pflop:.2f}" for c in row] + [f"{c.seconds:.1f}" for c in row]
        cells += [f"{c.vae / 1e15:.2f}" for c in row]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def evaluation_table(costs: list[Cost]) -> str:
    """What the stages of each preset evaluate."""
    lines = ["| preset | evaluations of the network, both halves of cfg |", "|---|---|"]
    for cost in costs:
        parts = [f"{count} × {kind}" for kind, count in cost.evaluations.items()]
        lines.append(f"| {cost.preset} | {', '.join(parts)} |")
    return "\n".join(lines)


def published_table(costs: list[Cost]) -> str:
    """Published seconds, and the rate that they mean for our count of the same method."""
    by = {(cost.preset, cost.pixels): cost for cost in costs}
    lines = [
        "| method | on | s, 2048 | s, 4096 | TFLOP/s, 2048 | TFLOP/s, 4096 | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for known in PUBLISHED:
        pairs = list(zip(SIZES, known.seconds, strict=False))
        cells = [f"{seconds:g}" if seconds else "" for _, seconds in pairs]
        cells += [
            f"{1000 * by[known.preset, side].pflop / seconds:.0f}" if seconds else ""
            for side, seconds in pairs
        ]
        lines.append(f"| {known.preset} | {known.device} | {' | '.join(cells)} | {known.source} |")
    return "\n".join(lines)


COLOURS = ("#2c6fbb", "#c0392b", "#7d3c98")  # of sizes
ROW, LEFT, RIGHT, TOP, BOTTOM, WIDTH = 22, 170, 20, 58, 30, 760


def plot(costs: list[Cost]) -> Image.Image:
    """A row for each preset, a point for each size, PFLOP below and seconds above."""
    sides = sorted({cost.pixels for cost in costs})
    middle = {cost.preset: cost.pflop for cost in costs if cost.pixels == sides[len(sides) // 2]}
    names = sorted(middle, key=middle.__getitem__)
    low, high = (f(cost.pflop for cost in costs) for f in (min, max))
    low, high = math.log10(low * 0.8), math.log10(high * 1.25)
    image = Image.new("RGB", (WIDTH, TOP + ROW * len(names) + BOTTOM), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    floor = TOP + ROW * len(names)

    def across(pflop: float) -> float:
        return LEFT + (math.log10(pflop) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    for scale, y, anchor in ((1.0, floor + 4, "ma"), (1e15 / H100, TOP - 4, "ms")):
        for power in range(-2, 6):
            for tick in (m * 10.0**power for m in (1, 2, 5)):
                if low <= math.log10(tick / scale) <= high:
                    x = across(tick / scale)
                    if scale == 1:
                        pen.line((x, TOP, x, floor), fill=GREY)
                    pen.text((x, y), f"{tick:g}", INK, font, anchor=anchor)
    pen.text((LEFT - 8, floor + 4), "PFLOP", INK, font, anchor="ra")
    pen.text((LEFT - 8, TOP - 4), "s on an H100 at 60 %", INK, font, anchor="rs")
    for number, side in enumerate(sides):
        x = LEFT + 110 * number
        pen.ellipse((x - 5, 13, x + 5, 23), fill=COLOURS[number % len(COLOURS)])
        pen.text((x + 10, 18), f"{side} pixels", INK, font, anchor="lm")
    for row, name in enumerate(names):
        y = TOP + ROW * (row + 0.5)
        pen.text((LEFT - 8, y), name, INK, font, anchor="rm")
        found = sorted((c for c in costs if c.preset == name), key=lambda c: c.pixels)
        pen.line([(across(cost.pflop), y) for cost in found], fill=INK)
        for cost in found:
            x = across(cost.pflop)
            colour = COLOURS[sides.index(cost.pixels) % len(COLOURS)]
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
    return image


def count(name: str, presets: list[str] | None, sizes: list[int]) -> list[Cost]:
    """Costs of a family's presets, all without names."""
    counted = Costs(name)
    from hires_fusion.fusion_ops.presets import PRESETS

    return [counted.cost(preset, side) for side in sizes for preset in presets or PRESETS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="SDXL")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="in pixels")
    parser.add_argument("--presets", nargs="*", help="all without")
    parser.add_argument("--networks", action="store_true", help="one evaluation by size")
    parser.add_argument(
        "--plot", type=Path, help="picture to write, from the figures kept in --out"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "lab" / "runs" / "costs")
    args = parser.parse_args()
    if args.networks:
        networks = {name: Network(family) for name, family in FAMILIES.items()}
        print(network_table(networks, SIZES[1]))
        return
    kept = args.out / f"{args.family}.json"
    if args.plot:
        data = json.loads(kept.read_text(encoding="utf-8"))
        plot([Cost(**cost) for cost in data]).save(args.plot)
        return
    found = count(args.family, args.presets, args.sizes)
    args.out.mkdir(parents=True, exist_ok=True)
    data = [dataclasses.asdict(cost) for cost in found]
    kept.write_text(json.dumps(data, indent=1), encoding="utf-8")
    print(preset_table(found) + "\n")
    middle = sorted(args.sizes)[len(args.sizes) // 2]
    print(evaluation_table([cost for cost in found if cost.pixels == middle]) + "\n")
    if args.family == "SDXL" and not args.presets and {*SIZES[:2]} <= {*args.sizes}:
        print(published_table(found))


if __name__ == "__main__":
    main()
