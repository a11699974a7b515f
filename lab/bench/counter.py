"""Count the focal objects in a picture: which kind, which colour, where.

A small convolutional net looks at the picture reduced to 256 px. On a grid of 4 px cells it marks
the kind and the colour of what each cell belongs to, and the *core* of each object (the middle half
of its box). Cores do not touch where objects do, so connected cores are counted, and each takes the
object cells nearest to it. A model draws less cleanly than the renderer that the net learned from,
and leaves the bands of a lighthouse or the sails of a boat apart: so what has one colour and lies
close together is joined. Objects of one colour that touch are therefore counted as one.

`python -m lab.training.train_counter` trains it, `python -m lab.bench.counter_accuracy` tells how
often it is right.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from ..scenes.words import COLOURS, KINDS

WEIGHTS = Path(__file__).with_name("counter.safetensors")
LONG_SIDE = 256
STRIDE = 4
MIN_CORE = 1.2  # cells: the sum of the core's probabilities
MIN_AREA = 6  # cells; less is a speck, or the visible rest of a hidden object
NEAR = 0.35  # of the smaller part's size: parts of one colour that near are of one object
BAND = 0.8  # of the narrower part's width: how much bands of a tower overlap, and their distance


@dataclass(frozen=True)
class Found:
    """One object: `area` is its part of the picture, `box` its relative (x0, y0, x1, y1)."""

    kind: str
    colour: str
    area: float
    box: tuple[float, float, float, float]


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class CounterNet(nn.Module):
    """(B, 3, H, W) in 0..1 to three maps of logits on an H/4 x W/4 grid.

    Returns the kind (B, 1 + kinds, h, w; class 0 is background), the colour (B, colours, h, w) and
    the core (B, 1, h, w). H and W are multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16, 2)
        self.quarter = nn.Sequential(_block(16, 40, 2), _block(40, 40))
        self.eighth = nn.Sequential(_block(40, 64, 2), _block(64, 64), _block(64, 64))
        self.sixteenth = nn.Sequential(_block(64, 88, 2), _block(88, 88), _block(88, 88, 1, 2))
        self.down8 = nn.Conv2d(88, 64, 1)
        self.fuse8 = _block(64, 64)
        self.down4 = nn.Conv2d(64, 40, 1)
        self.fuse4 = _block(40, 48)
        self.heads = nn.Conv2d(48, 1 + len(KINDS) + len(COLOURS) + 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.quarter(self.stem(image * 4 - 2))
        b = self.eighth(a)
        c = self.sixteenth(b)
        b = self.fuse8(b + F.interpolate(self.down8(c), size=b.shape[-2:], mode="nearest"))
        a = self.fuse4(a + F.interpolate(self.down4(b), size=a.shape[-2:], mode="nearest"))
        kind, colour, core = self.heads(a).split((1 + len(KINDS), len(COLOURS), 1), 1)
        return kind, colour, core


@lru_cache(maxsize=1)
def load_counter() -> CounterNet:
    """The trained net, on the CPU; read once."""
    from safetensors.torch import load_file

    if not WEIGHTS.exists():
        raise FileNotFoundError(
            f"{WEIGHTS} is missing; make it by `python -m lab.training.train_counter`"
        )
    net = CounterNet()
    net.load_state_dict(
        {name: value.float() for name, value in load_file(WEIGHTS).items()}, strict=False
    )
    return net.eval().to(memory_format=torch.channels_last)


def reduce(images: Tensor) -> Tensor:
    """(B, 3, H, W) at 256 px on the long side, each side a multiple of 16."""
    height, width = images.shape[-2:]
    scale = LONG_SIDE / max(height, width)
    size = tuple(max(16, round(side * scale / 16) * 16) for side in (height, width))
    if size == (height, width):
        return images
    mode = {"mode": "area"} if scale < 1 else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(images, size=size, **mode)


def _read(kind: np.ndarray, colour: np.ndarray, core: np.ndarray) -> list[Found]:
    """Objects in the maps of one picture: logs (K+1, h, w) and (C, h, w), probability (h, w)."""
    height, width = core.shape
    solid = kind.argmax(0) > 0
    cores, count = ndimage.label((core > 0.5) & ndimage.binary_dilation(solid))
    weight = ndimage.sum_labels(core, cores, np.arange(1, count + 1))
    for index in np.flatnonzero(weight < MIN_CORE):
        cores[cores == index + 1] = 0
    # A cell belongs to the nearest core in the same piece; a piece without a core is too slight.
    pieces, _ = ndimage.label(solid | (cores > 0), structure=np.ones((3, 3)))
    owner = np.zeros_like(cores)
    for piece in np.unique(pieces[cores > 0]):
        inside = pieces == piece
        here = np.where(inside, cores, 0)
        near = ndimage.distance_transform_edt(
            here == 0, return_distances=False, return_indices=True
        )
        owner[inside] = here[tuple(near)][inside]
    parts = [owner == index for index in np.unique(owner[owner > 0])]
    parts = [cells for cells in parts if cells.sum() >= MIN_AREA]
    tints = [int(colour[:, cells].sum(1).argmax()) for cells in parts]
    found = []
    for cells, tint in _joined(parts, tints, pieces):
        rows, cols = np.nonzero(cells)
        which = int(kind[1:, cells].sum(1).argmax())
        box = (
            cols.min() / width,
            rows.min() / height,
            (cols.max() + 1) / width,
            (rows.max() + 1) / height,
        )
        found.append(
            Found(
                KINDS[which],
                COLOURS[tint],
                int(cells.sum()) / (height * width),
                tuple(float(side) for side in box),
            )
        )
    return sorted(found, key=lambda item: -item.area)


def _joined(
    parts: list[np.ndarray], tints: list[int], pieces: np.ndarray
) -> list[tuple[np.ndarray, int]]:
    """Parts of one colour joined to the objects that they are parts of: (cells, colour)."""
    objects = list(zip(parts, tints, strict=True))
    pairs = True
    while pairs:
        pairs = [
            (i, j)
            for (i, a), (j, b) in itertools.combinations(enumerate(objects), 2)
            if a[1] == b[1] and _belong_together(a[0], b[0], pieces)
        ]
        if pairs:
            i, j = pairs[0]
            objects[i] = (objects[i][0] | objects[j][0], objects[i][1])
            objects.pop(j)
    return objects


def _belong_together(a: np.ndarray, b: np.ndarray, pieces: np.ndarray) -> bool:
    """In one piece, closer than NEAR of their size, or one above the other like a tower's bands."""
    if np.intersect1d(pieces[a], pieces[b]).size:
        return True
    gap = ndimage.distance_transform_cdt(~a)[b].min() - 1
    if gap <= NEAR * min(a.sum(), b.sum()) ** 0.5:
        return True
    (rows_a, cols_a), (rows_b, cols_b) = (
        ndimage.find_objects(part.astype(int))[0] for part in (a, b)
    )
    widths = [cols.stop - cols.start for cols in (cols_a, cols_b)]
    shared = min(cols_a.stop, cols_b.stop) - max(cols_a.start, cols_b.start)
    above = max(rows_a.start, rows_b.start) - min(rows_a.stop, rows_b.stop)
    alike = min(widths) >= 0.4 * max(widths) and shared >= BAND * min(widths)
    return alike and above <= BAND * min(widths)


@torch.inference_mode()
def count_objects(images: Tensor, net: CounterNet | None = None) -> list[list[Found]]:
    """The focal objects in each of `images` (B, 3, H, W) in 0..1, of any size; largest first."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images must be (B, 3, H, W), not {tuple(images.shape)}; "
            "a ComfyUI IMAGE needs movedim(-1, 1) first"
        )
    net = net or load_counter()
    result = []
    for batch in images.split(16):
        kind, colour, core = net(reduce(batch.float().clamp(0, 1).cpu()))
        maps = (kind.log_softmax(1), colour.log_softmax(1), core.sigmoid()[:, 0])
        result += [_read(*each) for each in zip(*(m.numpy() for m in maps), strict=True)]
    return result
