"""Rows on many servers, stubs in this process: none is lost, none is doubled, nothing grows."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from tools.client import NoServer
from tools.runs.rows import Row
from tools.runs.spread import spread


def row(number):
    return Row(number, f"key{number}", f"{number:05d}", {"seed": "1"}, {})


class Fleet:
    """Stubs of servers, in this process, that are lost, gone and slow by a seed."""

    def __init__(self, count, seed, gone=0, trouble=0.0):
        self.random = random.Random(seed)
        self.hands = list(range(count))
        self.doomed = set(self.hands[:gone])
        self.trouble = trouble
        self.begun, self.most, self.flight = 0, 0, {}

    def start(self, hand, row):
        self.begun += 1
        ref = (self.begun, hand)
        self.flight[ref] = row
        self.most = max(self.most, len(self.flight))
        assert len({busy for _, busy in self.flight}) == len(self.flight)
        return ref

    def wait(self, refs):
        assert set(refs) == set(self.flight)
        ref = self.random.choice(refs)
        row = self.flight.pop(ref)
        if ref[1] in self.doomed:
            return ref, {"gone": "no ComfyUI answers"}
        if self.random.random() < self.trouble:
            return ref, {"again": "its process died"}
        if row.number % 1000 == 0:
            return ref, {"error": "Draw: out of memory"}
        return ref, {"files": [("a", ".png", "a.png", bytes(1000))]}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fleet_of_64_loses_and_doubles_nothing(seed):
    fleet = Fleet(64, seed, gone=20, trouble=0.01)
    read = 0

    def table():
        nonlocal read
        for number in range(1, 10_001):
            read += 1
            assert read - ended <= 64 + 1  # back-pressure: read as rows end
            yield row(number)

    ended, seen, bad, size = 0, bytearray(10_001), 0, []
    tracemalloc.start()
    outcomes = spread(table(), fleet.hands, fleet.start, fleet.wait)
    for ended, (got, outcome) in enumerate(outcomes, 1):
        seen[got.number] += 1
        bad += "error" in outcome
        if ended % 2000 == 0:
            size.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert seen[1:] == b"\x01" * 10_000 and fleet.most == 64 and not fleet.flight
    assert 10 <= bad < 15
    assert max(size) - min(size) < 100_000  # bytes; ten thousand rows would be megabytes


def test_rows_go_where_servers_are_left():
    fleet = Fleet(3, 0, gone=2)
    assert len(list(spread(map(row, range(1, 9)), fleet.hands, fleet.start, fleet.wait))) == 8
    fleet = Fleet(2, 0, gone=2)
    with pytest.raises(NoServer, match="no ComfyUI answers"):
        list(spread(map(row, range(1, 9)), fleet.hands, fleet.start, fleet.wait))
    # A row that takes every server down with it must not take them all.
    fleet = Fleet(9, 0, trouble=1.0)
    [(_, outcome)] = spread([row(1)], fleet.hands, fleet.start, fleet.wait)
    assert "3 servers were lost with it" in outcome["error"] and fleet.begun == 3
