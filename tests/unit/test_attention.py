"""Windows of self-attention: geometry by hand, and attention against a masked full one."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from hires_fusion.fusion_ops.attention import axis_windows, picture_windows, windowed_attention

SIDES = st.integers(1, 23)


def attend(q, k, v, mask=None):
    """Two heads of (B, N, heads, width)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def qkv(batch, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((3, batch, tokens, 2, 5), generator=generator, dtype=torch.float64)


def seen(windows, tokens, first=0):
    """(N, N) true where a token attends to another, said by the windows one token at a time."""
    count = len(windows.places)
    allowed = torch.ones(tokens, tokens, dtype=torch.bool)
    for token, place in enumerate(windows.places.tolist()):
        row = torch.ones(tokens, dtype=torch.bool)
        row[first : first + count] = False
        row[first + windows.keys[place // windows.queries.shape[1]]] = True
        allowed[first + token] = row
    return allowed


@pytest.mark.parametrize(
    ("length", "window", "block", "starts"),
    [
        (128, 64, 32, (0, 16, 48, 64)),  # SDXL at 2048 pixels, second level, as published
        (64, 32, 16, (0, 8, 24, 32)),
        (10, 4, 2, (0, 1, 3, 5, 6)),
        (10, 4, 3, (0, 3, 6, 6)),
        (9, 4, 4, (0, 3, 5)),
        (4, 4, 2, (0,)),
    ],
)
def test_windows_begin_where_they_should(length, window, block, starts):
    assert axis_windows(length, window, block).starts == starts


def test_a_picture_by_hand():
    windows = picture_windows((2, 3), window=2, block=1)
    assert windows.queries.tolist() == [[0, 3], [1, 4], [2, 5]]  # two rows are one window
    assert windows.keys.tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [1, 2, 4, 5]]
    assert windows.places.tolist() == [0, 2, 4, 1, 3, 5]


@given(SIDES, SIDES, st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_every_token_is_computed_once_and_sees_a_whole_window(rows, columns, window, block, seed):
    rng = random.Random(seed) if seed else None
    windows = picture_windows((rows, columns), window, block, rng)
    if window >= max(rows, columns):
        assert windows is None
        return
    count = rows * columns
    assert torch.equal(windows.queries.flatten()[windows.places], torch.arange(count))
    assert len(set(windows.places.tolist())) == count
    assert windows.keys.shape[1] == min(window, rows) * min(window, columns)
    assert windows.queries.shape[1] <= windows.keys.shape[1]
    for keys in windows.keys:
        assert len(set(keys.tolist())) == len(keys) and keys.min() >= 0 and keys.max() < count
    own = windows.keys[windows.places // windows.queries.shape[1]]
    assert (own == torch.arange(count)[:, None]).any(1).all(), "a token does not see itself"


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 6),
    st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.sampled_from([1, 2]),
)  # fmt: skip
@settings(max_examples=60)
def test_it_is_full_attention_with_a_mask(rows, columns, window, block, seed, first, after, batch):
    rng = random.Random(seed) if seed else None
    windows = picture_windows((rows, columns), window, block, rng)
    if windows is None:
        return
    tokens = first + rows * columns + after
    q, k, v = qkv(batch, tokens, seed)
    wanted = attend(q, k, v, seen(windows, tokens, first))
    assert torch.allclose(windowed_attention(attend, q, k, v, windows, first), wanted, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 0), (2, 2, 0)])
def test_masks_are_cut_with_the_windows(shape):
    batch, heads, one = shape
    windows = picture_windows((5, 7), 4, 2, random.Random(1))
    tokens = 3 + 35 + 2
    q, k, v = qkv(2, tokens)
    rows = 1 if one else tokens
    mask = torch.randn(batch, heads, rows, tokens, dtype=torch.float64)
    out = windowed_attention(attend, q, k, v, windows, 3, mask)
    dropped = torch.zeros(tokens, tokens, dtype=torch.float64)
    dropped[~seen(windows, tokens, 3)] = -torch.inf
    assert torch.allclose(out, attend(q, k, v, mask + dropped), atol=1e-12)


@pytest.mark.parametrize(("grid", "first"), [((32, 32), 0), ((20, 33), 0), ((32, 8), 11)])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_no_call_is_larger_than_a_window(grid, first, block):
    calls = []

    def count(q, k, v, mask=None):
        calls.append((len(q), q.shape[1], k.shape[1]))
        return attend(q, k, v, mask)

    windows = picture_windows(grid, 8, block, random.Random(2))
    tokens = first + grid[0] * grid[1]
    windowed_attention(count, *qkv(2, tokens), windows, first)
    assert max(q * k for _, q, k in calls) <= 64 * (64 + first)
    assert all(batch * keys <= 2 * 2 * tokens + 2 * keys for batch, _, keys in calls)
    computed = sum(batch * q for batch, q, _ in calls)
    assert computed <= 2 * tokens * 2, "more padding than picture"


def test_a_shift_costs_less_than_another_row_of_blocks():
    plain, shifted = (picture_windows((64, 64), 16, 8, rng) for rng in (None, random.Random(3)))
    assert plain.queries.numel() == 64 * 64
    assert shifted.queries.numel() <= (64 + 4 + 9) ** 2 < (64 + 16) ** 2


def test_shifts_move_the_blocks_and_reach_every_place():
    firsts = {axis_windows(64, 16, 8, random.Random(n)).first for n in range(99)}
    assert firsts == set(range(-4, 1))
    axes = [axis_windows(64, 16, 8, random.Random(n)) for n in range(99)]
    assert {axis.block for axis in axes} == {8} and {len(axis.starts) for axis in axes} == {9}


def test_what_can_be_no_window():
    with pytest.raises(ValueError, match="must be 1 or more"):
        picture_windows((4, 4), 0, 1)
