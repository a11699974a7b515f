"""Shifted windows in the denoiser: few calls of one shape, and every place seen where it is."""

from __future__ import annotations

import comfy.latent_formats
import pytest
import torch

from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews, UpsampleViews

from .families import FAMILIES, tiny
from .families import cond as family_cond
from .families import latent as family_latent
from .stub import cond, patcher, sample


def smooth(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x.flatten(0, -3), 3, 1, 1).view_as(x)
    text = conds["context"].mean(dim=(1, 2)).view(-1, *[1] * (x.ndim - 1))
    return torch.tanh(near / (1 + sigma.view(text.shape))) + 0.1 * text


def shifted(model, **options):
    return add_views(model, local=LocalViews(grid="shifted"), **options)


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(16, 16), (9, 16), (16, 5)])
def test_one_window_is_plain_sampling_to_the_bit(size):
    plain = sample(patcher(smooth), randn(1, 4, *size))
    assert torch.equal(plain, sample(shifted(patcher(smooth)), randn(1, 4, *size)))


@pytest.mark.parametrize("times", [2, 4])
def test_calls_are_few_and_of_one_shape(times):
    side = 16 * times
    model = shifted(patcher(smooth), view_batch_size=1)
    sample(model, randn(1, 4, side, side), steps=6, cfg=1.0, scheduler="simple")
    assert len(model.model.calls) == 6 * times**2  # at half a window's stride: 9 and 49
    assert len({tuple(call.shape) for call in model.model.calls}) == 1
    assert model.model.calls[0].shape[-1] <= 16 * 9 / 8


@pytest.mark.parametrize("shape", [(2, 4, 33, 50), (1, 16, 40, 9), (1, 4, 2, 47, 33)])
def test_every_place_is_seen_where_it_is(shape):
    def where(x, sigma, conds):
        return conds["map"].expand_as(x).clone()

    height, width = shape[-2:]
    place = torch.arange(height).view(-1, 1) * 100.0 + torch.arange(width)
    place = place.view(*[1] * (len(shape) - 2), height, width)
    found, model = [], patcher(where)
    if shape[1] == 16:
        model.model.latent_format = comfy.latent_formats.SD3()
    sample(
        shifted(model),
        randn(*shape),
        cfg=1.0,
        positive=cond(map=place.expand(1, 1, *shape[2:])),
        callback=lambda step, x0, x, total: found.append(x0.clone()),
    )
    assert all(torch.equal(x0, place.expand_as(x0)) for x0 in found)


def test_the_seed_decides_and_the_batch_of_views_does_not():
    x, noise = randn(2, 4, 37, 50), randn(2, 4, 37, 50, seed=2)

    def draw(seed, count=0):
        model = shifted(patcher(smooth), view_batch_size=count)
        return sample(model, x, noise=noise.clone(), seed=seed)

    first = draw(7)
    assert torch.equal(first, draw(7)) and not torch.allclose(first, draw(8), atol=1e-4)
    for count in (1, 3):
        assert torch.allclose(first, draw(7, count), atol=1e-5)


def test_seams_move():
    """A denoiser that marks its views' edges: no cell is marked in every step."""

    def edges(x, sigma, conds):
        out = torch.zeros_like(x)
        out[..., 0] = out[..., -1] = 1
        return out

    marked = []
    sample(
        shifted(patcher(edges)),
        randn(1, 4, 32, 64),
        steps=24,
        cfg=1.0,
        callback=lambda step, x0, x, total: marked.append(x0[0, 0].clone()),
    )
    share = torch.stack(marked).mean(0)[:, 2:-2]
    assert 0 < share.max() < 0.6


@pytest.mark.parametrize("name", ["SDXL", "SD 3", "Flux", "Flux 2", "Qwen-Image", "Wan 2.1"])
def test_families(name):
    family = FAMILIES[name]
    model = tiny(family)
    sizes = set()
    model.model.diffusion_model.register_forward_pre_hook(
        lambda network, args: sizes.add(tuple(args[0].shape[-2:]))
    )
    x = family_latent(family, 2 * family.cells + 2, family.cells + 6)
    options = {"steps": 2, "scheduler": "simple", "positive": family_cond(family, 2)}
    options["negative"] = family_cond(family, 3)
    out = sample(shifted(model), x, **options)
    assert out.shape == x.shape and out.isfinite().all()
    assert torch.equal(out, sample(shifted(model), x, **options))
    assert len(sizes) == 1 and all(side % family.patch == 0 for side in next(iter(sizes)))


def test_it_goes_with_the_global_views():
    x, base = randn(1, 4, 40, 33), patcher(smooth)
    both = shifted(base, dilated=DilatedViews(), upsample=UpsampleViews())
    out = sample(both, x)
    assert out.isfinite().all() and not torch.allclose(out, sample(shifted(base), x), atol=1e-3)
