"""Windows that do not overlap and are shifted at random: few evaluations, no seam that stays.

SpotDiffusion, arXiv 2407.15507, for pictures that are no panoramas: in both axes, and never
around the edge. All sizes are in latent cells.
"""

from __future__ import annotations

import math
import random

from .windows import Window

GRIDS = ("overlapped", "shifted")

# Least room to shift in, as a share of a window.
ROOM = 1 / 4


def axis_grid(length: int, window: int) -> tuple[int, int, int]:
    """Windows of one axis: (their side, how many, how far they overhang in all).

    As few windows as cover the axis. Where they leave less room than a quarter of a window, as at
    every whole multiple of it, they are that little larger: by an eighth at twice a window, by a
    sixteenth at four times. A window more would cost more, and a shift around the edge would put
    two ends of the picture side by side. Sides are multiples of 4 cells where the window's is, for
    networks that halve them.
    """
    if length <= window:
        return length, 1, 0
    room = math.ceil(window * ROOM)
    even = next(step for step in (4, 2, 1) if window % step == 0 and 8 * step <= max(window, 8))
    side = max(window, math.ceil((length + room) / math.ceil(length / window) / even) * even)
    count = math.ceil((length + room) / side)
    return side, count, side * count - length


def shifted_windows(
    canvas: tuple[int, int], window: int, rng: random.Random | None = None, align: int = 1
) -> tuple[Window, ...]:
    """Windows that cover every cell of a canvas once, all of one size; row by row.

    Rows are shifted together, and the windows of each row once more by themselves. Windows at the
    edge lie over it; what they are shown is the canvas, see `windows.WindowSet`.

    Args:
        canvas: (H, W) in cells.
        window: side of a window, at least; a shorter canvas side gets windows of its own length.
        rng: draws the shifts; without, windows stand still in the middle of their room.
        align: sides and shifts are multiples of it.
    """
    lengths = [math.ceil(side / align) for side in canvas]
    rows, columns = (axis_grid(length, max(window // align, 1)) for length in lengths)

    def shift(side: int, room: int) -> int:
        # No further than leaves something of the first and of the last window on the canvas.
        least, most = max(room - side + 1, 0), min(room, side - 1)
        return rng.randint(least, most) if rng else room // 2

    # A side that is no multiple is one window's own, patch or no patch.
    size = [
        side if count == 1 else cells * align
        for side, (cells, count, _) in zip(canvas, (rows, columns), strict=True)
    ]
    found, down = [], shift(rows[0], rows[2])
    for row in range(rows[1]):
        aside = shift(columns[0], columns[2])
        for column in range(columns[1]):
            top, left = row * rows[0] - down, column * columns[0] - aside
            found.append(Window(top * align, left * align, *size))
    return tuple(found)
