"""Where the nodes, notes and groups of a graph file stand: geometry alone.

Groups stand in rows; in a group a node stands right of those that it takes from. Below what grows
when a graph runs there is room for it. Sizes are those of both of ComfyUI's renderings, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TITLE = 30  # the bar above a node's `pos`
GAP = 40
BAR = 50  # of a group's title
PAD = 20
# What a window of 1920 x 1080 shows of the canvas, and the bars left of it and above it.
CANVAS = (1840, 940)
MARGIN = (70, 90)
# The page's smallest text (prompts, notes) has 10 px at a scale of 1.
TEXT, LEGIBLE = 10, 9
SCALE = LEGIBLE / TEXT
ROWS = range(1800, 3601, 100)
# Where the whole would be smaller than this in a window, rows may be wider.
WHOLE, WIDER = 0.36, range(3700, 5001, 100)
TALLEST = 1000  # of a column, before another one is begun
WIDTHS = {
    # Drawn as HTML every node is 225 pixels wide at least: narrower ones lean into the gap.
    **dict.fromkeys(("VAEDecode", "VAEDecodeTiled", "VAEEncode"), 200),
    **dict.fromkeys(("ConditioningZeroOut", "ConditioningCombine", "MaskToImage"), 200),
    **dict.fromkeys(("EmptyLatentImage", "EmptySD3LatentImage", "EmptyFlux2LatentImage"), 210),
    **dict.fromkeys(("PreviewImage", "LoadImage"), 330),
    "CLIPTextEncode": 320,
}
WIDTH = 290
PICTURE = 350
# Pixels that a node grows by when it runs: a live preview, a picture, a text.
GROWTH = {
    **dict.fromkeys(("KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced"), 220),
    **dict.fromkeys(("SamplerCustom", "HRF_ProgressiveUpscale"), 220),
    **dict.fromkeys(("PreviewAny", "PreviewImage", "LoadImage"), 40),
}
NOTE_WIDTHS = (260, 480)


@dataclass
class Box:
    """A rectangle on the canvas."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def meets(self, other: Box) -> bool:
        """Whether they have a part in common."""
        return (
            self.x < other.right
            and other.x < self.right
            and self.y < other.bottom
            and other.y < self.bottom
        )

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        return (
            self.x <= other.x
            and self.y <= other.y
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


def box_of(node: Mapping[str, Any], grown: bool = True) -> Box:
    """What a node covers, its title bar too; `grown`: after a run."""
    (x, y), (width, height) = node["pos"], node["size"]
    more = GROWTH.get(node["type"], 0) if grown else 0
    return Box(x, y - TITLE, width, height + TITLE + more)


def node_size(kind: str, sockets: int, outputs: int, widgets: Sequence[bool]) -> list[int]:
    """[width, height] of a node; `widgets` says of each whether it is a text of many lines."""
    width = WIDTHS.get(kind, WIDTH)
    if kind in ("PreviewImage", "LoadImage"):
        return [width, PICTURE]
    height = 40 + 22 * max(sockets, outputs) + sum(110 if long else 28 for long in widgets)
    return [width, height + (70 if kind == "PreviewAny" else 0)]


def note_height(text: str, width: float) -> int:
    """Pixels that a note of that width needs."""
    lines = [math.ceil(max(len(line), 1) * 6.8 / (width - 30)) for line in text.split("\n")]
    return 44 + 19 * sum(lines)


def depths(members: Sequence[str], links: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Longest way to each node from those of its group that take from none of it."""
    depth = dict.fromkeys(members, 0)
    inner = [(a, b) for a, b in links if a in depth and b in depth]
    for _ in members:
        for source, target in inner:
            depth[target] = max(depth[target], depth[source] + 1)
    return depth


@dataclass
class Group:
    """Nodes and notes under one title, laid out from (0, 0)."""

    title: str
    nodes: dict[str, dict]
    notes: list[dict]
    box: Box = field(default_factory=lambda: Box(0, 0, 0, 0))

    def arrange(self, links: Iterable[tuple[str, str]]) -> None:
        """Place columns of nodes, and the notes where the group grows least by them."""
        depth = depths(list(self.nodes), links)
        columns: list[Box] = []
        for level in range(max(depth.values()) + 1):
            for stack in stacks([self.nodes[n] for n in self.nodes if depth[n] == level]):
                x = columns[-1].right + GAP if columns else PAD
                columns.append(place_column(stack, x))
        for note in self.notes:
            place_note(note, columns)
        boxes = [*columns, *(box_of(note) for note in self.notes)]
        right, bottom = (max(getattr(b, side) for b in boxes) for side in ("right", "bottom"))
        self.box = Box(0, 0, right + PAD, bottom + PAD)

    def move(self, x: float, y: float) -> None:
        """By so much."""
        for node in (*self.nodes.values(), *self.notes):
            node["pos"] = [round(node["pos"][0] + x), round(node["pos"][1] + y)]
        self.box = Box(self.box.x + x, self.box.y + y, self.box.width, self.box.height)


def stacks(nodes: Sequence[dict]) -> list[list[dict]]:
    """Nodes of one depth in columns that are not too tall, about equally."""
    total = sum(box_of(node).height + GAP for node in nodes)
    most = total / math.ceil(total / TALLEST) + GAP
    found: list[list[dict]] = [[]]
    height = 0.0
    for node in nodes:
        own = box_of(node).height + GAP
        if found[-1] and height + own > most:
            found.append([])
            height = 0
        found[-1].append(node)
        height += own
    return found


def place_column(nodes: Sequence[dict], x: float) -> Box:
    """Nodes below each other, equally wide, so that wires find the gap beside them free."""
    y = BAR
    width = max(node["size"][0] for node in nodes)
    for node in nodes:
        node["pos"], node["size"] = [x, y + TITLE], [width, node["size"][1]]
        y += box_of(node).height + GAP
    return Box(x, BAR, width, y - GAP - BAR)


def place_note(note: dict, columns: list[Box]) -> None:
    """Put a note below a column, or below neighbours that are narrow, so that it ends as high as it
    can."""
    text = note["widgets_values"][0]
    low, high = NOTE_WIDTHS
    best: tuple[float, int, int, Box] | None = None
    for first in range(len(columns)):
        for last in range(first, len(columns)):
            spread = columns[last].right - columns[first].x
            if first != last and (
                spread > high or any(c.width >= low for c in columns[first:last])
            ):
                continue
            width = min(max(spread, low), high)
            # Wider than its only column: it needs the room right of it, too.
            under = [c for c in columns[first:] if c.x < columns[first].x + width]
            y = max(c.bottom for c in under) + GAP
            box = Box(columns[first].x, y, width, note_height(text, width) + TITLE)
            if best is None or box.bottom < best[0]:
                best = (box.bottom, first, first + len(under), box)
    _, first, end, box = best
    note["pos"], note["size"] = [box.x, box.y + TITLE], [box.width, box.height - TITLE]
    for column in columns[first:end]:
        column.height = box.bottom - column.y


def arrange(groups: Sequence[Group], links: Sequence[tuple[str, str]]) -> None:
    """Place groups from left to right in rows, as wide as lets a window show most of the graph."""
    for group in groups:
        group.arrange(links)
    sizes = [(group.box.width, group.box.height) for group in groups]
    for widths in (ROWS, WIDER):
        chosen = max((rows(sizes, width) for width in widths), key=lambda at: fit(at, sizes))
        if fit(chosen, sizes) >= WHOLE:
            break
    for group, place in zip(groups, chosen, strict=True):
        group.move(*place)


def make_room(groups: Sequence[Group], heights: Sequence[float]) -> list[float]:
    """Move the nodes of each row of groups down by so much; where that room begins, by row."""
    tops: list[float] = []
    down = 0.0
    for row, more in zip(by_row(groups), heights, strict=True):
        tops.append(row[0].box.y + down + BAR - 6)
        for group in row:
            box = group.box
            group.move(0, down + more)
            group.box = Box(box.x, box.y + down, box.width, box.height + more)
        down += more
    return tops


def by_row(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that stand side by side."""
    found: dict[float, list[Group]] = {}
    for group in groups:
        found.setdefault(group.box.y, []).append(group)
    return list(found.values())


def rows(sizes: Sequence[tuple[float, float]], most: float) -> list[tuple[float, float]]:
    """The left upper corner of each rectangle, in rows no wider than `most` where they can be."""
    found = []
    x = y = bottom = 0.0
    for width, height in sizes:
        if x and x + width > most:
            x, y = 0.0, bottom + PAD
        found.append((x, y))
        x += width + PAD
        bottom = max(bottom, y + height)
    return found


def fit(places: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]]) -> float:
    """The scale at which a window shows all of them."""
    pairs = list(zip(places, sizes, strict=True))
    width = max(place[0] + size[0] for place, size in pairs)
    height = max(place[1] + size[1] for place, size in pairs)
    return min(CANVAS[0] / width, CANVAS[1] / height)


def view(groups: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What the page shows on opening: the whole graph, or its beginning where that is too small to
    be read."""
    left, top = (min(bounding[i] for bounding in groups) for i in (0, 1))
    whole = fit([(b[0] - left, b[1] - top) for b in groups], [(b[2], b[3]) for b in groups])
    scale = round(min(max(whole, SCALE), 1), 3)
    x, y = (round(margin / scale) for margin in MARGIN)
    return {"scale": scale, "offset": [x - left, y - top]}
