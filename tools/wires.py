"""Wires of a graph file that would run behind nodes go over them instead, by ComfyUI's reroutes.

Each row of groups has lanes between the groups' titles and their nodes. A wire that something
stands before leaves its node into the gap right of it, follows a lane of the row where it ends, and
comes down in the gap left of its target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.layout import GAP, Box, box_of

LANE = 14
STEPS = 40  # points of a wire that are looked at
EDGE = GAP  # a wire between neighbours bulges
Point = tuple[float, float]


def output_of(node: Mapping[str, Any], slot: int) -> Point:
    """Where a wire leaves a node."""
    return node["pos"][0] + node["size"][0], node["pos"][1] + 14 + 20 * slot


def input_of(node: Mapping[str, Any], slot: int) -> Point:
    """Where a wire enters a node. Inputs that are widgets lie lower, by their number as well."""
    return node["pos"][0], node["pos"][1] + 14 + 20 * slot


def curve(start: Point, end: Point) -> list[Point]:
    """A wire as the page draws it: a Bezier curve that leaves and arrives level."""
    reach = 0.25 * ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
    xs = (start[0], start[0] + reach, end[0] - reach, end[0])
    ys = (start[1], start[1], end[1], end[1])
    shares = [(i / STEPS, 1 - i / STEPS) for i in range(1, STEPS)]
    weights = [(u**3, 3 * t * u * u, 3 * t * t * u, t**3) for t, u in shares]
    return [
        tuple(sum(w * value for w, value in zip(weight, axis, strict=True)) for axis in (xs, ys))
        for weight in weights
    ]


def behind(points: Iterable[Point], boxes: Iterable[Box]) -> bool:
    """Whether one of the points lies in one of the boxes, deeper than at its edge."""
    boxes = list(boxes)
    return any(
        b.x + EDGE < x < b.right - EDGE and b.y < y < b.bottom for x, y in points for b in boxes
    )


def hidden(nodes: Mapping[int, dict], links: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """The links that would run behind a node, or back."""
    boxes = {number: box_of(node, grown=False) for number, node in nodes.items()}
    found = []
    for link in links:
        _, source, output, target, slot, *_ = link
        start, end = output_of(nodes[source], output), input_of(nodes[target], slot)
        others = [box for number, box in boxes.items() if number not in (source, target)]
        if end[0] < start[0] or behind(curve(start, end), others):
            found.append(link)
    return found


class Lanes:
    """The reroutes of a graph whose nodes have their places.

    Args:
        nodes: by id; notes too, which wires must not run behind either.
        rows: of each row of groups, the ids of its nodes.
    """

    def __init__(self, nodes: Mapping[int, dict], rows: Sequence[Sequence[int]], links: Sequence):
        self.nodes = nodes
        self.row_of = {number: i for i, row in enumerate(rows) for number in row}
        behind_some = {link[0] for link in hidden(nodes, links)}
        self.links = [
            link
            for link in links
            if link[0] in behind_some or self.row_of[link[1]] != self.row_of[link[3]]
        ]
        # Of each row, the outputs that need a lane: those from far away on top.
        self.lanes: list[list[tuple[int, int]]] = [[] for _ in rows]
        for link in sorted(self.links, key=lambda link: (self.row_of[link[1]], link[1], link[2])):
            row = self.lanes[self.row_of[link[3]]]
            if (link[1], link[2]) not in row:
                row.append((link[1], link[2]))

    def heights(self) -> list[float]:
        """Pixels that each row's nodes have to make room for."""
        return [LANE * len(row) for row in self.lanes]

    def reroutes(self, tops: Sequence[float]) -> dict[str, list[dict[str, Any]]]:
        """What stands in a file's `extra`; `tops` are where each row's lanes begin."""
        points: dict[tuple, dict[str, Any]] = {}
        ends = []

        def point(key: tuple, x: float, y: float, link: int, parent: int | None = None) -> int:
            entry = points.setdefault(key, {"id": len(points) + 1, "linkIds": []})
            entry |= {"pos": [round(x), round(y)]} | ({"parentId": parent} if parent else {})
            entry["linkIds"].append(link)
            return entry["id"]

        for number, source, output, target, *_ in self.links:
            row = self.row_of[target]
            lane = self.lanes[row].index((source, output))
            y = tops[row] + LANE * lane
            share = (lane + 1) / (len(self.lanes[row]) + 1)
            out, into = self.right_of(source), self.nodes[target]["pos"][0]
            first = point((source, output, row), out + GAP * share, y, number)
            key = (source, output, row, into)
            last = point(key, into - GAP * (1 - share), y, number, first)
            ends.append({"id": number, "parentId": last})
        return {"reroutes": list(points.values()), "linkExtensions": ends} if ends else {}

    def right_of(self, number: int) -> float:
        """Where the gap right of a node's column begins."""
        left, row = self.nodes[number]["pos"][0], self.row_of[number]
        column = [n for i, n in self.nodes.items() if self.row_of.get(i) == row]
        return max(n["pos"][0] + n["size"][0] for n in column if n["pos"][0] == left)
