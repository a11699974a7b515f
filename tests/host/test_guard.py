"""A whole DemoFusion lies in the guard's bands, and each broken part of it leaves them.

The bands, and what they were chosen from, are in docs/benchmarks.md.
"""

from __future__ import annotations

import statistics

import pytest
import torch

from lab.bench.guard import BANDS, COUNT, STEPS, baseline_objects, figures, tasks
from lab.bench.methods import ABLATIONS
from lab.pack import Session


@pytest.fixture(scope="module")
def asked():
    with torch.inference_mode():
        return tasks(Session(STEPS))


@pytest.fixture(scope="module")
def whole(asked):
    """Figures of the unbroken method, one value a caption."""
    with torch.inference_mode():
        rows = [figures(task) for task in asked]
    return {name: [row[name] for row in rows] for name in BANDS}


@pytest.mark.parametrize("name", BANDS)
def test_the_whole_method_is_in_the_band(whole, name):
    assert BANDS[name].holds(whole[name]), whole[name]


@pytest.mark.parametrize("name", BANDS)
def test_the_guard_fires_when_its_part_is_broken(asked, name):
    band = BANDS[name]
    values = [figures(task, (name,), **band.changes)[name] for task in asked]
    assert not band.holds(values), values


def test_every_part_has_a_guard():
    broken = [band.changes for band in BANDS.values()]
    assert all(f"without {band.part}" in ABLATIONS for band in BANDS.values())
    assert broken == [ABLATIONS[f"without {band.part}"] for band in BANDS.values()]


@pytest.mark.parametrize(("method", "more"), [("direct", 0.5), ("MultiDiffusion", 1)])
def test_demofusion_repeats_the_subject_less_than(asked, whole, method, more):
    counts = [baseline_objects(task, method) for task in asked]
    assert statistics.mean(counts) >= statistics.mean(whole["objects"]) + more
    right = [sum(count == 1 for count in row) for row in (counts, whole["objects"])]
    assert right[1] >= right[0] + COUNT // 4
