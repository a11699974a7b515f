"""What attentive guidance does to native pictures. `python -m lab.studies.attentive --seeds 32`

Contrast is the deviation of the luma, colourfulness Hasler and Suesstrunk's M (SPIE 2003), both of
0..1 pictures; the spectrum is `evaluation.spectrum`'s. Every scale is run on the same
prompts and noise. `--flow` runs the same model as a rectified flow (`lab.reference.flow`); with
`--own-space` guidance acts on the flow's own x, which the pack doesn't. `--cells 128 256 512`
measures seconds and memory of one guided step instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evaluation.spectrum import fine_share, radial_spectrum, spectrum_slope

from ..bench.counter import count_objects
from ..bench.methods import guided_sampler
from ..bench.overhead import resident
from ..bench.repetition import is_right
from ..bench.task import NATIVE
from ..pack import Session, enter
from ..pictures import sheet_of_rows, to_image
from ..scenes.wishes import wish


def colourfulness(image: Tensor) -> float:
    """Of an image (3, H, W) in 0..1."""
    red, green, blue = image
    a, b = red - green, (red + green) / 2 - blue
    spread = (a.std() ** 2 + b.std() ** 2).sqrt()
    return float(spread + 0.3 * (a.mean() ** 2 + b.mean() ** 2).sqrt())


def contrast(image: Tensor) -> float:
    """Deviation of the luma of an image (3, H, W) in 0..1."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return float((image * weights[:, None, None]).sum(0).std())


def guided(session: Session, seed: int, scale: float, own_space: bool = False) -> Tensor:
    """The native picture of a seed, (3, H, W)."""
    sampler = guided_sampler(session.steps, scale, on_own_x if own_space else None)
    empty = torch.zeros(1, 4, NATIVE, NATIVE)
    latent = session.sample(wish(seed).prompt, empty, seed, sampler=sampler)
    return session.decode(latent)[0].clamp(0, 1)


def on_own_x(plan):
    """Attentive guidance on x as the sampler holds it, for a flow too: what the pack does not."""
    from hires_fusion.fusion_ops.guidance import self_attention
    from hires_fusion.sampling.steps import Transform

    def begin(run):
        steps = plan.steps(len(run.sigmas) - 1)

        def guide(x: Tensor, step: int) -> Tensor:
            scale, _ = steps.get(step, (0.0, 1.0))
            return x + scale * (self_attention(x) - x)

        return guide

    return Transform(begin, after=True)


def costs(sides: list[int]) -> str:
    """Seconds and memory of the attention of one step, for square latents, small ones first."""
    enter()
    from hires_fusion.fusion_ops.guidance import self_attention

    lines = ["| latent, cells | seconds | memory | its attention matrix |", "|---|---|---|---|"]
    self_attention(torch.randn(1, 4, 32, 32))
    before = resident("VmHWM")
    for side in sides:
        started = time.process_time()
        self_attention(torch.randn(1, 4, side, side))
        cells = [f"{side} × {side}", f"{time.process_time() - started:.1f}"]
        cells += [f"{resident('VmHWM') - before:.0f} MiB", f"{side**4 * 4 / 2**30:g} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def facts(image: Tensor, colour: str) -> dict:
    spectrum, found = radial_spectrum(image), count_objects(image[None])[0]
    return {
        "contrast": contrast(image),
        "colourfulness": colourfulness(image),
        "slope": spectrum_slope(spectrum),
        "high": fine_share(spectrum),
        "right": is_right(found, colour),
    }


def table(results: dict[float, list[dict]]) -> str:
    """Means, and the paired change of contrast and colour against the first scale."""
    lines = [
        "| γ | contrast | colourfulness | spectrum slope | high frequencies | one right object |",
        "|---|---|---|---|---|---|",
    ]
    plain = next(iter(results.values()))
    for scale, rows in results.items():
        cells = [f"{scale:g}"]
        for fact in ("contrast", "colourfulness"):
            ratio = statistics.median(r[fact] / p[fact] for r, p in zip(rows, plain, strict=True))
            mean = statistics.mean(row[fact] for row in rows)
            cells.append(f"{mean:.4f} ({ratio - 1:+.1%})")
        cells.append(f"{statistics.mean(row['slope'] for row in rows):.2f}")
        cells.append(f"{statistics.mean(row['high'] for row in rows):.3%}")
        cells.append(f"{sum(row['right'] for row in rows)} of {len(rows)}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=int, default=32)
    p.add_argument("--first", type=int, default=3000, help="first seed")
    p.add_argument("--scales", type=float, nargs="+", default=[0, 0.002, 0.004, 0.006, 0.008])
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--flow", action="store_true", help="sample as a rectified flow")
    p.add_argument("--own-space", action="store_true", help="guide x as a flow's sampler holds it")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/attentive"))
    p.add_argument("--cells", type=int, nargs="+", help="cost of one step of latents this wide")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.cells:
        print(costs(args.cells))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    session = Session(args.steps, args.cfg)
    if args.flow:
        from ..reference.flow import as_flow

        session.model = as_flow(session.model)
    results: dict[float, list[dict]] = {}
    shown: dict[str, list[Image.Image]] = {}
    with torch.inference_mode():
        for scale in args.scales:
            seeds = range(args.first, args.first + args.seeds)
            for seed in tqdm(seeds, desc=f"γ {scale:g}"):
                image = guided(session, seed, scale, args.own_space)
                results.setdefault(scale, []).append(facts(image, wish(seed).colour))
                shown.setdefault(f"{scale:g}", []).append(to_image(image[None]))
    print(table(results))
    stem = "flow" if args.flow else "native"
    (args.out / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    few = {name: images[:8] for name, images in shown.items()}
    sheet_of_rows(few, 192).save(args.out / f"{stem}.png")


if __name__ == "__main__":
    main()
