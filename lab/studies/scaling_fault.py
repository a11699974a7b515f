"""What does the scaling fault of the published DemoFusion code do to its pictures?

`python -m lab.studies.scaling_fault --seeds 8 --scale 2 --steps 6 10 20 50`

With its default Euler scheduler, the published code scales the model's input for the wrong noise
level in all batches of views but the first. The plain loop of `lab.reference.demofusion` is run on
the demo model with and without that, from the same native pictures, with the same noise and window
shifts. Reported are the focal objects that are counted, the slope of the radial power spectrum, the
share of high frequencies, and the relative difference of the latents.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evaluation.spectrum import fine_share, radial_spectrum, spectrum_slope

from ..bench.counter import count_objects
from ..bench.task import NATIVE, draw_native
from ..pack import Session
from ..pictures import save_small, sheet_of_rows, to_image
from ..reference.demofusion import phase
from ..scenes.wishes import wish

STRIDE = NATIVE // 2
NATIVE_STEPS = 25  # of the native picture, the same for all: only the phases after it are compared


def shifts(size: tuple[int, int], seed: int):
    """Random shifts of the windows by noise level, as the pack draws them."""
    from hires_fusion.fusion_ops.windows import windows

    still = windows(size, NATIVE, STRIDE)

    def draw(sigma: float) -> list[tuple[int, int]]:
        rng = random.Random(f"{seed}/{sigma:.3e}")
        moved = windows(size, NATIVE, STRIDE, rng, "zero")
        return [(a.top - b.top, a.left - b.left) for a, b in zip(moved, still, strict=True)]

    return draw


def phase_sampler(scale: int, seed: int, fault_batch: int) -> Any:
    """A SAMPLER of the host that runs the plain loop; the host conditions and guides the model."""
    from comfy.samplers import KSAMPLER

    def run(model, x, sigmas, extra_args=None, callback=None, disable=None):
        sampling = model.inner_model.inner_model.model_sampling
        times = [float(sampling.timestep(s)) / sampling.num_timesteps for s in sigmas[:-1]]

        def denoise(view: Tensor, sigma: float) -> Tensor:
            return model(view, view.new_full((len(view),), sigma), **extra_args)

        return phase(
            model.latent_image,
            model.noise,
            scale,
            sigmas.tolist(),
            times,
            denoise,
            shifts(tuple(x.shape[-2:]), seed),
            window=NATIVE,
            stride=STRIDE,
            fault_batch=fault_batch,
        )

    return KSAMPLER(run)


def upscale(
    session: Session, prompt: str, first: Tensor, seed: int, scale: int, batch: int
) -> Tensor:
    """All phases after the native latent; `batch` is the published one, 0 for no fault."""
    latent, mean, std = first, first.mean(), first.std()
    for factor in range(2, scale + 1):
        large = F.interpolate(latent, size=(NATIVE * factor, NATIVE * factor), mode="bicubic")
        sampler = phase_sampler(factor, seed + factor, batch)
        x = session.sample(prompt, large, seed + factor, sampler=sampler)
        latent = (x - x.mean()) / x.std() * std + mean
    return latent


def measure(session: Session, latent: Tensor) -> tuple[Image.Image, dict]:
    """The picture of a latent and what is counted and measured in it."""
    image = session.decode(latent).clamp(0, 1)
    found, spectrum = count_objects(image)[0], radial_spectrum(image[0])
    facts = {"slope": spectrum_slope(spectrum), "high": fine_share(spectrum)}
    return to_image(image), {"objects": len(found), **facts}


def table(rows: list[dict]) -> str:
    """The means by steps and kind as a Markdown table."""
    lines = [
        "| steps | scaling | mean objects | exactly one | spectrum slope | high frequencies "
        "| difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for steps, fault in sorted({(row["steps"], row["fault"]) for row in rows}):
        chosen = [row for row in rows if (row["steps"], row["fault"]) == (steps, fault)]

        def mean(fact: str, chosen: list[dict] = chosen) -> float:
            return statistics.mean(row[fact] for row in chosen)

        ones = sum(row["objects"] == 1 for row in chosen)
        cells = [str(steps), "as published" if fault else "right", f"{mean('objects'):.2f}"]
        cells += [f"{ones} of {len(chosen)}", f"{mean('slope'):.2f}", f"{mean('high'):.3%}"]
        cells.append(f"{mean('difference'):.1%}" if fault else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=int, default=8, help="pictures for each number of steps")
    p.add_argument("--first", type=int, default=1000, help="first seed")
    p.add_argument("--scale", type=int, default=2)
    p.add_argument("--steps", type=int, nargs="+", default=[6, 10, 20, 50])
    p.add_argument("--batch", type=int, default=4, help="view_batch_size of the published code")
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--model", type=Path, help="folder of other weights than those in demo/")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/scaling_fault"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    session = Session(NATIVE_STEPS, args.cfg, args.model)
    seeds = range(args.first, args.first + args.seeds)
    pictures: dict[str, list[Image.Image]] = {}
    rows: list[dict] = []
    with torch.inference_mode():
        firsts = {seed: draw_native(session, wish(seed).prompt, seed) for seed in seeds}
        for session.steps in args.steps:
            for seed in tqdm(seeds, desc=f"{session.steps} steps"):
                right = None
                for batch in (0, args.batch):
                    latent = upscale(
                        session, wish(seed).prompt, firsts[seed], seed, args.scale, batch
                    )
                    right = latent if right is None else right
                    image, facts = measure(session, latent)
                    kind = "as published" if batch else "right"
                    pictures.setdefault(f"{session.steps} steps, {kind}", []).append(image)
                    facts["difference"] = float((latent - right).norm() / right.norm())
                    facts |= {"steps": session.steps, "fault": bool(batch), "seed": seed}
                    rows.append(facts)
    print(table(rows))
    (args.out / f"{args.scale}x.json").write_text(json.dumps(rows, indent=1) + "\n")
    save_small(sheet_of_rows(pictures, 192), args.out / f"{args.scale}x.jpg")


if __name__ == "__main__":
    main()
