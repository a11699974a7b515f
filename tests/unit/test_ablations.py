"""The ablations of our two presets: what is stored, and what the page says of it."""

from __future__ import annotations

import dataclasses

from hires_fusion.fusion_ops.presets import PRESETS
from lab.bench import ablations
from lab.bench.registered import EXPLORING
from lab.files import ROOT


def test_the_page_says_what_is_stored():
    known = ablations.load()
    assert ablations.tables(known) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert known.rows.made["rows"] == ablations.recipes()  # else: draw and print them again
    assert min(known.seeds(ablations.BEST, ablations.FAST)) >= EXPLORING


def test_every_row_changes_something():
    for preset, changes in ablations.CHANGES.items():
        for fields in changes.values():
            (row,) = PRESETS[preset].rows
            assert dataclasses.replace(row, **fields) != row
