"""An oracle for what views are given: two native pictures side by side.

Windows that don't overlap must give what the plain host gives for each half with that half's
conditioning.
"""

from __future__ import annotations

import torch

from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import DilatedViews, LocalViews

from .stub import cond, sample

NATIVE = 16
CANVAS = (NATIVE, 2 * NATIVE)
HALVES = (slice(0, NATIVE), slice(NATIVE, None))
LATTICES = DilatedViews(factor=2, cosine_scale_2=0, sigma=1e-3)  # no windows, no blur


def noise(height, width, seed=3):
    return torch.randn((1, 4, height, width), generator=torch.Generator().manual_seed(seed))


def assert_halves(model, conds, steps=2, **options):
    """`conds(columns)` makes the positive CONDITIONING of a range of the canvas' columns."""
    tiled = add_views(model, local=LocalViews(stride=NATIVE, jitter=False))
    start, empty = noise(*CANVAS), torch.zeros(1, 4, *CANVAS)
    settings = {"steps": steps, "cfg": 2.0, "negative": cond(-1.0), **options}
    negative = settings.pop("negative")
    full = sample(
        tiled,
        empty,
        noise=start,
        positive=conds(slice(None)),
        negative=negative(slice(None)) if callable(negative) else negative,
        **settings,
    )
    halves = [
        sample(
            model,
            empty[..., half],
            noise=start[..., half].clone(),
            positive=conds(half),
            negative=negative(half) if callable(negative) else negative,
            **settings,
        )
        for half in HALVES
    ]
    expected = torch.cat(halves, dim=-1)
    assert (halves[0] - halves[1]).abs().max() > 1e-3 * expected.abs().max()
    assert (full - expected).abs().max() <= 1e-4 * expected.abs().max()
