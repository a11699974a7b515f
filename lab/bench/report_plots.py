"""Plots of the report, as pieces of HTML that need plotly.js on the page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from .results import REFERENCE
from .rows import FLOOR, rows
from .standings import Standing, Table

COLOURS = {"truth": "#777777", "baseline": "#2c6fbb", "preset": "#c0392b"}
HEIGHT = 460
LAYOUT = {
    "template": "plotly_white",
    "height": HEIGHT,
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 12},
    "legend": {"font": {"size": 10}},
}


def kinds() -> dict[str, str]:
    """What each row is, by name."""
    return {name: method.kind for name, method in rows().items()}


def html(figure: go.Figure, title: str, across: str, up: str, **axis: Any) -> str:
    """A figure as a piece of a page."""
    figure.update_layout(title=title, xaxis_title=across, yaxis_title=up, **LAYOUT)
    figure.update_xaxes(**axis)
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"responsive": True})


def quality_by_cost(standings: list[Standing], scale: int) -> str:
    """KID of crops, with intervals, against evaluations of the model."""
    figure, known = go.Figure(), kinds()
    drawn = [s for s in standings if s.evaluations and s.kid.exists]
    for kind, colour in COLOURS.items():
        points = [s for s in drawn if known.get(s.name, "preset") == kind]
        if not points:
            continue
        figure.add_scatter(
            x=[s.evaluations for s in points],
            y=[s.kid.value for s in points],
            error_y={
                "array": [s.kid.high - s.kid.value for s in points],
                "thickness": 1,
                "width": 3,
                "color": "#bbbbbb",
            },
            text=[s.name for s in points],
            mode="markers+text",
            textposition="top right",
            textfont={"size": 10},
            marker={"size": 10, "color": colour},
            name=kind,
        )
    for standing in standings:
        if standing.kid.exists and not standing.evaluations:
            figure.add_hline(
                standing.kid.value,
                line={"dash": "dot", "color": "#777777"},
                annotation_text=standing.name,
                annotation_font_size=10,
            )
    title = f"{scale}×: distance of crops against cost"
    return html(figure, title, "evaluations a picture", "KID of crops", type="log")


def spectra(table: Table, standings: list[Standing]) -> str:
    """Power of each row against that of the true renders, by frequency."""
    from evaluation.spectrum import frequencies

    figure, across = go.Figure(), frequencies().numpy()
    for standing in standings:
        both = [table.stacked(n, "spectrum", standing.seeds) for n in (standing.name, REFERENCE)]
        gap = 10 * (np.nanmean(both[0], 0) - np.nanmean(both[1], 0))
        figure.add_scatter(
            x=across,
            y=gap,
            mode="lines",
            name=standing.name,
            visible=_visible(table, standing.name),
        )
    title = f"{table.scale}×: spectrum against true renders"
    return html(figure, title, "cycles a pixel", "decibels")


def seams(table: Table, standings: list[Standing]) -> str:
    """Gradient ratio of every line."""
    figure = go.Figure()
    for standing in standings:
        lines = torch.from_numpy(table.stacked(standing.name, "seams", standing.seeds))
        ratio = lines.mean(0).exp().numpy()
        figure.add_scatter(
            x=np.arange(1, len(ratio) + 1),
            y=ratio,
            mode="lines",
            name=standing.name,
            visible=_visible(table, standing.name),
        )
    figure.add_hline(1, line={"dash": "dot", "color": "#777777"})
    title = f"{table.scale}×: seams, line by line"
    return html(figure, title, "line between cells", "gradient against its neighbours'")


def fidelity(standings: list[Standing], scale: int) -> str:
    """Distance of crops against how much of the native picture is kept."""
    points = [s for s in standings if s.follows and s.kid.exists and math.isfinite(s.psnr.value)]
    known = kinds()
    figure = go.Figure()
    figure.add_scatter(
        x=[s.psnr.value for s in points],
        y=[s.kid.value for s in points],
        text=[s.name for s in points],
        mode="markers+text",
        textposition="top center",
        textfont={"size": 10},
        marker={"size": 10, "color": [COLOURS[known.get(s.name, "preset")] for s in points]},
        showlegend=False,
    )
    title = f"{scale}×: distance of crops against fidelity"
    return html(figure, title, "PSNR to the native picture, dB", "KID of crops")


def _visible(table: Table, name: str) -> bool | str:
    """Few lines of a plot at first; a click on the legend shows the others."""
    return True if name in (FLOOR, *table.plan.against[:4]) else "legendonly"


def plots(table: Table, standings: list[Standing]) -> list[str]:
    """All plots of a scale."""
    return [
        quality_by_cost(standings, table.scale),
        fidelity(standings, table.scale),
        spectra(table, standings),
        seams(table, standings),
    ]
