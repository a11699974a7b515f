"""What most people do, as rows of the tournament: enlarged, redrawn tile by tile."""

from __future__ import annotations

import pytest
import torch

from lab.bench import rows, upscaler
from lab.bench.rows import FEATHER, PADDING, TILE
from lab.bench.task import Task

from .redrawing import Redrawing


def test_tiles_cover_the_picture_and_fade_into_their_neighbours():
    assert rows.tiles(512) == [(0, 256), (256, 512)] and rows.tiles(600)[-1] == (512, 600)
    share = rows.feather((TILE, 2 * TILE), (TILE - PADDING, 2 * TILE + PADDING))
    assert len(share) == TILE + 2 * PADDING
    assert share[PADDING + FEATHER : -PADDING - FEATHER].min() == 1
    assert share[0] == 0 == share[-1]
    assert share[PADDING - 1] + share[PADDING] == pytest.approx(1)
    edge = rows.feather((0, 256), (0, 288))
    assert edge[0] == 1 and edge[-1] == 0
    assert rows.feather((0, 256), (0, 256)).min() == 1


@pytest.mark.skipif(not upscaler.is_installed(), reason=upscaler.REMEDY)
def test_pictures_that_lie_otherwise_in_memory_are_enlarged_alike():
    across = torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    large = upscaler.enlarge_4x(across)
    assert large.shape == (1, 3, 160, 96)
    other = across.movedim(1, -1).contiguous().movedim(-1, 1)  # as pictures come from files
    assert not other.is_contiguous() and torch.equal(upscaler.enlarge_4x(other), large)


def test_every_tile_is_redrawn_once_by_the_samplers_rule():
    session = Redrawing()
    before = torch.zeros(1, 3, 768, 512)
    after = rows.redrawn(Task(session, "a", 1, 2), before)
    assert after.shape == before.shape and before.max() == 0
    assert len(session.asked) == 6
    assert [shape for shape, _ in session.asked] == [(36, 36)] * 2 + [(40, 36)] * 2 + [(36, 36)] * 2
    _, how = session.asked[0]
    assert how["steps"] == 57 and round(how["steps"] * (1 - how["start"])) == 20
    # Where four soft corners meet, a quarter, and then a quarter of the rest three times.
    assert (
        0.6 < after.min() < 0.75
        and after[..., 0, 0].min() == 1
        and after[..., 30:200, 30:200].min() == 1
    )
