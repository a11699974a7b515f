"""On the demo model, one subject stays one subject at three times the native size.

The numbers with more steps are in docs/benchmarks.md; this is the same measurement in small.
"""

from __future__ import annotations

import pytest

from lab.pack import Session
from lab.repetition import METHODS, draw

SEEDS = range(1000, 1016)


@pytest.mark.timeout(2400)
def test_demofusion_draws_one_object_where_the_others_repeat_it():
    session = Session(steps=12)
    single = {
        name: sum(row["one"] for _, row in draw(session, method, SEEDS, scale=3))
        for name, method in METHODS.items()
    }
    assert single["DemoFusion"] >= single["direct"] + 6
    assert single["DemoFusion"] >= single["MultiDiffusion"] + 6
