"""Scatter plots of cost against quality with their Pareto front, drawn with Pillow."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIZE = (680, 460)
MARGIN = (56, 36, 16, 46)  # left, top, right, bottom
INK, GREY, FRONT = "#222222", "#dddddd", "#c0392b"
COLOURS = {"baseline": "#2c6fbb", "preset": "#c0392b", "fusion": "#7d3c98", "ablation": "#999999"}


@dataclass(frozen=True)
class Point:
    """A method: its cost, its figure (less is better) and the figure's interval."""

    name: str
    kind: str
    cost: float
    value: float
    low: float = math.nan
    high: float = math.nan


def pareto(points: list[Point]) -> list[Point]:
    """The points that no other one beats in both cost and value, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.value)):
        if not front or point.value < front[-1].value:
            front.append(point)
    return front


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between low and high, about `count`."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= min((1, 2, 5, 10), key=lambda m: abs((high - low) / (m * step) - count))
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def limit(points: list[Point]) -> float:
    """The largest value that the axis makes room for: failures would press the others together."""
    middle = statistics.median(point.value for point in points)
    return 3 * middle if middle > 0 else math.inf


class Axes:
    """Where values lie on the picture: cost logarithmic, value linear, failures at the top."""

    def __init__(self, points: list[Point]):
        costs = [point.cost for point in points]
        inside = [p for p in points if p.value <= limit(points)]
        ends = [v for p in inside for v in (p.value, p.low, p.high) if math.isfinite(v)]
        self.x = math.log10(min(costs) * 0.8), math.log10(max(costs) * 1.9)
        room = 0.06 * (max(ends) - min(ends) or 1)
        # Below the best ones is room for the labels of a crowd.
        self.y = min(ends) - 4 * room, max(ends) + room

    def place(self, cost: float, value: float) -> tuple[float, float]:
        """Pixels of a point."""
        left, top, right, bottom = MARGIN
        across = (math.log10(cost) - self.x[0]) / (self.x[1] - self.x[0])
        up = min((value - self.y[0]) / (self.y[1] - self.y[0]), 1)
        return (
            left + across * (SIZE[0] - left - right),
            SIZE[1] - bottom - up * (SIZE[1] - top - bottom),
        )


def scatter(points: list[Point], title: str, cost: str, value: str) -> Image.Image:
    """One panel: points with labels, their intervals, and the Pareto front.

    Args:
        points: at least one, of costs above 0.
        title: above the panel.
        cost: label of the logarithmic axis.
        value: label of the other one.
    """
    image = Image.new("RGB", SIZE, "white")
    pen, axes = ImageDraw.Draw(image), Axes(points)
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    left, top, right, bottom = MARGIN
    floor = SIZE[1] - bottom
    for tick in ticks(*axes.y):
        y = axes.place(10 ** axes.x[0], tick)[1]
        pen.line((left, y, SIZE[0] - right, y), fill=GREY)
        pen.text((left - 6, y), f"{tick:g}", INK, small, anchor="rm")
    for power in range(math.floor(axes.x[0]), math.ceil(axes.x[1]) + 1):
        for tick in (m * 10.0**power for m in (1, 2, 5)):
            if axes.x[0] <= math.log10(tick) <= axes.x[1]:
                x = axes.place(tick, axes.y[0])[0]
                pen.line((x, floor, x, floor + 4), fill=INK)
                pen.text((x, floor + 6), f"{tick:g}", INK, small, anchor="ma")
    pen.line((left, top, left, floor, SIZE[0] - right, floor), fill=INK)
    pen.text((left, 8), title, INK, large)
    pen.text((SIZE[0] - right, SIZE[1] - 8), cost, INK, small, anchor="rs")
    pen.text((SIZE[0] - right, 12), value, INK, small, anchor="ra")
    front = [axes.place(p.cost, p.value) for p in pareto(points)]
    if len(front) > 1:
        pen.line(front, fill=FRONT, width=2)
    taken: list[tuple[float, float, float, float]] = []
    for point in points:
        if math.isfinite(point.low + point.high) and point.value <= limit(points):
            ends = [axes.place(point.cost, v) for v in (point.low, point.high)]
            pen.line(ends, fill=GREY, width=3)
    for point in points:
        x, y = axes.place(point.cost, point.value)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=COLOURS[point.kind])
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for point in sorted(points, key=lambda p: -p.value):
        failed = point.value > limit(points)
        name = f"{point.name} ({point.value:.2f})" if failed else point.name
        _label(pen, axes.place(point.cost, point.value), name, small, taken)
    return image


def _label(pen, place, name, font, taken) -> None:
    """The name beside its point, where no other label or point is."""
    x, y = place
    width = pen.textlength(name, font)
    left, top, _, bottom = MARGIN
    shifts = sorted((9 * step for step in range(-10, 11)), key=abs)
    boxes = [
        (sx, y - 7 + shift, sx + width, y + 7 + shift)
        for shift in shifts
        for sx in (x + 9, x - 9 - width)
    ]
    boxes = [
        box
        for box in boxes
        if left < box[0] and box[2] < SIZE[0] and top < box[1] and box[3] < SIZE[1] - bottom
    ] or boxes

    def free(box) -> bool:
        return not any(
            box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken
        )

    box = next((box for box in boxes if free(box)), boxes[0])
    if abs(box[1] + 7 - y) > 9:  # too far away to tell whose it is
        pen.line((x, y, box[0] - 2 if box[0] > x else box[2] + 2, box[1] + 7), fill=INK)
    pen.text(box[:2], name, INK, font)
    taken.append(box)


def panels(rows: list[list[Image.Image]]) -> Image.Image:
    """Panels of equal size in rows."""
    width, height = SIZE
    out = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            out.paste(panel, (c * width, r * height))
    return out
