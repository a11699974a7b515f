"""What do lifts, noise levels and noises change? The pictures of their pages, side by side.

`python -m lab.studies.lift_pictures`. One picture of the demo model, enlarged twice and sampled
again; every page shows the same part of it, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image

from ..pack import Session, run_guider
from ..pictures import sheet, to_image
from .pages import Cells, draw_pages

PROMPT, SEED = "a red hot-air balloon over mountains at sunset", 101
PART = (120, 112, 440, 432)  # px of the enlarged picture


class Study:
    """The native picture of one seed, and what becomes of it."""

    def __init__(self, session: Session):
        import comfy.samplers

        self.session = session
        self.guider = comfy.samplers.CFGGuider(session.model)
        self.guider.set_conds(session.encode(PROMPT), session.negative)
        self.guider.set_cfg(session.cfg)
        native = torch.zeros(1, 4, session.native, session.native)
        self.native = {"samples": session.sample(PROMPT, native, SEED)}

    def lifted(self, method: str, **options: float) -> dict:
        from hires_fusion.fusion_ops.upsample import Lift
        from hires_fusion.sampling.lift import upsample

        size = (2 * self.session.native, 2 * self.session.native)
        return upsample(self.native, size, Lift(method, **options), self.session.vae)

    def noise(self, share: float, seed: int = SEED + 1):
        """Fresh noise, or some that is found in the picture."""
        from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

        from hires_fusion.sampling.renoise import InversionNoise

        return InversionNoise(self.guider, Noise_RandomNoise(seed), share)

    def refined(self, latent: dict, sigma: float, steps: int = 8, share: float = 1.0) -> dict:
        import comfy.samplers

        from hires_fusion.sampling.renoise import renoise_sigmas

        samples = latent["samples"]
        sigmas = renoise_sigmas(self.session.model, sigma, steps, "ddim_uniform")
        drawn = self.noise(share).generate_noise(latent)
        euler = comfy.samplers.sampler_object("euler")
        return {"samples": run_guider(self.guider, drawn, samples, euler, sigmas, SEED)}

    def part(self, latent: dict) -> Image.Image:
        return to_image(self.session.decode(latent["samples"])).crop(PART)


def upsample_latent(study: Study) -> Cells:
    """The lifts alone, and below them what sampling from sigma 0.69 makes of them."""
    lifts = {
        "latent bicubic": study.lifted("latent bicubic"),
        "pixel bicubic": study.lifted("pixel bicubic"),
        "pixel lanczos, unsharp 1": study.lifted("pixel lanczos", unsharp=1.0),
        "pixel bicubic, lfm 0.125": study.lifted("pixel bicubic", lfm=0.125),
    }
    cells = [(name, study.part(latent)) for name, latent in lifts.items()]
    return cells + [
        ("sampled again", study.part(study.refined(latent, 0.69))) for latent in lifts.values()
    ]


def renoise_sigmas(study: Study) -> Cells:
    """From the lift, by the noise level."""
    latent = study.lifted("pixel bicubic")
    levels = (0.2, 0.69, 1.2)
    cells = [(f"sigma {level:g}", study.part(study.refined(latent, level))) for level in levels]
    return [("enlarged", study.part(latent)), *cells]


def inversion_noise(study: Study) -> Cells:
    """From sigma 0.69, by the share of fresh noise."""
    latent = study.lifted("pixel bicubic")
    shares = (0.0, 0.5, 1.0)
    return [("enlarged", study.part(latent))] + [
        (f"share {share:g}", study.part(study.refined(latent, 0.69, share=share)))
        for share in shares
    ]


def added_noise(study: Study) -> Cells:
    """After a pass from inverted noise, and then three more steps from sigma 0.2."""
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    from hires_fusion.sampling.renoise import added_noise as add

    first = study.refined(study.lifted("pixel bicubic"), 0.69, share=0.0)
    noisy = add(study.session.model, first, Noise_RandomNoise(SEED + 2), 0.05)
    return [
        ("one pass", study.part(first)),
        ("and a last one", study.part(study.refined(first, 0.2, 3))),
        ("std 0.05 added", study.part(noisy)),
        ("and a last pass", study.part(study.refined(noisy, 0.2, 3))),
    ]


PICTURES = {f.__name__: f for f in (upsample_latent, renoise_sigmas, inversion_noise, added_noise)}


def prepare() -> Callable[[str], Image.Image]:
    """The model, and one native picture for all pages."""
    study = Study(Session(steps=30, cfg=4.0))
    return lambda name: sheet(PICTURES[name](study), 4)


if __name__ == "__main__":
    draw_pages(__doc__.split("\n")[0], PICTURES, prepare)
