"""The quality benchmark's own measures, against pictures whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from lab.bench import gallery as galleries
from lab.bench import plot as plots
from lab.bench import quality
from lab.bench.gallery import Cost, Gallery, cost_of, load
from lab.bench.measures import chance, fidelity, line_ratios, roughness, seam_score
from lab.bench.methods import ABLATIONS, METHODS
from lab.bench.plot import Axes, Point, pareto, scatter, ticks
from lab.bench.quality import Part, Row, complete, draw
from lab.bench.quality_report import contact_sheet, plot, table
from lab.pictures import GAP, LABEL, sheet, sheet_of_rows
from lab.scenes import random_scene, render
from lab.scenes.wishes import TAUGHT, wish


def scenes(count: int, side: int = 512) -> torch.Tensor:
    pictures = [render(random_scene(seed), side, side).image for seed in range(count)]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1)


def patches(edges: list[int], shape: tuple[int, ...], strength: float, seed: int) -> torch.Tensor:
    """Each patch between the edges (pixels) has a brightness of its own."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(shape)
    lines = [0, *edges, shape[-1]]
    for top, bottom in itertools.pairwise(lines):
        for left, right in itertools.pairwise(lines):
            size = (*shape[:2], 1, 1)
            value = torch.randn(size, generator=generator) * strength
            out[..., top:bottom, left:right] = value
    return out


EDGES = [8, 16, 24]  # cells


def test_seams_show_and_grow_with_their_strength():
    pictures = scenes(8, 256)
    scores = [
        seam_score(pictures + patches([8 * e for e in EDGES], pictures.shape, s, 1))
        for s in (0.0, 0.04, 0.08, 0.16)
    ]
    assert 1 <= scores[0] < 1.7
    assert scores[0] < scores[1] < scores[2] < scores[3]


def test_the_seam_is_found_on_its_line():
    pictures = scenes(8, 256)
    seam = torch.zeros_like(pictures)
    seam[..., 8 * 12 :] += 0.2
    seam[..., 8 * 12 :, :] += 0.2
    assert line_ratios(pictures + seam).mean(0).argmax() == 12 - 1
    ratios = line_ratios((pictures + seam)[..., :200]).mean(0)
    assert len(ratios) == 31 + 24
    assert {*ratios.topk(2).indices.tolist()} == {12 - 1, 31 + 12 - 1}


def test_line_ratios_of_a_known_profile():
    # Along both axes every line has a step of 1 but that before cell 16, which has one of 3.
    steps = torch.ones(31)
    steps[15] = 3
    line = torch.cat([torch.zeros(1), steps.cumsum(0)])
    x = (line[:, None] + line)[None, None]
    expected = torch.zeros(1, 31)
    expected[0, 15] = math.log(3)
    for near in (1, 2, 3):
        expected[0, [15 - near, 15 + near]] = -math.log(3) / 6
    assert torch.allclose(line_ratios(x, 1), expected, atol=1e-5)
    assert torch.allclose(line_ratios(-2 * x, 1), expected, atol=1e-5)
    blocks = x.repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert torch.allclose(line_ratios(blocks), expected, atol=1e-5)
    assert seam_score(blocks) == pytest.approx(3, rel=1e-4)


def test_a_line_is_told_apart_only_where_pictures_agree_on_it():
    ratios = torch.randn(16, 63, generator=torch.Generator().manual_seed(1)) * 0.3
    assert chance(ratios) > 0.2
    one = ratios.clone()
    one[0, 31] += 3  # a single picture with an outline there
    assert chance(one) > 0.05
    ratios[:, 31] += 0.4
    assert chance(ratios) < 0.01


def test_fidelity_is_the_psnr_after_reduction():
    native = scenes(1, 64)
    large = native.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert fidelity(native, native) == math.inf
    assert fidelity(large, native) > 100
    assert fidelity(large + 0.1, native) == pytest.approx(20, abs=1e-3)
    assert fidelity(large.flip(-1), native) < 20


def test_roughness_is_that_of_noise_and_not_of_ramps():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert roughness(ramp) < 1e-10
    assert roughness(noise) == pytest.approx(20, rel=0.03)  # 4 * 4 + 4 * 1
    assert roughness(0.5 * noise) == pytest.approx(roughness(noise) / 4)


def test_the_front_holds_what_nothing_beats():
    def point(name: str, cost: float, value: float) -> Point:
        return Point(name, "baseline", cost, value)

    points = [point("b", 2, 3), point("a", 1, 5), point("c", 3, 4), point("d", 4, 1)]
    assert [p.name for p in pareto(points)] == ["a", "b", "d"]
    assert pareto([point("a", 1, 1), point("b", 1, 2)]) == [point("a", 1, 1)]
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert scatter(points, "title", "cost", "value").size == (680, 460)


def test_labels_of_a_crowd_stay_apart_and_inside():
    pen = ImageDraw.Draw(Image.new("RGB", plots.SIZE))
    left, top, _, bottom = plots.MARGIN
    places = [(left + 60 + 3 * k, plots.SIZE[1] - bottom - 20 - 2 * k) for k in range(8)]
    boxes = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for k, place in enumerate(places):
        plots._label(pen, place, f"method {k}", ImageFont.load_default(12), boxes)
    labels = boxes[len(places) :]
    assert all(x0 > left and y0 > top for x0, y0, _, _ in labels)
    assert all(x1 < plots.SIZE[0] and y1 < plots.SIZE[1] - bottom for _, _, x1, y1 in labels)
    for a, b in itertools.combinations(boxes[len(places) - 1 :], 2):
        assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_failures_do_not_press_the_others_together():
    points = [Point("a", "baseline", 1, 1.0), Point("b", "baseline", 2, 2.0)]
    failure = Point("c", "baseline", 3, 40.0)
    axes = Axes([*points, failure])
    assert axes.y[1] < 3
    heights = [axes.place(p.cost, p.value)[1] for p in (*points, failure)]
    assert heights[0] - heights[1] > 200 and heights[2] == axes.place(3, axes.y[1])[1]


def test_every_ablation_changes_a_field_of_the_stages():
    from hires_fusion.fusion_ops.stages import Stage

    whole = Stage()
    for changes in ABLATIONS.values():
        assert all(getattr(whole, name) != value for name, value in changes.items())
    assert set(ABLATIONS) < set(METHODS)


def test_wishes_take_turns_and_stay():
    assert wish(7) == wish(7)
    assert {wish(seed).kind for seed in range(3)} == set(TAUGHT)
    assert len({wish(seed).prompt for seed in range(60)}) > 30


class FakeSession:
    """Draws grey pictures and counts."""

    native = 32

    def __init__(self, *args):
        self.calls = self.cells = 0

    def sample(self, prompt, latent, seed, *args, **kwargs):
        self.calls += 2
        self.cells += 2 * latent.shape[-1] * latent.shape[-2]
        return torch.full_like(latent, 0.5)

    def decode(self, latent):
        side = latent.shape[-1] * 8
        return torch.full((1, 3, side, side), 0.5)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A gallery of a model that draws grey."""
    monkeypatch.setattr(galleries, "Session", FakeSession)
    return Gallery(tmp_path / "pictures", steps=3)


def test_pictures_are_kept_and_not_drawn_again(small):
    parts = (Part(2, 2, ("bicubic", "direct")),)
    draw(small, parts, 5)
    assert complete(small, parts[0], 5) == [5, 6]
    path = small.place("direct", 5, 2)
    assert load([path])[0].shape == (1, 3, 512, 512)
    # The direct picture is drawn from noise; the enlarged one pays for the native picture.
    assert (cost_of(path).calls, cost_of(path).evaluations) == (2, 8)
    assert (cost_of(small.place("bicubic", 5, 2)).calls) == 2
    before = small.session.calls
    draw(small, parts, 5)
    assert small.session.calls == before
    path.unlink()
    assert complete(small, parts[0], 5) == [6]


def test_another_recipe_is_refused(small):
    Gallery(small.folder, steps=3)
    with pytest.raises(ValueError, match="give another folder"):
        Gallery(small.folder, steps=4)


def test_renders_of_a_caption_differ_and_stay(small):
    first, again = (np.asarray(Image.open(small.render(3, 0, 2))) for _ in range(2))
    other = np.asarray(Image.open(small.render(3, 1, 2)))
    assert first.shape == (512, 512, 3) and (first == again).all()
    assert (first != other).any()


def row(value: float, evaluations: float) -> Row:
    names = ("FID", "FID-crop", "KID", "KID-crop", "precision", "recall")
    scores = {f"{name}-Lite0": (value, value - 0.1, value + 0.1, 4) for name in names}
    scores["spectrum"] = (2.0, 1.0, 3.0, 4)
    return Row(scores, 1.01, 2.5, 0.25, 21.0, 0.3, Cost(1.5, 40, evaluations))


def test_table_and_plot_hold_every_row():
    rows = {"bicubic": row(0.5, 40.0), "DemoFusion": row(0.25, 560.0)}
    text = table(rows)
    assert len(text.splitlines()) == 4
    line = text.splitlines()[-1]
    assert (
        line.startswith("| DemoFusion | 0.250 (0.150..0.350) |") and "| 25% | 1.5 | 560 |" in line
    )
    assert plot({2: rows, 3: rows}).size == (2040, 920)


def test_a_missing_upscaler_leaves_its_row_out(monkeypatch, capsys):
    import argparse

    monkeypatch.setattr(quality.upscaler, "is_installed", lambda: False)
    names = ("quick", "full", "seeds", "scale", "steps")
    args = argparse.Namespace(**dict.fromkeys(names, 0), out=None, methods=[])
    parts = quality.plan(args)
    assert "Real-ESRGAN" not in {name for part in parts for name in part.methods}
    assert "--no-deps" in capsys.readouterr().err
    assert args.steps == quality.STEPS["default"]
    with pytest.raises(ValueError, match="7x"):
        quality.plan(argparse.Namespace(**vars(args) | {"scale": 7}))
    chosen = quality.plan(argparse.Namespace(**vars(args) | {"methods": ["direct"]}))
    assert {part.methods for part in chosen} == {("direct",)}
    with pytest.raises(ValueError, match="choose of"):
        quality.plan(argparse.Namespace(**vars(args) | {"methods": ["magic"]}))


def test_pictures_are_measured_once(small, monkeypatch):
    pictures = [small.render(seed, 0, 2) for seed in range(4)]
    references = [small.render(seed, 1, 2) for seed in range(4)]
    file = small.folder / "scores" / "row.json"
    found = quality.kept(file, pictures, references)
    assert {"FID-Lite0", "KID-Lite0", "KID-crop-Lite0", "spectrum"} <= set(found.scores)
    assert found.scores["KID-crop-Lite0"][3] == 40
    assert found.objects == pytest.approx(1, abs=0.26) and found.psnr is None

    monkeypatch.setattr(quality, "measure", lambda pictures, *rest: len(pictures))
    again = quality.kept(file, pictures, references)
    assert again.cost == found.cost and table({"a": again}) == table({"a": found})
    with pytest.raises(TypeError):  # other pictures are measured anew
        quality.kept(file, pictures[:3], references)
    monkeypatch.setattr(quality, "SETS", (*quality.SETS, "IS"))
    with pytest.raises(TypeError):  # and so are all of them where a metric was added
        quality.kept(file, pictures, references)


def test_a_sheet_holds_every_picture_below_its_label():
    red, blue = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (30, 20), "blue")
    shown = sheet([("one", red), ("a label that is longer than its picture", blue), ("", red)], 2)
    assert shown.size == (2 * (30 + GAP), 2 * (20 + LABEL + GAP))
    corners = [shown.getpixel((x, y)) for y in (LABEL, 2 * LABEL + 20 + GAP) for x in (0, 30 + GAP)]
    assert corners == [(255, 0, 0), (0, 0, 255), (255, 0, 0), (255, 255, 255)]
    labels = np.asarray(shown.crop((0, 0, shown.width, LABEL)).convert("L")) < 128
    assert labels[:, :30].any() and labels[:, 34:64].any() and not labels[:, 64:].any()
    assert sheet([("", red)], 5).size == (30 + GAP, 20 + GAP)
    rows = sheet_of_rows({"a": [red], "b": [blue, blue]}, 60)
    assert rows.size == (2 * (60 + GAP), 2 * (40 + LABEL + GAP))
    assert rows.getpixel((70, 30)) == (255, 255, 255)


def test_a_contact_sheet_shows_each_method_and_its_middle(small):
    draw(small, (Part(2, 1, ("bicubic", "direct")),), 5)
    shown = contact_sheet(small, ["bicubic", "direct"], 5, 2)
    assert shown.size == (4 * (2 * 192 + 2 * GAP), 192 + LABEL + GAP)
