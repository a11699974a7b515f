"""What do presets and the parts of a stage draw? The pictures of their pages, side by side.

`python -m lab.studies.stage_pictures`. Prompts and seeds are the same for all cells of a page, but
for those of the model itself. A number beside a name is its cost in evaluations of native size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from ..bench.methods import bicubic, progressive
from ..bench.task import Task, draw_native
from ..pack import Session
from ..pictures import sheet, to_image
from ..scenes.wishes import wish
from .pages import Cells, draw_pages

SCALE = 2
PROMPT, SEED = "a red hot-air balloon over mountains at sunset", 101
PART = (120, 112, 440, 432)  # px of the enlarged picture
PRESETS = (
    *("HiRes Fusion best", "HiRes Fusion fast", "RepLDM", "ScaleDiff"),
    *("DiffuseHigh", "DemoFusion", "MultiDiffusion"),
)
SHARES = (1.0, 0.6, 0.3, 0.1)
FIRST, SHOWN = 2040, 8  # seeds of the model's own pictures


class Study:
    """One native picture, and what becomes of it."""

    def __init__(self, session: Session):
        self.session = session
        native = draw_native(session, PROMPT, SEED)
        self.task = Task(session, PROMPT, SEED, SCALE, native)

    def preset(self, name: str, **changes: Any) -> tuple[Image.Image, int]:
        """A preset's picture and its evaluations, those of the native picture left out."""
        before = self.session.cells
        latent = progressive(self.task, name, **changes)
        cost = (self.session.cells - before) / self.session.native**2
        return to_image(self.session.decode(latent)), round(cost)


def progressive_upscale(study: Study) -> Cells:
    """The same part of the enlarged native picture and of presets."""
    cells = [("native, enlarged", to_image(bicubic(study.task)).crop(PART))]
    for name in PRESETS:
        picture, cost = study.preset(name)
        cells.append((f"{name}: {cost}", picture.crop(PART)))
    return cells


def skip_residual(study: Study) -> Cells:
    """DemoFusion without it, and by its exponent."""
    bare, _ = study.preset("DemoFusion", skip_residual=False)
    cells = [
        ("native, enlarged", to_image(bicubic(study.task)).crop(PART)),
        ("without", bare.crop(PART)),
    ]
    for scale in (3.0, 1.0):
        picture, _ = study.preset("DemoFusion", cosine_scale_1=scale)
        cells.append((f"cosine_scale_1 {scale:g}", picture.crop(PART)))
    return cells


def match_statistics(study: Study) -> Cells:
    """A stage of much noise, as it comes out and matched with the native picture."""
    cells = [("native, enlarged", to_image(bicubic(study.task)).resize((320, 320)))]
    for name, match in (("as it comes out", False), ("matched", True)):
        picture, _ = study.preset("RepLDM", start=0.3, cfg=12.0, match=match)
        cells.append((name, picture.resize((320, 320))))
    return cells


def diffuse_latent(study: Study) -> Cells:
    """The native picture noised to places of the schedule, decoded."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    from hires_fusion.fusion_ops.schedule import end_of_schedule
    from hires_fusion.sampling.lift import diffuse

    session, steps = study.session, study.session.steps
    sampling = session.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
    latent, cells = {"samples": study.task.native}, []
    for share in reversed(SHARES):
        first = end_of_schedule(sigmas, steps, 1 - share)[0]
        noisy = diffuse(session.model, latent, Noise_RandomNoise(SEED), first)["samples"]
        picture = to_image(session.decode(noisy / (1 + first**2) ** 0.5))
        cells.append((f"denoise {share:g}: sigma {first:.2f}", picture))
    return cells


def load_demo_model(study: Study) -> Cells:
    """What the demo model knows, at its native size: eight seeds in a row."""
    cells = []
    for seed in range(FIRST, FIRST + SHOWN):
        prompt = wish(seed).prompt
        latent = draw_native(study.session, prompt, seed)
        cells.append((prompt, to_image(study.session.decode(latent))))
    return cells


PICTURES: dict[str, Callable[[Study], Cells]] = {
    f.__name__: f
    for f in (progressive_upscale, skip_residual, match_statistics, diffuse_latent, load_demo_model)
}


def prepare() -> Callable[[str], Image.Image]:
    """The model, and one native picture for all pages."""
    study = Study(Session(steps=20, cfg=4.0))

    def draw(name: str) -> Image.Image:
        cells = PICTURES[name](study)
        return sheet(cells, 3 if len(cells) == 3 else 4)

    return draw


if __name__ == "__main__":
    draw_pages(__doc__.split("\n")[0], PICTURES, prepare, 120_000)
