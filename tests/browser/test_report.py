"""The tournament's page in a real browser: it sorts, plots and shows pictures, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from lab.bench import report, tournament
from lab.bench.figures import FIELDS
from lab.bench.results import REFERENCE, Rows

COLUMN = """(column) => [...document.querySelector("table.sortable").tBodies[0].rows]
    .map((row) => row.cells[column].dataset.value)"""
LOADED = """() => [...document.querySelectorAll("#stage img")].map(
    (img) => img.complete && img.naturalWidth)"""
CROP = "(id) => { const s = getComputedStyle(document.getElementById(id)); return [" + (
    "s.backgroundImage, s.backgroundSize, s.backgroundPosition, s.width]; }"
)


def elsewhere(url: str) -> list[str]:
    """The address, if it is not in the page itself."""
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]


def picture(name: str, seed: int) -> dict[str, np.ndarray]:
    """Figures of a picture that no one drew; rows differ in what their names' lengths make."""
    rng = np.random.default_rng((seed, len(name)))
    values = dict.fromkeys(FIELDS, len(name))
    values |= {
        "features": rng.integers(0, 255 - 4 * len(name), (2, 30)),
        "spectrum": rng.random(48),
        "seams": rng.normal(0, 0.1, 63),
        "psnr": np.nan if name.startswith("true") else 20 + len(name),
    }
    return {field: np.asarray(values[field], kind) for field, kind in FIELDS.items()}


def stored(folder: Path) -> Rows:
    """Results of four rows and pictures of two seeds, each of one colour, in a folder."""
    names = ("true renders", "bicubic", "DemoFusion", "RepLDM")
    rows = Rows(
        {
            "weights": "none",
            "recipe": {"steps": 1, "cfg": 1.0, "crops": 2},
            "machine": dict.fromkeys(("device", "torch", "comfyui", "commit"), "none"),
            "absent": {},
        }
    )
    for name in (REFERENCE, *names):
        rows.pictures[2, name] = {seed: picture(name, seed) for seed in range(8)}
    for seed in ("6000", "6001"):
        for index, name in enumerate(names):
            path = folder / "pictures" / "2x" / seed / f"{name}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (512, 512), (60 * index, 99, int(seed) % 200)).save(path)
    return rows


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory) -> Iterator[Page]:
    """The page, opened from its file; whatever goes wrong in it fails the test."""
    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.html"
    text = report.page(stored(folder), tournament.plan_of(), folder)
    file.write_text(text, encoding="utf-8")
    trouble: list[str] = []
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(600_000)
    page.on("pageerror", lambda problem: trouble.append(str(problem)))
    page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: trouble.extend(elsewhere(asked.url)))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert not trouble


def test_tables_sort_by_numbers_and_by_names(page):
    heads = page.locator("table.sortable").first.locator("thead th")
    assert heads.count() == 12
    for column, kind in ((2, float), (0, str), (10, float)):
        button = heads.nth(column).locator("button")
        button.click()
        up = [kind(value) for value in page.evaluate(COLUMN, column) if value != ""]
        button.click()
        down = [kind(value) for value in page.evaluate(COLUMN, column) if value != ""]
        if kind is float:
            assert up == sorted(up) and down == up[::-1]
        assert sorted(up) == sorted(down) and up[0] == down[-1]
        assert page.evaluate(COLUMN, column)[-1] == "" or "" not in page.evaluate(COLUMN, column)


def test_plots_are_drawn(page):
    scales = page.locator("section[id^=s]").count()
    assert page.locator(".plot .main-svg").count() >= 4 * scales >= 4
    names = page.locator(".plot text").all_text_contents()
    assert any("DemoFusion" in name for name in names)


def test_two_rows_are_compared_by_a_slider_and_at_full_size(page):
    page.locator("#viewer").scroll_into_view_if_needed()
    assert all(side == 512 for side in page.evaluate(LOADED))
    page.select_option("#left", "bicubic")
    page.select_option("#right", "RepLDM")
    sources = [page.locator(f"#{image}").get_attribute("src") for image in ("under", "over")]
    assert sources[0] != sources[1]
    stage = page.locator("#stage")
    box = stage.bounding_box()
    stage.focus()
    page.keyboard.press("Home")
    assert page.locator("#over").evaluate("(e) => e.style.clipPath") == "inset(0px 0px 0px 0%)"
    page.mouse.move(box["x"] + 1, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 9, steps=4)
    page.mouse.up()
    assert float(stage.get_attribute("aria-valuenow")) == pytest.approx(75, abs=1)
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2)
    image, size, place, width = page.evaluate(CROP, "crop-right")
    assert sources[1][:100] in image and size == "512px 512px" and width == "256px"
    assert place == "-256px -256px"
