"""Presets against plain torch: each of them, expanded and run, equals its paper's own loop."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from lab.reference import published

from .expansion import expand
from .graphs import run_here
from .stub import cond, patcher

NATIVE = (12, 16)
SEED = 1  # of `expand`
FACTOR = 0.13025


class Vae:
    """Three channels of a picture in eight times the size, and back; exact on the way back."""

    latent_channels = 4

    def spacial_compression_decode(self):
        return 8

    def decode(self, samples):
        wide = F.interpolate(samples[:, :3], scale_factor=8, mode="bilinear")
        return (wide / 40 + 0.5).clamp(0, 1).movedim(1, -1)

    def encode(self, pixels):
        cells = (F.avg_pool2d(pixels.movedim(-1, 1), 8) - 0.5) * 40
        return torch.cat([cells, cells.mean(1, keepdim=True)], 1)


def textured(x, sigma, conds):
    near = F.avg_pool2d(x, 3, 1, 1)
    wave = torch.linspace(0, 6, x.shape[-1]).sin()
    text = 0.1 * conds["context"].view(-1, 1, 1, 1) * wave
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1)) + 0.3 * wave.cos() + text)


def denoise(x, sigma, positive):
    context = torch.tensor([1.0 if positive else -1.0])
    return textured(x, torch.full((1,), sigma), {"context": context})


def decode(z):
    return Vae().decode(z / FACTOR).movedim(-1, 1) * 2 - 1


def encode(image):
    return Vae().encode((image.movedim(1, -1) + 1) / 2) * FACTOR


def noise(seed, size):
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(seed))


def native():
    smooth = F.interpolate(noise(9, (4, 5)), size=NATIVE, mode="bicubic")
    return 5 * smooth


def drawn(preset, scale=2.0, **changes):
    """(what each node of the run gave, the result in the model's space)."""
    model, vae, yes, no = patcher(textured), Vae(), cond(1.0), cond(-1.0)
    settings = {"steps": 0, "cfg": 0.0, "scheduler": "ddim_uniform"} | changes
    nodes = expand(model, native(), preset=preset, scale=scale, vae=vae, **settings)
    given = {"model": model, "positive": yes, "negative": no, "vae": vae}
    graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    done = run_here(graph, given | {"samples": {"samples": native()}})
    last = max((n for n in nodes if n.endswith("_SamplerCustomAdvanced")), key=str)
    added = last.replace("SamplerCustomAdvanced", "AddedNoise")
    return done, done[added if added in nodes else last][0]["samples"] * FACTOR


def sigmas_of(done, number, kind="InitRate"):
    return done[f"stage_{number}_{kind}Sigmas"][0].tolist()


def cells(scale):
    return tuple(round(side * scale) for side in NATIVE)


def pixels(scale):
    return tuple(8 * side for side in cells(scale))


def same(mine, theirs):
    assert mine.shape == theirs.shape
    assert (mine - theirs).norm() <= 1e-4 * theirs.norm()


TABLE = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2


def published_sigmas():
    """Of DDIM's times 981, 961 … 1."""
    bar = (1 - TABLE).cumprod(0)
    return [float(((1 - bar[t]) / bar[t]).sqrt()) for t in range(981, 0, -20)]


@pytest.mark.parametrize(
    ("preset", "scale", "stages"),
    [
        ("RectifiedHR", 2, [(2, 40, 50, 30.0)]),
        ("RectifiedHR (released)", 2, [(2, 30, 50, 30.0)]),
        ("RectifiedHR", 3, [(2, 40, 45, 22.5), (3, 45, 50, 40.0)]),
        ("RectifiedHR", 4, [(2.5, 40, 47, 5 + 45 * 0.5**0.5), (4, 47, 50, 50.0)]),
    ],
)
def test_rectifiedhr(preset, scale, stages):
    _, mine = drawn(preset, scale)
    listed = [
        (pixels(s), first, after, cfg, noise(SEED + n, cells(s)))
        for n, (s, first, after, cfg) in enumerate(stages, 2)
    ]
    same(
        mine,
        published.rectifiedhr(
            native() * FACTOR, listed, published_sigmas(), denoise, decode, encode
        ),
    )


@pytest.mark.parametrize(
    ("scale", "levels"), [(2, [(2, 0.9636, 10)]), (4, [(2, 2.328, 5), (4, 1.144, 15)])]
)
def test_frecas(scale, levels):
    done, mine = drawn("FreCaS", scale)
    listed = []
    for number, (size, first, steps) in enumerate(levels, 2):
        sigmas = sigmas_of(done, number, "Renoise")
        assert len(sigmas) == steps + 1 and sigmas[0] == pytest.approx(first, rel=2e-3)
        listed.append((pixels(size), sigmas, noise(SEED + number, cells(size))))
    if scale == 4:
        assert sigmas_of(done, 2, "Renoise")[-2] == pytest.approx(0.572)
    same(mine, published.frecas(native() * FACTOR, listed, (7.5, 35.0), denoise, decode, encode))


def test_scalediff():
    """Its attention apart, which the stub has none of."""
    rows = json.dumps([{"scale": 2, "windowed_attention": False}])
    done, mine = drawn("ScaleDiff", stages=rows)
    sigmas = sigmas_of(done, 2)
    assert sigmas == pytest.approx([*published_sigmas()[30:], 0], rel=1e-4)
    more = (pixels(2), noise(SEED + 2, cells(2)), sigmas, 7.5, denoise, decode, encode)
    same(mine, published.scalediff(native() * FACTOR, *more))


def test_diffusehigh():
    done, mine = drawn("DiffuseHigh")
    sigmas = sigmas_of(done, 2)
    assert sigmas == pytest.approx([*published_sigmas()[35:], 0], rel=1e-4)
    more = (pixels(2), noise(SEED + 2, cells(2)), sigmas, 7.5, denoise, decode, encode)
    same(mine, published.diffusehigh(native() * FACTOR, *more))


def test_rush():
    rows = json.dumps([{"scale": 2, "tiled": False}])
    done, mine = drawn("Rush", stages=rows)
    assert sigmas_of(done, 2, "Renoise") == pytest.approx([0.693, 0])
    least = float(patcher(textured).model.model_sampling.sigma_min)
    added = noise(SEED + 2 + 1000, cells(2))
    more = (pixels(2), added, 0.693, least, denoise, decode, encode)
    same(mine, published.rush(native() * FACTOR, *more))
