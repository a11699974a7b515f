"""The procedural scenes, their captions, the data set and the counter of focal objects."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lab.bench import counter
from lab.scenes import (
    COLOURS,
    KINDS,
    SETTINGS,
    SETTINGS_OF_KIND,
    TIMES,
    Scene,
    caption,
    dataset,
    prompt,
    random_scene,
    render,
    visible_share,
    vocabulary,
)
from lab.scenes.render import place_object


def scenes() -> list[Scene]:
    return [
        random_scene(7 * i + j, setting=setting, time=time)
        for i, setting in enumerate(SETTINGS)
        for j, time in enumerate(TIMES)
    ]


def test_same_seed_same_picture():
    assert random_scene(5) == random_scene(5)
    a, b = (render(random_scene(5), 64, 64) for _ in range(2))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.masks[0], b.masks[0])
    assert not np.array_equal(a.image, render(random_scene(6), 64, 64).image)


@pytest.mark.parametrize("height,width", [(64, 64), (40, 136), (120, 48)])
def test_any_size_is_finite_and_in_range(height, width):
    for scene in scenes()[:8]:
        drawn = render(scene, height, width)
        assert drawn.image.shape == (height, width, 3) and drawn.image.dtype == np.float32
        assert drawn.image.min() >= 0 and drawn.image.max() <= 1
        assert len(drawn.masks) == 1 and drawn.masks[0].shape == (height, width)


@pytest.mark.parametrize("scene", scenes()[::2], ids=lambda s: f"{s.setting}-{s.time}")
def test_a_view_is_the_cut_of_a_larger_picture(scene):
    whole = render(scene, 256, 256)
    part = render(scene, 64, 96, (0.25, 0.5, 0.625, 0.75))
    assert np.abs(part.image - whole.image[128:192, 64:160]).max() < 0.02
    assert np.abs(part.masks[0] - whole.masks[0][128:192, 64:160]).max() < 0.02


def test_a_smaller_render_is_the_larger_one_reduced():
    for scene in scenes()[::2]:
        large = render(scene, 256, 256)
        reduced = large.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(render(scene, 64, 64).image - reduced).mean() < 0.02


def test_a_larger_render_has_more_detail():
    scene = random_scene(6, setting="mountains", time="day")
    view = (0.25, 0.4, 0.5, 0.65)
    fine = render(scene, 128, 128, view).image
    coarse = render(scene, 32, 32, view).image.repeat(4, 0).repeat(4, 1)
    assert (fine - coarse).std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_the_object_is(kind):
    scene = random_scene(3, kind=kind, colour="red", time="day")
    drawn = render(scene, 128, 128)
    mask = drawn.masks[0]
    bare = render(Scene(**{**scene.__dict__, "objects": ()}), 128, 128).image
    inside = np.abs(drawn.image - bare).max(-1)
    assert mask.min() >= 0 and mask.max() <= 1 and (mask > 0.5).mean() > 0.005
    assert (inside[mask > 0.9] > 0.02).mean() > 0.95
    rows = np.flatnonzero((mask > 0.3).any(1))
    height = (rows[-1] - rows[0] + 1) / 128
    assert 0.85 * scene.objects[0].height < height < 1.05 * scene.objects[0].height
    red = drawn.image[mask > 0.9].mean(0)
    assert red[0] > 1.25 * max(red[1], red[2])


def test_objects_stand_where_they_can():
    for seed in range(200):
        scene = random_scene(seed)
        (focal,) = scene.objects
        assert scene.setting in SETTINGS_OF_KIND[focal.kind]
        assert 0.28 <= focal.height <= 0.42
        x0, y0, x1, y1 = place_object(scene, focal, 1.0).box()
        assert y0 > -0.03 and y1 < 1.0 and x0 > -0.55 and x1 < 0.55


def test_crowds_and_overrides():
    scene = random_scene(1, n_objects=8, object_scale=(0.25, 0.5), kind="boat", colour="blue")
    assert 4 <= len(scene.objects) <= 8
    assert {(f.kind, f.colour) for f in scene.objects} == {("boat", "blue")}
    assert len(render(scene, 64, 64).masks) == len(scene.objects)
    assert random_scene(1, n_objects=0).objects == ()
    with pytest.raises(ValueError, match="desert"):
        random_scene(1, kind="boat", setting="desert")


def test_captions_say_what_is_there_in_known_words():
    known = set(vocabulary())
    rng = np.random.default_rng(0)
    for seed in range(80):
        scene = random_scene(seed)
        text = caption(scene, rng=rng)
        focal = scene.objects[0]
        assert focal.colour in text.split() and focal.kind in text
        words = text.replace(",", "").split()
        assert set(words) <= known and len(words) <= 20 and text == text.lower()
    for kind in KINDS:
        for setting in SETTINGS_OF_KIND[kind]:
            for colour, time in zip(COLOURS, [*TIMES, "day"], strict=True):
                for variant in range(4):
                    text = prompt(kind, colour, setting, time, variant)
                    assert set(text.replace(",", "").split()) <= known


def test_a_crop_is_captioned_by_what_it_shows():
    rng = np.random.default_rng(1)
    seen = {"named": 0, "absent": 0, "skipped": 0}
    for seed in range(140):
        scene = random_scene(seed)
        focal = scene.objects[0]
        view = dataset.crop_view(scene, rng)
        part, fills = visible_share(scene, focal, view)
        text = caption(scene, view, rng)
        if part >= 0.30 or fills >= 0.08:
            seen["named"] += 1
            assert focal.kind in text and focal.colour in text
        elif part < 0.02 and fills < 0.002:
            seen["absent"] += 1
            assert not any(kind in text for kind in KINDS)
        else:
            seen["skipped"] += 1
            assert text is None
    assert min(seen.values()) > 3, seen


def test_the_share_agrees_with_the_mask():
    scene = random_scene(11, kind="balloon")
    view = (0.0, 0.0, scene.objects[0].x, 1.0)
    whole = render(scene, 200, 200).masks[0]
    cut = round(200 * scene.objects[0].x)
    part, fills = visible_share(scene, scene.objects[0], view)
    assert part == pytest.approx(whole[:, :cut].sum() / whole.sum(), abs=0.04)
    assert fills == pytest.approx(whole[:, :cut].mean(), abs=0.01)


def test_data_set_goes_on_where_it_stopped(tmp_path):
    dataset.write(tmp_path / "whole", 40, 16, 3, KINDS, 1)
    again = tmp_path / "again"
    dataset.write(again, 40, 16, 3, KINDS, 1)
    lines = (again / "meta.jsonl").read_text().splitlines()
    (again / "meta.jsonl").write_text("\n".join(lines[:35]) + "\n{bro")
    images = np.lib.format.open_memmap(again / "images.npy", mode="r+")
    images[32:] = 0
    images.flush()
    dataset.write(again, 40, 16, 3, KINDS, 1)
    assert np.array_equal(np.load(tmp_path / "whole/images.npy"), np.load(again / "images.npy"))
    assert (again / "meta.jsonl").read_text() == (tmp_path / "whole/meta.jsonl").read_text()
    meta = [json.loads(line) for line in lines]
    assert {m["crop"] for m in meta} == {True, False}
    assert all(0 <= m["crop_top"] <= 2 and 0 <= m["crop_left"] <= 2 for m in meta)
    with pytest.raises(SystemExit, match="another data set"):
        dataset.write(again, 41, 16, 3, KINDS, 1)


needs_weights = pytest.mark.skipif(not counter.WEIGHTS.exists(), reason="counter not trained")


@needs_weights
@pytest.mark.parametrize("size", [(256, 256), (384, 576)])
def test_the_counter_finds_the_one_object(size):
    held_out = [random_scene(987_000_000 + i) for i in range(10)]
    pictures = [torch.from_numpy(render(s, *size).image).movedim(-1, 0) for s in held_out]
    counted = counter.count_objects(torch.stack(pictures))
    right = sum(
        [(f.kind, f.colour) for f in found] == [(s.objects[0].kind, s.objects[0].colour)]
        for found, s in zip(counted, held_out, strict=True)
    )
    assert right >= 9
    for found in counted:
        for item in found:
            assert 0 < item.area < 0.3
            assert 0 <= item.box[0] < item.box[2] <= 1 and 0 <= item.box[1] < item.box[3] <= 1


@needs_weights
def test_the_counter_counts_repeats_and_nothing():
    crowd = random_scene(  # a scene in which no two touch: those count as one
        987_100_004, n_objects=4, kind="balloon", colour="red", object_scale=(0.45, 0.6)
    )
    empty = random_scene(987_100_001, n_objects=0)
    images = np.stack([render(scene, 256, 256).image for scene in (crowd, empty)])
    many, none = counter.count_objects(torch.from_numpy(images).movedim(-1, 1))
    assert [(f.kind, f.colour) for f in many] == [("balloon", "red")] * len(crowd.objects)
    assert none == []


def test_the_counter_refuses_a_wrong_layout():
    with pytest.raises(ValueError, match="movedim"):
        counter.count_objects(torch.zeros(1, 64, 64, 3))
