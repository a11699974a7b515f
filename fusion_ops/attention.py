"""Self-attention of a picture in windows: ScaleDiff's neighbourhood patch attention.

Source: ScaleDiff, arXiv 2510.25818. The queries of a picture are cut into blocks that do not
overlap, and each block attends to one window of keys and values around it. The work grows with
the picture's area, where that of full attention grows with its square. Sizes are in tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# (q, k, v, mask) with (B, tokens, ...) each -> (B, tokens of q, ...)
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

# Keys that one call may gather, in pictures: windows overlap, and copies of all would be several.
COPIES = 2


class Axis(NamedTuple):
    """Blocks of queries and windows of keys along one axis.

    Attributes:
        first: where the first block begins, 0 or less.
        block: length of every block; the last one may end outside.
        window: length of every window, `block` or more, all inside the axis.
        starts: where each block's window begins.
    """

    first: int
    block: int
    window: int
    starts: tuple[int, ...]


def axis_windows(length: int, window: int, block: int, rng: random.Random | None = None) -> Axis:
    """Cut an axis into blocks, and centre a window on each: clamp(start - margin, 0, end).

    Args:
        length: of the axis.
        window: length of the windows; an axis that is not longer is one block with one window.
        block: longest block, at most the window.
        rng: shifts all blocks by up to half of one. Blocks are then a little shorter, so that as
            few as possible cover the axis at every shift.
    """
    if window >= length:
        return Axis(0, length, length, (0,))
    block = min(block, window)
    reach = block // 2 if rng else 0
    count = -(-(length + reach) // block)
    block = -(-(length + reach) // count)
    first = -rng.randint(0, reach) if rng else 0
    margin = (window - block) // 2
    places = (first + number * block - margin for number in range(count))
    return Axis(first, block, window, tuple(min(max(p, 0), length - window) for p in places))


class Windows(NamedTuple):
    """Which tokens of a picture attend to which; tokens are numbered row by row.

    Attributes:
        queries: (blocks, queries of a block); what lies outside repeats the edge.
        keys: (blocks, keys of a window).
        places: (tokens,), where in the flattened `queries` each token is computed.
    """

    queries: Tensor
    keys: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Windows:
        return Windows(*(index.to(device) for index in self))


def picture_windows(
    grid: tuple[int, int],
    window: int,
    block: int,
    rng: random.Random | None = None,
) -> Windows | None:
    """Blocks and windows of a picture; None where one window is the whole picture.

    Args:
        grid: (rows, columns) of tokens.
        window: side of a window.
        block: side of a block of queries, at most the window.
        rng: draws the shift of the blocks, one number for rows and one for columns.

    Raises:
        ValueError: a side is below 1.
    """
    if window < 1 or block < 1:
        raise ValueError(f"windows of {window} tokens in blocks of {block}: both must be 1 or more")
    if window >= max(grid):
        return None
    rows, columns = (axis_windows(length, window, block, rng) for length in grid)
    queries = _pairs(_block_indices(rows, grid[0]), _block_indices(columns, grid[1]), grid[1])
    keys = _pairs(_window_indices(rows), _window_indices(columns), grid[1])
    (row, in_row), (column, in_column) = _split(rows, grid[0]), _split(columns, grid[1])
    number = row[:, None] * len(columns.starts) + column
    inside = in_row[:, None] * columns.block + in_column
    return Windows(queries, keys, (number * rows.block * columns.block + inside).flatten())


def _block_indices(axis: Axis, length: int) -> Tensor:
    """(blocks, block), clamped to the axis."""
    starts = axis.first + axis.block * torch.arange(len(axis.starts))
    return (starts[:, None] + torch.arange(axis.block)).clamp(0, length - 1)


def _window_indices(axis: Axis) -> Tensor:
    """(blocks, window)."""
    return torch.tensor(axis.starts)[:, None] + torch.arange(axis.window)


def _pairs(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """(R, r) and (C, c) -> (R * C, r * c) numbers of tokens, row by row."""
    pairs = rows[:, None, :, None] * width + columns[None, :, None, :]
    return pairs.flatten(2).flatten(0, 1)


def _split(axis: Axis, length: int) -> tuple[Tensor, Tensor]:
    """The block of each place on the axis, and the place in it."""
    places = torch.arange(length) - axis.first
    return places // axis.block, places % axis.block


def windowed_attention(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    windows: Windows,
    first: int = 0,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention in which the picture's tokens attend in windows, and everything else to all.

    Tokens that are none of the picture (text, reference pictures, padding) are attended by all
    tokens, and attend to all.

    Args:
        attend: plain attention; gets the windows of one call on the batch axis.
        q, k, v: (B, N, ...), with the picture's tokens in one piece, row by row.
        windows: of the picture, on the same device.
        first: where the picture begins in the sequence.
        mask: (1 or B, 1 or heads, 1 or N, N), true or 0 where attention goes, or what is added
            to its logarithm.

    Returns:
        What `attend` makes of each token, (B, N, ...).
    """
    count = windows.places.shape[0]
    tokens = torch.arange(q.shape[1], device=q.device)
    others = torch.cat([tokens[:first], tokens[first + count :]])
    queries = first + windows.queries
    keys = torch.cat([others.expand(len(queries), -1), first + windows.keys], dim=1)
    parts = []
    for chosen in _calls(len(queries), COPIES * q.shape[1] // keys.shape[1]):
        picked = (_gather(q, queries[chosen]), _gather(k, keys[chosen]), _gather(v, keys[chosen]))
        out = attend(*picked, _gather_mask(mask, queries[chosen], keys[chosen], len(q)))
        parts.append(out.unflatten(0, (len(q), -1)).flatten(1, 2))
    picture = torch.cat(parts, dim=1).index_select(1, windows.places)
    if len(others) == 0:
        return picture
    rest = []
    rows = max(queries.shape[1] * keys.shape[1] // q.shape[1], 1)  # no larger than a window's
    for chosen in _calls(len(others), rows):
        own = mask[:, :, others[chosen]] if mask is not None and mask.shape[2] > 1 else mask
        rest.append(attend(q[:, others[chosen]], k, v, own))
    rest = torch.cat(rest, dim=1)
    return torch.cat([rest[:, :first], picture, rest[:, first:]], dim=1)


def _calls(count: int, most: int) -> list[slice]:
    """`count` in calls of one size, but for the last."""
    calls = -(-count // max(most, 1))
    size = -(-count // calls)
    return [slice(start, start + size) for start in range(0, count, size)]


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """x (B, N, ...) at index (blocks, n), blocks on the batch axis: (B * blocks, n, ...)."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape).flatten(0, 1)


def _gather_mask(mask: Tensor | None, queries: Tensor, keys: Tensor, batch: int) -> Tensor | None:
    """The mask of each block, (B * blocks, heads, 1 or queries, keys)."""
    if mask is None:
        return None
    if mask.shape[2] > 1:
        picked = mask[:, :, queries[:, :, None], keys[:, None, :]]
    else:
        picked = mask[:, :, :, keys].transpose(2, 3)
    picked = picked.movedim(2, 1)  # (B, blocks, heads, queries, keys)
    return picked.expand(batch, -1, -1, -1, -1).flatten(0, 1)
