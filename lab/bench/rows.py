"""The rows of the tournament: every preset of Progressive Upscale, and what keeps them honest.

A preset is a row by its name as soon as it is in `fusion_ops.stages.PRESETS`. The others are the
truth, the floor that the VAE sets, plain enlargement, and what most people use: enlarge, then
redraw lightly tile by tile.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import ROOT
from ..pack import enter
from ..scenes.wishes import true_render
from . import upscaler
from .methods import METHODS, bicubic, preset, real_esrgan
from .speed_others import fill, load_packs, node_class
from .task import CELL, NATIVE, Method, Task

TRUE, FLOOR = "true renders", "true renders through the VAE"
BICUBIC, UPSCALER = "bicubic", "Real-ESRGAN"
TILED, TILED_UPSCALER = "tiled img2img", "Real-ESRGAN + tiled img2img"
ULTIMATE = "Real-ESRGAN + UltimateSDUpscale"
DENOISE = 0.35
TILE, PADDING, FEATHER = NATIVE * CELL, 32, 8  # pixels
# Folder of packs, for the row of another pack.
PACKS = "HRF_PACKS"


def truth(task: Task) -> Tensor:
    """Another scene of the same caption than the one that methods are measured against."""
    picture = true_render(task.seed, 1, task.cells * CELL)
    return torch.from_numpy(picture).movedim(-1, 0)[None]


def through_vae(task: Task) -> Tensor:
    """`truth`, encoded and decoded: no sampler that ends in this VAE can be nearer to it."""
    session = task.session
    return session.decode(session.vae.encode(truth(task).movedim(1, -1)))


def tiles(length: int) -> list[tuple[int, int]]:
    """First pixel and end of each tile along a side; the last one is cut off by the edge."""
    return [(start, min(start + TILE, length)) for start in range(0, length, TILE)]


def feather(inner: tuple[int, int], outer: tuple[int, int]) -> Tensor:
    """(outer length,) weights: 1 in the tile, 0 beyond it, half on its border; FEATHER wide.

    Where the tile ends with what was cut out, it ends with the picture, and nothing falls.
    """
    at = torch.arange(outer[0], outer[1]) + 0.5
    inside = [
        side
        for side, falls in (
            (at - inner[0], inner[0] > outer[0]),
            (inner[1] - at, inner[1] < outer[1]),
        )
        if falls
    ]
    if not inside:
        return torch.ones_like(at)
    return (torch.stack(inside).amin(0) / (2 * FEATHER) + 0.5).clamp(0, 1)


def redrawn(task: Task, picture: Tensor) -> Tensor:
    """A large picture redrawn tile by tile, as the host's own nodes do it.

    Each tile of native size is cut out with PADDING around it, encoded, sampled by KSampler's
    rule (all the session's steps, at the end of a schedule that is 1 / DENOISE as long) under the
    whole prompt, decoded, and laid over the picture with a soft edge; the next one sees it.

    Args:
        picture: (1, 3, H, W) in 0..1, H and W multiples of CELL.
    """
    session, picture = task.session, picture.clone()
    whole = int(session.steps / DENOISE)
    start = 1 - session.steps / whole
    height, width = picture.shape[-2:]
    for rows in tiles(height):
        for columns in tiles(width):
            (top, bottom), (left, right) = outer = [
                (max(a - PADDING, 0), min(b + PADDING, end))
                for (a, b), end in ((rows, height), (columns, width))
            ]
            place = (..., slice(top, bottom), slice(left, right))
            latent = session.vae.encode(picture[place].movedim(1, -1))
            drawn = session.sample(task.prompt, latent, task.seed, start=start, steps=whole)
            share = feather(rows, outer[0])[:, None] * feather(columns, outer[1])
            picture[place] += share * (session.decode(drawn) - picture[place])
    return picture


def ultimate(task: Task) -> Tensor:
    """UltimateSDUpscale's own node on the picture that Real-ESRGAN made."""
    session = task.session
    given = {
        "upscaled_image": real_esrgan(task).movedim(1, -1),
        "model": session.model,
        "positive": session.encode(task.prompt),
        "negative": session.negative,
        "vae": session.vae,
        "seed": task.seed,
        "steps": session.steps,
        "cfg": session.cfg,
        "sampler_name": "euler",
        "scheduler": "ddim_uniform",
        "denoise": DENOISE,
        "tile_width": TILE,
        "tile_height": TILE,
    }
    found = node_class(NODE)
    picture = getattr(found(), found.FUNCTION)(**fill(found, given))[0]
    return picture.movedim(-1, 1).float().clamp(0, 1)


NODE = "UltimateSDUpscaleNoUpscale"


def rows() -> dict[str, Method]:
    """All rows by name."""
    enter()
    from hires_fusion.fusion_ops.stages import PRESETS

    return {
        TRUE: Method(truth, from_native=False, kind="truth"),
        FLOOR: Method(through_vae, from_native=False, kind="truth"),
        BICUBIC: METHODS["bicubic"],
        UPSCALER: METHODS["Real-ESRGAN"],
        TILED: Method(lambda task: redrawn(task, bicubic(task))),
        TILED_UPSCALER: Method(lambda task: redrawn(task, real_esrgan(task)), from_enlarged=True),
        ULTIMATE: Method(ultimate, from_enlarged=True),
        **{name: preset(name) for name in PRESETS},
    }


def recipes() -> dict[str, str]:
    """The numbers that each row is made by; where they change, its pictures are drawn again."""
    enter()
    from hires_fusion.fusion_ops.stages import PRESETS

    by_tiles = f"denoise {DENOISE}, tile {TILE}, padding {PADDING}, feather {FEATHER}"
    made = dict.fromkeys((TILED, TILED_UPSCALER, ULTIMATE), by_tiles)
    made |= {name: repr(preset) for name, preset in PRESETS.items()}
    return {name: made.get(name, "") for name in rows()}


def absent() -> dict[str, str]:
    """Rows that this machine can't draw, and why."""
    found = {}
    if not upscaler.is_installed():
        reason = f"Real-ESRGAN is not installed: {upscaler.REMEDY}"
        found = dict.fromkeys((UPSCALER, TILED_UPSCALER, ULTIMATE), reason)
    elif not _has_ultimate():
        found[ULTIMATE] = (
            f"the host has no node {NODE}: set {PACKS} to a folder that holds "
            "ComfyUI_UltimateSDUpscale"
        )
    return found


def _has_ultimate() -> bool:
    folder: Any = os.environ.get(PACKS)
    if not folder:
        return False
    if not (folder := Path(folder)).is_dir():
        raise ValueError(f"{PACKS} names no folder: {folder}")
    if folder.resolve() == ROOT.resolve().parent:
        raise ValueError(f"{PACKS} holds this checkout: give a folder of other packs only")
    if node_class(NODE) is None:
        load_packs([folder])
    return node_class(NODE) is not None
