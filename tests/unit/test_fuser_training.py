"""Training of fusers: it finds what is there to be found, and says when nothing is."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from PIL import Image

from hires_fusion.fusion_ops.latent_fusion import blend, published_weights, refined_share
from lab.studies import frequency_steps
from lab.training import fuser_pairs, train_fusers


def triples(share=None, count=48):
    """Random latents and a truth that takes `share(base, refined)` of the refined one."""
    g = torch.Generator().manual_seed(0)
    base, refined, noise = (torch.randn(count, 4, 8, 8, generator=g) for _ in range(3))
    true = noise if share is None else blend(base, refined, share(base, refined))
    return {"base": base, "refined": refined, "true": true}


def settings(**changes):
    return argparse.Namespace(**({"lr": 0.05, "steps": 250, "batch": 32, "seed": 0} | changes))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_best_ratio(ratio):
    assert train_fusers.best_ratio(triples(lambda b, r: ratio)) == pytest.approx(ratio, abs=1e-5)


@pytest.mark.parametrize("kind", train_fusers.KINDS)
def test_a_map_that_exists_is_found(kind):
    there = {k: 4 * w for k, w in published_weights(kind, 4, 2).items()}
    data = triples(lambda b, r: refined_share(kind, b, r, there))
    found = train_fusers.fit(kind, data, settings())
    plain = blend(data["base"], data["refined"], train_fusers.best_ratio(data))
    error = train_fusers.errors(train_fusers.fused(kind, found, data), data["true"]).mean()
    assert error < 0.1 * train_fusers.errors(plain, data["true"]).mean()


@pytest.mark.parametrize("kind", train_fusers.KINDS)
def test_before_the_first_step_a_fuser_is_the_best_blend(kind):
    data = triples(lambda b, r: 0.3)
    start = train_fusers.fit(kind, data, settings(steps=1, lr=0.0))
    share = refined_share(kind, data["base"], data["refined"], start)
    assert torch.allclose(share, torch.tensor(0.3), atol=1e-5)


def test_fine_power_is_what_lies_beyond_half_of_the_frequencies():
    place = torch.arange(16) * 2 * torch.pi / 16
    slow, fast = (torch.cos(n * place).expand(1, 4, 16, 16) for n in (2, 6))
    assert train_fusers.fine_power(slow) < 1e-3
    assert train_fusers.fine_power(slow + fast) == pytest.approx(4 * 2 * 128**2, rel=1e-4)


def test_noise_belongs_to_a_picture_and_not_to_its_batch():
    one, again = (fuser_pairs.two_noises((4, 8, 8), 21, 5) for _ in range(2))
    assert one.shape == (2, 4, 8, 8) and torch.equal(one, again)
    assert not torch.equal(one, fuser_pairs.two_noises((4, 8, 8), 21, 6))


def test_own_pictures_come_with_their_captions(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "b.jpg")
    (tmp_path / "a.txt").write_text("a red thing\n", encoding="utf-8")
    args = argparse.Namespace(images=tmp_path, count=5, size=16, prompt="a photo")
    found = fuser_pairs.files(args)
    assert [meta["caption"] for _, meta in found] == ["a red thing", "a photo"]
    assert all(picture.shape == (16, 16, 3) for picture, _ in found)
    assert np.array_equal(found[0][0][0, 0], (255, 0, 0))
    with pytest.raises(SystemExit, match="no pictures"):
        fuser_pairs.files(argparse.Namespace(images=tmp_path / "none", count=1))


def test_the_gain_of_a_band():
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(frequency_steps.band_gain(1.0, 1.0)(x), x, atol=1e-5)
    assert torch.allclose(frequency_steps.band_gain(0.5, 0.5)(x), x / 2, atol=1e-5)
    kept = frequency_steps.band_gain(1.0, 0.0)(x)
    assert torch.allclose(kept.mean((2, 3)), x.mean((2, 3)), atol=1e-5) and kept.std() < x.std() / 2
