"""The study of lifts in true latents: its measures by hand, and its files where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from lab.studies import true_latents
from lab.studies.true_latents import Missing, Pair, Space, errors, find_photos, interval, table


def test_errors_by_band():
    true = torch.zeros(1, 2, 16, 16)
    row = torch.arange(16.0)
    flat = true + 3
    assert errors(flat, true) == pytest.approx([9, 9, 0, 0], abs=1e-9)
    # A quarter of Nyquist, and Nyquist itself; a sine's mean square is half.
    wave = true + torch.sin(2 * torch.pi * row / 8)
    assert errors(wave, true) == pytest.approx([0.5, 0, 0.5, 0], abs=1e-6)
    teeth = true + 2 * (row % 2 * 2 - 1)
    assert errors(teeth, true) == pytest.approx([4, 0, 0, 4], abs=1e-6)
    noise = torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    found = errors(noise, noise * 0)
    assert found[0] == pytest.approx(float((noise**2).mean())) == pytest.approx(sum(found[1:]))


def test_intervals_are_of_the_mean_and_paired():
    values = torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    low, high = interval(values, lambda rows: rows.mean())
    assert low < float(values.mean()) < high
    assert high - low == pytest.approx(4 * float(values.std()) / 8, rel=0.15)
    # What is always a tenth less is told apart, however much photographs differ.
    base = [[float(v), 0.0, 0.0, float(v)] for v in values[:, 0] ** 2 + 0.01]
    less = [[0.9 * v for v in row] for row in base]
    text = table({"latent bicubic": base, "less": less, "same": [*base[1:], base[0]]})
    assert "| 0.90 (0.90..0.90) | better |" in text
    assert text.splitlines()[-1].endswith("| no |")


def test_photographs_are_found_by_name(tmp_path):
    for place, size in (
        ("wallpapers/Kite/contents/images/640x480.jpg", (64, 48)),
        ("wallpapers/Kite/contents/images/1280x960.jpg", (128, 96)),
        ("wallpapers/Opal/contents/images/640x480.jpg", (64, 48)),
        ("backgrounds/mate/nature/Dune.jpg", (96, 160)),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = os.urandom(size[0] * size[1] * 3)
        Image.frombytes("RGB", size, noise).save(path)
    found = find_photos(tmp_path)
    assert [path.name for path in found] == ["Dune.jpg", "1280x960.jpg"]
    assert true_latents.photograph(found[0]).size == (96, 96)
    assert len(true_latents.PHOTOS) == len(set(true_latents.PHOTOS)) >= 32


def test_missing_files_are_named(tmp_path):
    with pytest.raises(Missing, match=r"taesd_not_encoder, taesd_not_decoder .* HRF_TAESD"):
        Space("taesd_not", "SDXL", tmp_path)


@pytest.mark.parametrize(("vae", "latent_format"), true_latents.SPACES.values())
def test_every_method_in_true_latents(vae, latent_format):
    folder = os.environ.get("HRF_TAESD")
    try:
        space = Space(vae, latent_format, folder and Path(folder))
    except Missing as missing:
        pytest.skip(str(missing))
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64))
    picture = torch.stack([rows, columns, ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.1).float()])
    small = torch.nn.functional.interpolate(picture[None], 32, mode="area")
    with torch.inference_mode():
        pair = Pair(space.encode(small), space.encode(picture[None]))
        found = dict(true_latents.methods(space, pair))
    assert {latent.shape for latent in found.values()} == {pair.true.shape}
    assert all(latent.isfinite().all() for latent in found.values())
    assert not torch.equal(found["latent bicubic"], found["pixel bicubic"])
