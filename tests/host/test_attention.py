"""Windowed attention in small networks of the host's own classes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from comfy.patcher_extension import WrappersMP

from hires_fusion.sampling.attention import (
    KEY,
    OVERRIDE,
    RUN,
    WindowedAttention,
)
from hires_fusion.sampling.networks import network_of
from hires_fusion.sampling.span import span

from .attending import KNOWN, SD, both, close, counting, draw, large, noise_like, windowed
from .families import FAMILIES, cond, latent, tiny
from .networks import UNET


@pytest.fixture(params=KNOWN)
def family(request):
    return FAMILIES[request.param]


def test_a_native_picture_is_plain_sampling_to_the_bit(family):
    model = tiny(family)
    for size in ((family.cells, family.cells), (family.cells, family.cells - 3)):
        x = latent(family, *size, batch=2)
        assert torch.equal(draw(family, model, x), draw(family, windowed(model), x))


def test_a_window_as_large_as_the_picture_is_plain_sampling_to_the_bit(family):
    model = tiny(family)
    x = latent(family, 2 * family.cells, 2 * family.cells - 2)
    plain = draw(family, model, x)
    assert torch.equal(plain, draw(family, windowed(model, window=2.0), x))
    assert not torch.equal(plain, draw(family, windowed(model), x))


def test_no_attention_is_larger_than_a_native_one(family):
    model = tiny(family)
    native, calls = counting(model)
    draw(family, native, latent(family, family.cells, family.cells))
    most = max(q * k for _, q, k in calls)
    x = latent(family, 3 * family.cells, 2 * family.cells + 3)
    whole, full = counting(model)
    draw(family, whole, x)
    counted, calls = counting(model)
    draw(family, windowed(counted), x)
    self_attention = [c for c in calls if c[2] != 8]  # eight words
    assert max(q * k for _, q, k in self_attention) <= most < max(q * k for _, q, k in full)
    assert len(calls) > len(full)


@pytest.mark.parametrize("size", [(3, 2), (1, 4)])
def test_odd_sizes_and_batches(family, size):
    model = windowed(tiny(family))
    x = latent(family, size[0] * family.cells + 1, size[1] * family.cells - 3, batch=2)
    out = draw(family, model, x)
    assert out.shape == x.shape and out.isfinite().all()
    assert torch.equal(out, draw(family, model, x))
    one = draw(family, model, x[:1], noise=noise_like(x)[:1])
    assert torch.allclose(
        draw(family, model, x, noise=noise_like(x))[:1], one, rtol=1e-3, atol=1e-3
    )


# Words and filling before the picture's tokens.
TEXT = {"ZImage": 32, "Flux2": 512}


def masked_full(model, blocks, windows, first):
    """A clone whose self-attention is full, with a mask that says what each token may see.

    `blocks`, `windows`: sides at the uppermost level; `first`: tokens before the picture's own,
    by the length of a sequence (None: not a sequence with the picture).
    """

    def attend(function, q, k, v, heads, mask=None, *args, **kwargs):
        axis = 2 if kwargs.get("skip_reshape") else 1
        count = q.shape[axis]
        options = kwargs["transformer_options"]
        level, grid = first["level"](options), first["grid"](options)
        start = first["start"](count, grid)
        if start is None or k.shape[axis] != count:
            return function(q, k, v, heads, mask, *args, **kwargs)
        allowed = torch.ones(count, count, dtype=torch.bool)
        side, block = math.ceil(windows / 2**level), math.ceil(blocks / 2**level)
        for y in range(grid[0]):
            for x in range(grid[1]):
                near = torch.zeros(grid, dtype=torch.bool)
                spans = []
                for place, length in ((y, grid[0]), (x, grid[1])):
                    begin = place // block * block - (side - block) // 2
                    begin = min(max(begin, 0), max(length - side, 0))
                    spans.append(slice(begin, begin + side))
                near[spans[0], spans[1]] = True
                row = allowed[start + y * grid[1] + x]
                row[start : start + near.numel()] = near.flatten()
        mask = torch.zeros(count, count).masked_fill(~allowed, -1e9)
        return function(q, k, v, heads, mask, *args, **kwargs)

    model = model.clone()
    model.model_options["transformer_options"][OVERRIDE] = attend
    return model


def transformer_places(family, size, before, after=0, text=0):
    grid = tuple(-(-side // family.patch) for side in size)

    def start(count, grid):
        found = count - math.prod(grid) - after
        return found if found in (0, before) and count != text else None

    return {"level": lambda options: 0, "grid": lambda options: grid, "start": start}


UNET_PLACES = {
    "level": lambda options: 1,
    "grid": lambda options: tuple(options["activations_shape"][-2:]),
    "start": lambda count, grid: 0 if count == math.prod(grid) else None,
}


def test_it_is_full_attention_with_a_mask(family):
    size = (2 * family.cells, family.cells + 6)
    model, x = tiny(family), latent(family, *size)
    side = family.cells // family.patch
    if family.patch == 1 and family.channels == 4:
        places = UNET_PLACES
    else:
        tokens, text = math.prod(-(-s // family.patch) for s in size), TEXT.get(family.config, 8)
        after = -tokens % 32 if family.config == "ZImage" else 0
        places = transformer_places(family, size, text, after, text)
    wanted = draw(family, masked_full(model, side // 2, side, places), x)
    got = draw(family, windowed(model, jitter=False), x)
    assert close(got, wanted)
    assert not close(got, draw(family, model, x))


@pytest.mark.parametrize("name", ["Flux", "Flux 2", "Qwen-Image"])
def test_reference_pictures_are_seen_by_all(name):
    family = FAMILIES[name]
    size = (2 * family.cells, 2 * family.cells)
    model, x = tiny(family), latent(family, *size)
    reference = latent(family, 6, 9)
    if family.frames:
        reference = reference.reshape(1, family.channels, 1, 6, 9)
    after = -(-6 // family.patch) * -(-9 // family.patch)
    places = transformer_places(family, size, TEXT.get(family.config, 8), after)
    ((text, known),) = cond(family, 2)
    options = {"positive": [[text, known | {"reference_latents": [reference]}]], "cfg": 1.0}
    side = family.cells // family.patch
    wanted = draw(family, masked_full(model, side // 2, side, places), x, **options)
    got = draw(family, windowed(model, jitter=False), x, **options)
    assert close(got, wanted) and not close(got, draw(family, model, x, **options))


@both
def test_one_seed_one_picture_and_jitter_moves_it(family):
    model, x = tiny(family), large(family)
    noise = noise_like(x)
    first = draw(family, windowed(model), x, noise=noise, seed=1)
    assert torch.equal(first, draw(family, windowed(model), x, noise=noise, seed=1))
    assert not torch.equal(first, draw(family, windowed(model), x, noise=noise, seed=2))
    still = windowed(model, jitter=False)
    same = [draw(family, still, x, noise=noise, seed=seed) for seed in (1, 2)]
    assert torch.equal(*same) and not torch.equal(first, same[0])


@both
def test_the_model_is_as_before_afterwards(family):
    model, x = tiny(family), large(family)
    before = draw(family, model, x)
    changed = windowed(model)
    draw(family, changed, x)
    assert torch.equal(before, draw(family, model, x))
    assert KEY not in model.model_options["transformer_options"]
    options = changed.model_options["transformer_options"]
    assert RUN not in options and OVERRIDE not in options and "patches_replace" not in options
    assert changed.clone().model_options["transformer_options"][KEY] == WindowedAttention()


@both
def test_a_second_node_replaces_the_first(family):
    model, x = tiny(family), large(family)
    twice = windowed(windowed(model, window=2.0, query_block=1.0), jitter=False)
    assert torch.equal(draw(family, twice, x), draw(family, windowed(model, jitter=False), x))
    assert len(twice.get_wrappers(WrappersMP.APPLY_MODEL, KEY)) == 1


@both
def test_start_and_end_on_the_schedule(family):
    model, x = tiny(family), large(family)
    whole, calls = counting(model)
    draw(family, whole, x, steps=4)
    plain = len(calls) // 4
    counts = []
    for part in (span(0, 0.3), span(0.7, 1), span(0, 1)):
        counted, calls = counting(model)
        draw(family, windowed(counted, span=part), x, steps=4)
        counts.append(len(calls))
    assert 4 * plain < min(counts[:2]) and max(counts[:2]) < counts[2]
    out = draw(family, windowed(model, span=span(0.999, 1.0)), x)
    assert torch.equal(out, draw(family, model, x))


def test_levels_of_sdxl_and_sd15():
    def levels(channel_mult, blocks, depth, middle):
        config = UNET | {
            "channel_mult": channel_mult,
            "num_res_blocks": [blocks] * len(channel_mult),
            "transformer_depth": [d for d in depth for _ in range(blocks)],
            "transformer_depth_output": [d for d in depth for _ in range(blocks + 1)],
            "transformer_depth_middle": middle,
        }
        found = network_of(tiny(dataclasses.replace(SD, unet=config)).model).levels
        return {level: sorted(k for k, v in found.items() if v == level) for level in range(4)}

    sdxl = levels([1, 2, 4], 2, [0, 1, 1], 1)
    assert sdxl[0] == sdxl[3] == []
    assert sdxl[1] == [("input", 4), ("input", 5), ("output", 3), ("output", 4), ("output", 5)]
    assert sdxl[2] == [("input", 7), ("input", 8), ("middle", 0)] + [
        ("output", i) for i in (0, 1, 2)
    ]
    sd15 = levels([1, 2, 4, 4], 2, [1, 1, 1, 0], 1)
    assert sd15[0] == [("input", 1), ("input", 2)] + [("output", i) for i in (9, 10, 11)]
    assert sd15[3] == [("middle", 0)]
