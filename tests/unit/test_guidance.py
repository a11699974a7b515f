"""Attentive guidance: attention, scales and densities against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hires_fusion.fusion_ops.bands import box_low_pass
from hires_fusion.fusion_ops.guidance import (
    Guidance,
    calibrated,
    guided_steps,
    parse_density,
    self_attention,
    squared_weights,
)


def plain(x, scaling=0.0):
    """The formula as it is written, in float64: (result, attention matrix)."""
    tokens = x.double().flatten(2).mT
    scores = tokens @ tokens.mT / (scaling or math.sqrt(x.shape[1]))
    weights = scores.softmax(-1)
    return (weights @ tokens).mT.reshape(x.shape), weights


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_two_cells_by_hand():
    # Tokens (1, 0) and (0, 2), lambda 2: scores [[.5, 0], [0, 2]].
    x = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    a, b = math.exp(0.5) / (math.exp(0.5) + 1), math.exp(2) / (math.exp(2) + 1)
    expected = torch.tensor([[[[a, 1 - b]], [[2 * (1 - a), 2 * b]]]])
    assert torch.allclose(self_attention(x, attn_scaling=2.0), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (2, 4, 7, 13), (1, 16, 9, 5), (2, 4, 3, 6, 5)])
@pytest.mark.parametrize("size", [0.1, 1.0, 14.0])
@pytest.mark.parametrize("scores", [2**28, 1])
def test_attention_is_the_plain_formula(shape, size, scores):
    x = randn(*shape) * size
    frames = x.movedim(2, 1).flatten(0, 1) if len(shape) == 5 else x
    expected, weights = plain(frames)
    squared = (weights**2).sum(-1).reshape(frames.shape[0], 1, *shape[-2:])
    if len(shape) == 5:
        expected, squared = (
            y.unflatten(0, (shape[0], -1)).movedim(1, 2) for y in (expected, squared)
        )
    assert torch.allclose(self_attention(x, scores=scores).double(), expected, atol=1e-4 * size)
    assert torch.allclose(squared_weights(x, scores=scores).double(), squared, atol=1e-4)


def test_a_native_latent_of_sdxl_never_sees_its_whole_matrix():
    x = randn(1, 4, 128, 128)
    with torch.profiler.profile(profile_memory=True) as profile:
        self_attention(x)
    matrix = (128 * 128) ** 2 * 4
    largest = max(abs(event.cpu_memory_usage) for event in profile.events())
    assert largest < matrix / 8


def test_blocks_of_a_large_latent_are_small():
    x = randn(1, 4, 48, 48)
    with torch.profiler.profile(profile_memory=True) as profile:
        squared_weights(x, scores=2**22)
    assert max(abs(event.cpu_memory_usage) for event in profile.events()) <= 2**22


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("all", None),
        ("", None),
        ("0.5", [0.5]),
        ("0, .5, 1", [0, 0.5, 1]),
        ("0*2, 1*3", [0, 0, 1, 1, 1]),
        ("[0]*31+[1]*16+[0]*3", [0] * 31 + [1] * 16 + [0] * 3),
    ],
)
def test_densities_can_be_written_in_several_ways(text, numbers):
    assert parse_density(text) == numbers


@pytest.mark.parametrize("text", ["some", "2", "0;1", "1*", "-1", "0**2"])
def test_a_bad_density_says_what_to_write(text):
    with pytest.raises(ValueError, match=r"0\*31, 1\*16, 0\*3"):
        parse_density(text)


def test_published_densities():
    # Small t first: the first 3 steps off, the next 16 on, the last 31 off.
    assert guided_steps(parse_density("[0]*31+[1]*16+[0]*3"), 50) == list(range(3, 19))
    assert guided_steps(parse_density("[1]*47+[0]*3"), 50) == list(range(3, 50))


def test_parts_spread_their_steps_by_hand():
    # Two parts of 6 steps. Small t: int(6 * .5) = 3 steps, every second one from t_index 5 down,
    # 5 3 1; large t: int(6 * .34) = 2, every third one from 11 down, 11 8. Step = 11 - t_index.
    assert guided_steps([0.5, 0.34], 12) == [0, 3, 6, 8, 10]


def test_a_density_must_divide_the_steps():
    with pytest.raises(ValueError, match=r"3 numbers.*10 steps"):
        guided_steps([0, 1, 1], 10)


def test_decays_by_hand():
    def scales(**settings):
        return [scale for scale, _ in Guidance(8.0, **settings).steps(5).values()]

    assert scales() == [8, 8, 8, 8, 8]
    assert scales(decay="linear", decay_factor=1) == [8, 6, 4, 2, 0]
    assert scales(decay="linear", decay_factor=2, decay_min=1.0) == [8, 4.5, 2, 1, 1]
    assert scales(decay="exp", decay_factor=0.5) == [8, 4, 2, 1, 0.5]
    half = (1 + math.cos(math.pi / 4)) / 2
    cosine = scales(decay="cosine", decay_factor=3)
    assert cosine == pytest.approx([8, 8 * half**3, 1, 8 * (1 - half) ** 3, 0], abs=1e-12)


def test_the_decay_runs_over_the_guided_steps_only():
    plan = Guidance(6.0, skip_first=2, stop_after=5, decay="linear")
    assert plan.steps(10) == {2: (6.0, 1.0), 3: (3.0, 1.0), 4: (0.0, 1.0)}
    assert Guidance(6.0, skip_first=4, decay="cosine").steps(5) == {4: (6.0, 1.0)}


def test_filters_open():
    def shares(kind):
        return [s for _, s in Guidance(1.0, filter=kind, filter_start=0.25).steps(3).values()]

    assert shares("linear") == pytest.approx([0.25, 0.625, 1])
    assert shares("cosine") == pytest.approx([0.25, 0.625, 1])
    assert shares("exp") == pytest.approx([0.25, 0.5, 1])


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (9, 11)])
def test_the_low_pass_keeps_what_is_slow(size):
    x = randn(1, 2, *size)
    assert box_low_pass(x, 1.0) is x
    flat = torch.full((1, 1, *size), 3.0)
    assert torch.allclose(box_low_pass(flat, 0.1), flat, atol=1e-5)
    place = torch.arange(size[1]) * 2 * math.pi / size[1]
    wave = torch.cos(2 * place).expand(1, 1, *size)
    assert torch.allclose(box_low_pass(wave, 0.7), wave, atol=1e-5)  # 2 of at most 8 periods
    fast = torch.cos(4 * place).expand(1, 1, *size)
    assert box_low_pass(fast, 0.3).abs().max() < 1e-5


def test_calibration_by_hand():
    x, attended = torch.tensor(2.0), torch.tensor(3.0)
    weights = torch.tensor(0.25)
    assert calibrated(attended, x, weights, 0.5, 0) is attended
    assert float(calibrated(attended, x, weights, 0.6, 2)) == pytest.approx(
        3 / math.sqrt(0.7), rel=1e-5
    )
    power = 0.5 * 1.5**2 + 0.5 * 0.25
    assert float(calibrated(attended, x, weights, 0.5, 1)) == pytest.approx(
        3 / math.sqrt(power), rel=1e-5
    )
