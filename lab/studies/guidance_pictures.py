"""What do the guidance nodes change? The pictures of their pages, side by side.

`python -m lab.studies.guidance_pictures`. One prompt and seed a page, drawn by the demo model at
twice its native size; below each picture's name stands what it cost, in evaluations of native size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from ..pack import Session
from ..pictures import scaled, sheet, to_image
from .pages import draw_pages

SCALE = 2
WIDTH = 384  # px of a picture on a page
Make = Callable[[Any, dict], Any]  # (MODEL, enlarged native LATENT) -> MODEL


def at_once() -> dict[str, Make]:
    """From noise at the large size."""
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import LocalViews, UpsampleViews
    from hires_fusion.sampling.span import span

    local, upsample = LocalViews(), UpsampleViews(span=span(0.0, 0.6))
    return {
        "the whole at once": lambda model, _: model,
        "with Upsample Guidance": lambda model, _: add_views(model, upsample=upsample),
        "windows": lambda model, _: add_views(model, local=local),
        "windows with Upsample Guidance": lambda model, _: add_views(
            model, local=local, upsample=upsample
        ),
    }


def structure() -> dict[str, Make]:
    """From the enlarged native picture, noised to 0.2 of the schedule."""
    from hires_fusion.fusion_ops.bands import LowPass
    from hires_fusion.sampling.prediction import structure_guidance
    from hires_fusion.sampling.span import span

    haar, early = LowPass("haar", 0.5), span(0.0, 0.6)
    return {
        "drawn again": lambda model, _: model,
        "scalediff, 0.125": lambda model, latent: structure_guidance(model, latent),
        "scalediff, 0.25": lambda model, latent: structure_guidance(
            model, latent, band=LowPass("resize", 0.25)
        ),
        "constant, haar 0.5, to 0.6": lambda model, latent: structure_guidance(
            model, latent, schedule="constant", band=haar, span=early
        ),
    }


def frequency() -> dict[str, Make]:
    """From the enlarged native picture, noised to 0.6 of the schedule."""
    from hires_fusion.sampling.prediction import frequency_guidance

    return {
        "cfg 5": lambda model, _: model,
        "cfg 5, detail 15": lambda model, _: frequency_guidance(model, -1, 15.0),
        "cfg 5, detail 35": lambda model, _: frequency_guidance(model, -1, 35.0),
        "cfg 15": lambda model, _: frequency_guidance(model, 15.0, 15.0),
    }


def interval() -> dict[str, Make]:
    """From noise at the native size."""
    from hires_fusion.sampling.prediction import guidance_interval
    from hires_fusion.sampling.span import span

    return {
        "cfg everywhere": lambda model, _: model,
        "0 to 0.8": lambda model, _: guidance_interval(model, span(0.0, 0.8)),
        "0 to 0.5": lambda model, _: guidance_interval(model, span(0.0, 0.5)),
        "0.2 to 0.8": lambda model, _: guidance_interval(model, span(0.2, 0.8)),
    }


# Page -> (its rows, prompt, seed, share of the schedule that is skipped, None for from noise).
PICTURES: dict[str, tuple[Callable[[], dict[str, Make]], str, int, float | None]] = {
    "upsample_guidance": (at_once, "a red balloon over green hills at noon", 901, None),
    "structure_guidance": (structure, "a red lighthouse on a rocky coast at night", 105, 0.2),
    "frequency_guidance": (frequency, "a red lighthouse on a rocky coast at night", 105, 0.6),
    "guidance_interval": (interval, "a blue sailing boat on a calm sea at sunset", 903, None),
}


def draw(session: Session, name: str) -> Image.Image:
    """The picture of one page."""
    from hires_fusion.sampling.lift import upsample

    rows, prompt, seed, start = PICTURES[name]
    native = torch.zeros(1, 4, session.native, session.native)
    scale = 1 if name == "guidance_interval" else SCALE
    size = (session.native * scale, session.native * scale)
    latent = {"samples": torch.zeros(1, 4, *size)}
    if start is not None:
        drawn = {"samples": session.sample(prompt, native, seed)}
        latent = upsample(drawn, size, "pixel bicubic", session.vae)
    cells = []
    for label, make in rows().items():
        before = session.cells
        model = make(session.model, latent)
        out = session.sample(prompt, latent["samples"], seed + 5, model, start=start or 0.0)
        cost = (session.cells - before) / session.native**2
        picture = to_image(session.decode(out))
        cells.append((f"{label}: {cost:.0f}", scaled(picture, WIDTH)))
    return sheet(cells, 2)


def prepare() -> Callable[[str], Image.Image]:
    """The model, for all pages."""
    session = Session()
    return lambda name: draw(session, name)


if __name__ == "__main__":
    draw_pages(__doc__.split("\n")[0], PICTURES, prepare)
