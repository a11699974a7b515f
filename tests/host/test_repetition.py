"""On the demo model, one subject stays one subject at three times the native size.

The numbers for every kind of subject are in docs/benchmarks.md.
"""

from __future__ import annotations

import pytest

from lab.pack import Session
from lab.repetition import METHODS, draw

SEEDS = range(999, 999 + 16 * 3, 3)  # the balloons, which the demo model draws best


@pytest.mark.timeout(2400)
def test_demofusion_draws_one_object_where_the_others_repeat_it():
    session = Session(steps=12)
    single = {
        name: sum(row["one"] for _, row in draw(session, method, SEEDS, scale=3))
        for name, method in METHODS.items()
    }
    assert single["DemoFusion"] >= single["direct"] + 6
    assert single["DemoFusion"] >= single["MultiDiffusion"] + 6
