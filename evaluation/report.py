"""Figures as a table, as JSON and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from .images import Images, Source
from .metrics import Score, direction, notes
from .spectrum import frequencies, radial_spectrum

WIDTH, ROW, TOP = 960, 34, 330
MADE, SEEN, GREY = "#d1495b", "#2e6f95", "#c8c8c8"
MOST_SPECTRA = 64  # images whose spectra the picture shows the mean of


def number(value: float) -> str:
    """Four digits, or a dash for none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def interval(score: Score) -> str:
    """The 95 % interval in words."""
    if math.isnan(score.low):
        return "–"
    return f"{number(score.low)} to {number(score.high)}"


def table(scores: Mapping[str, Score]) -> str:
    """A Markdown table with the sample sizes, and what a reader has to know."""
    lines = ["| metric | value | 95 % interval | samples | better |", "|---|---|---|---|---|"]
    for name, score in scores.items():
        cells = (name, number(score.value), interval(score), str(score.count), direction(name))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines + [f"\n{note}." for note in notes(scores)])


def as_json(scores: Mapping[str, Score]) -> dict[str, dict]:
    """Figures as JSON holds them: None for no interval."""
    return {
        name: {k: v if math.isfinite(v) else None for k, v in score._asdict().items()}
        for name, score in scores.items()
    }


def plot(scores: Mapping[str, Score], generated: Source, reference: Source) -> Image.Image:
    """The power spectra of both sets above, each figure with its interval below."""
    out = Image.new("RGB", (WIDTH, TOP + ROW * len(scores) + 40), "white")
    pen = ImageDraw.Draw(out)
    sets = {"generated": (generated, MADE), "reference": (reference, SEEN)}
    curves = {name: (_mean_spectrum(source), colour) for name, (source, colour) in sets.items()}
    _draw_spectra(pen, curves, (80, 40, WIDTH - 30, TOP - 60))
    pen.text(
        (20, TOP - 12), "Figures, each on its own scale; bar: 95 % interval", "black", _font(17)
    )
    for row, (name, score) in enumerate(scores.items()):
        _draw_score(pen, name, score, TOP + 28 + ROW * row)
    return out


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _mean_spectrum(source: Source) -> torch.Tensor:
    images = Images(source)
    shown = range(min(len(images), MOST_SPECTRA))
    return torch.stack([radial_spectrum(images[index]) for index in shown]).nanmean(0)


def _draw_spectra(
    pen: ImageDraw.ImageDraw,
    curves: Mapping[str, tuple[torch.Tensor, str]],
    box: tuple[int, int, int, int],
) -> None:
    left, top, right, bottom = box
    pen.text((20, 8), "Mean radial power spectrum, decibels", "black", _font(17))
    across = frequencies().log2()
    values = 10 * torch.cat([curve for curve, _ in curves.values()])
    values = values[values.isfinite()]
    low, high = math.floor(float(values.min()) / 10) * 10, math.ceil(float(values.max()) / 10) * 10
    high += 10 * (high == low)

    def x(log: float) -> float:
        return left + (log - float(across[0])) / float(across[-1] - across[0]) * (right - left)

    def y(decibels: float) -> float:
        return bottom - (decibels - low) / (high - low) * (bottom - top)

    for decibels in range(low, high + 1, 10 * math.ceil((high - low) / 60)):
        pen.line((left, y(decibels), right, y(decibels)), GREY)
        pen.text((left - 8, y(decibels)), str(decibels), "black", _font(14), anchor="rm")
    for power in range(math.ceil(float(across[0])), 0):
        if power <= across[-1]:
            pen.line((x(power), top, x(power), bottom), GREY)
            pen.text((x(power), bottom + 6), f"1/{2**-power}", "black", _font(14), anchor="ma")
    pen.text((right, bottom + 24), "cycles a pixel", "black", _font(14), anchor="ra")
    for number_, (name, (curve, colour)) in enumerate(curves.items()):
        points = [
            (x(float(log)), y(10 * float(value)))
            for log, value in zip(across, curve, strict=True)
            if value.isfinite()
        ]
        pen.line(points, colour, 3, joint="curve")
        pen.text((left + 14, bottom - 44 + 20 * number_), name, colour, _font(16))


def _draw_score(pen: ImageDraw.ImageDraw, name: str, score: Score, y: int) -> None:
    left, right = 330, WIDTH - 280
    ends: Sequence[float] = [v for v in (0, score.value, score.low, score.high) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    span = (high - low) * 1.05 or 1.0

    def x(value: float) -> float:
        return left + (value - low) / span * (right - left)

    pen.text((20, y), name, "black", _font(16), anchor="lm")
    pen.text((left - 20, y), number(score.value), "black", _font(16), anchor="rm")
    pen.line((left, y, right, y), GREY)
    pen.line((x(0), y - 8, x(0), y + 8), GREY, 2)
    if not math.isnan(score.low):
        pen.line((x(score.low), y, x(score.high), y), MADE, 6)
    if math.isfinite(score.value):
        pen.ellipse((x(score.value) - 6, y - 6, x(score.value) + 6, y + 6), "black")
    text = f"N {score.count}, {direction(name)} is better"
    pen.text((right + 20, y), text, "black", _font(14), anchor="lm")
