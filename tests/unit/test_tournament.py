"""The tournament: its plan, its statistics against known answers, its files, its figures."""

from __future__ import annotations

import argparse
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from hires_fusion.fusion_ops.stages import PRESETS
from lab.bench import figures, published, results, rows, tournament
from lab.bench import gallery as galleries
from lab.bench.figures import FIELDS
from lab.bench.registered import EXPLORING, read_plan
from lab.bench.results import REFERENCE, Rows
from lab.bench.standings import Table, excess, markdown
from lab.bench.task import Method

from .redrawing import Redrawing

PLAN = """
first_seed = 10
steps = 3
cfg = 5.0
crops = 2
draws = 300
against = ["b", "c"]
[[part]]
scale = 2
seeds = 4
methods = ["a", "presets"]
but = ["d"]
[[part]]
scale = 3
seeds = 2
methods = ["b"]
[shown]
2 = 1
"""


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return read_plan("abcd", "bcd", file)


def test_the_plan_names_every_preset_and_rows_that_are_there():
    plan = tournament.plan_of()
    assert set(PRESETS) <= set(plan.rows_of(2))
    assert {rows.TRUE, rows.FLOOR, rows.BICUBIC, rows.TILED} <= set(plan.rows_of(2))
    assert set(plan.against[:2]) == {"DemoFusion", rows.BICUBIC}
    last = max(job.seed for job in plan.jobs())
    assert last < EXPLORING and plan.first_seed > 5200  # seeds below were explored on


def test_parts_are_interleaved_and_stay_paired(plan):
    jobs = plan.jobs()
    assert [part.methods for part in plan.parts] == [("a", "b", "c"), ("b",)]
    assert [tuple(job) for job in jobs[:7]] == [
        *((name, 10, 2) for name in "abc"),
        *((name, 11, 2) for name in "abc"),
        ("b", 10, 3),
    ]
    assert len(jobs) == len(set(jobs)) == 14
    assert {job.name for job in plan.jobs(["a", "c"])} == {"b"}
    for stop in range(len(jobs)):
        drawn = jobs[:stop]
        counts = [sum(j.name == n and j.scale == 2 for j in drawn) for n in "abc"]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('"a", "presets"', '"a", "e"'), "no row is called e"),
        (('but = ["d"]', 'but = ["x"]'), "no row is called x"),
        (('against = ["b"', 'against = ["x"'), "no row is called x"),
        (("scale = 3", "scale = 2"), "b is in two parts"),
    ],
)
def test_a_plan_that_names_what_is_not_there_is_refused(tmp_path, change, problem):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.replace(*change))
    with pytest.raises(ValueError, match=problem):
        read_plan("abcd", "bcd", file)


def test_features_survive_their_bytes():
    wanted = torch.rand(100, 50, generator=torch.Generator().manual_seed(0)) ** 3 * 3
    back = figures.unpack(figures.pack(wanted))
    assert np.abs(back - wanted.numpy()).max() < 0.02
    assert np.abs((back - wanted.numpy()).mean()) < 2e-4


def test_crops_are_at_the_same_places_for_every_row():
    picture = torch.arange(512 * 512.0).reshape(1, 1, 512, 512).expand(1, 3, -1, -1)
    first, again = figures.crops(picture, 4, 7), figures.crops(picture + 0, 4, 7)
    assert torch.equal(first, again) and first.shape == (4, 3, 256, 256)
    assert not torch.equal(first, figures.crops(picture, 4, 8))


def picture(shift: float, seed: int, objects: int = 1) -> figures.Figures:
    rng = np.random.default_rng(seed)
    values = {
        "features": figures.pack(torch.from_numpy(rng.random((2, 40)) + shift)),
        "spectrum": rng.random(48) - shift,
        "seams": 0.1 * rng.standard_normal(63),
        "objects": objects,
        "right": objects == 1,
        "native_objects": 1,
        "psnr": 30 - shift,
        "lpips": 0.1,
        "seconds": 2.0,
        "calls": 40,
        "evaluations": 160,
    }
    return {name: np.asarray(values[name], kind) for name, kind in FIELDS.items()}


def some_rows(weights: str = "w") -> Rows:
    made = {
        "weights": weights,
        "recipe": {"steps": 3, "cfg": 5.0, "crops": 2},
        "machine": dict.fromkeys(("device", "torch", "comfyui", "commit"), "x"),
        "rows": {"a": "", "b": "first", "c": ""},
        "absent": {"d": "gone"},
    }
    found = Rows(made)
    for name, shift, objects in ((REFERENCE, 0, 1), ("a", 0.05, 1), ("b", 0.8, 2), ("c", 0.8, 1)):
        found.pictures[2, name] = {s: picture(shift, hash_of(name, s), objects) for s in range(8)}
    return found


def hash_of(name: str, seed: int) -> int:
    return seed * 10 + len(name) + ord(name[0])


def test_standings_say_what_is_told_apart(plan):
    table = Table(some_rows(), plan, 2)
    a, b, c = table.standings()
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert a.kid.value < b.kid.value and a.against["b"].verdict() == "better"
    assert b.against["c"].verdict() == "not told apart" and not b.against["b"].exists
    assert c.against["b"].value == pytest.approx(-b.against["c"].value)
    assert excess(b) == "+1.00 more" and excess(a) == "+0.00" and b.one == 0
    assert a.nearer["b"].value == pytest.approx(0.75)
    assert len({line.count("|") for line in markdown([a, b, c], plan).splitlines()}) == 1


def test_only_common_seeds_are_compared(plan):
    found = some_rows()
    for seed in (0, 5):
        del found.pictures[2, "b"][seed]
    del found.pictures[2, REFERENCE][7]
    a, b, _ = Table(found, plan, 2).standings()
    assert a.against["b"].count == 5 and a.against["b"].verdict() == "not told apart"
    assert a.kid.count == 7 and b.seeds == [1, 2, 3, 4, 6]


def test_results_are_read_as_they_were_written(tmp_path):
    found = some_rows()
    results.save(found, tmp_path)
    before = (tmp_path / "tournament.npz").read_bytes()
    back = results.load(tmp_path)
    assert back.made == found.made and back.pictures.keys() == found.pictures.keys()
    for key, pictures in found.pictures.items():
        for seed, kept in pictures.items():
            for name, value in kept.items():
                assert np.array_equal(back.pictures[key][seed][name], value, equal_nan=True)
    results.save(back, tmp_path)
    assert (tmp_path / "tournament.npz").read_bytes() == before
    for seed, kept in found.pictures[2, "a"].items():
        results.save_picture(tmp_path / "2x" / "a" / f"{seed}.npz", kept)
    assert results.read_folder(tmp_path, {}).seeds((2, "a")) == list(range(8))
    with pytest.raises(FileNotFoundError, match="draw some by"):
        results.load(tmp_path / "nowhere")


def test_results_of_other_weights_are_not_mixed():
    with pytest.raises(ValueError, match="--replace"):
        results.merged(some_rows(), some_rows("other"))
    changed = some_rows()
    changed.made["recipe"] = changed.made["recipe"] | {"steps": 4}
    with pytest.raises(ValueError, match="--replace"):
        results.merged(some_rows(), changed)


def test_a_later_row_stands_beside_the_stored_ones_and_a_changed_one_is_dropped():
    later = Rows(some_rows().made | {"rows": {"b": "second", "e": ""}})
    later.pictures = {(2, "e"): {1: picture(0, 1)}, (2, "b"): {3: picture(0, 2)}}
    found = results.merged(some_rows(), later)
    assert found.seeds((2, "a")) == list(range(8)) == found.seeds((2, REFERENCE))
    assert found.seeds((2, "e")) == [1] and found.seeds((2, "b")) == [3]
    assert found.made["rows"] == {"a": "", "b": "second", "c": "", "e": ""}


@pytest.fixture
def drawing(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(galleries, "Session", Redrawing)
    monkeypatch.setattr(galleries, "true_render", lambda *_: np.zeros((64, 64, 3), np.float32))
    monkeypatch.setattr(tournament, "fingerprint", lambda: "w")
    monkeypatch.setattr(galleries, "fingerprint", lambda *_: "w")
    made = {"a": "", "b": "first", "c": ""}
    drawn = {n: Method(lambda task: task.session.decode(task.empty())) for n in "abcd"}
    fake = types.SimpleNamespace(
        rows=lambda: drawn, recipes=lambda: made, absent=lambda: {"c": "it is not here"}
    )
    monkeypatch.setattr(tournament, "rows", fake)
    monkeypatch.setattr(tournament.figures, "measure", lambda *_: picture(0, 1))
    return lambda: (tournament.Drawing(plan, tmp_path / "pictures"), made)


def test_drawing_goes_on_where_it_stopped_and_draws_changed_rows_again(drawing, capsys):
    first, made = drawing()
    total = len(first.missing())
    assert total == 10  # without c
    assert first.run(0) == total
    for job in first.missing()[:3]:
        first.draw(job)
    again, _ = drawing()
    assert len(again.missing()) == total - 3 and again.run(5) == 0
    found = again.rows()
    assert found.seeds((2, "a")) == [10, 11, 12, 13] == found.seeds((2, REFERENCE))
    made["b"] = "second"
    changed, _ = drawing()
    assert {job.name for job in changed.missing()} == {"b"} and len(changed.missing()) == 6
    assert "b has changed" in capsys.readouterr().err


def test_shares_draw_side_by_side_what_one_process_would(drawing):
    one, _ = drawing()
    total = len(one.missing())
    assert one.run(5, tournament.share("1/2")) == 0
    assert {seed for of in one.rows().pictures.values() for seed in of} == {11, 13}
    assert 0 < len(one.missing()) < total
    assert one.run(5, tournament.share("0/2")) == 0 and not one.missing()
    for wrong in ("2/2", "1", "-1/2", "a/b"):
        with pytest.raises(argparse.ArgumentTypeError, match="0/2"):
            tournament.share(wrong)


def test_what_was_drawn_is_stored_with_the_pictures_that_are_shown(drawing, tmp_path):
    one, _ = drawing()
    one.run(5)
    stored = tmp_path / "stored"
    tournament.store(one, False, stored)
    assert results.load(stored).seeds((3, "b")) == [10, 11]
    shown = sorted(str(path.relative_to(stored)) for path in stored.rglob("*.webp"))
    assert shown == ["pictures/2x/10/a.webp", "pictures/2x/10/b.webp"]
    tournament.store(one, True, stored)
    assert results.load(stored).seeds((2, "a")) == [10, 11, 12, 13]


def test_what_is_stored_is_not_drawn_again_in_a_fresh_checkout(drawing, plan, tmp_path):
    one, made = drawing()
    one.run(5)
    stored = results.merged(one.rows(), one.rows())
    fresh = tournament.Drawing(plan, tmp_path / "fresh", stored=stored)
    assert fresh.missing() == []
    del stored.pictures[2, "a"][12]
    made["b"] = "second"
    fresh = tournament.Drawing(plan, tmp_path / "fresh", stored=stored)
    assert {job.seed for job in fresh.missing() if job.name == "a"} == {12}
    assert {job.seed for job in fresh.missing() if job.name == "b"} == {10, 11, 12, 13}


def test_blocks_are_filled_and_the_rest_stays(plan, monkeypatch):
    monkeypatch.setattr(published.rows, "rows", lambda: {"b": Method(None, kind="preset")})
    text = "before\n<!-- tournament: presets -->\nold\n<!-- tournament: end -->\nafter\n"
    shown = published.Figures(some_rows(), plan)
    new = published.filled(text, shown)
    assert new.startswith("before\n") and new.endswith("after\n") and "old" not in new
    assert "| b (8) |" in new and published.filled(new, shown) == new
    with pytest.raises(ValueError, match="no block is called nothing"):
        published.filled(text.replace("presets", "nothing"), shown)
    with pytest.raises(ValueError, match="has no end"):
        published.filled(text.replace("<!-- tournament: end -->", ""), shown)


def test_documents_say_so_where_nothing_is_stored(plan):
    nothing = published.Figures(Rows(), plan)
    for name in published.BLOCKS:
        text = f"<!-- tournament: {name} -->\n<!-- tournament: end -->\n"
        assert published.NOTHING in published.filled(text, nothing)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in published.FILES])
def test_the_documents_say_what_is_stored(path: Path):
    text = path.read_text(encoding="utf-8")
    assert "<!-- tournament:" in text
    shown = published.Figures(results.load_if_there(), tournament.plan_of())
    assert published.filled(text, shown) == text, "run `python -m lab.bench.tournament publish`"


def test_stored_results_are_of_the_shipped_weights():
    if not (made := results.load_if_there().made):
        pytest.skip("nothing is stored yet: `python -m lab.bench.tournament draw`")
    assert made["recipe"] == tournament.plan_of().recipe
    if made["weights"] != galleries.fingerprint():
        pytest.skip("the demo weights are newer: `python -m lab.bench.tournament draw --replace`")
    changed = [n for n, how in rows.recipes().items() if made["rows"].get(n, how) != how]
    assert not changed, "draw these rows again: `python -m lab.bench.tournament draw`"
