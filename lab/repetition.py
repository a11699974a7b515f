"""How many focal objects does each method draw? `python -m lab.repetition --seeds 16 --scale 3`

Every prompt asks for exactly one object, so each further one is the failure that this project is
about. `--native 64` counts the demo model's own pictures at its native size instead. Pictures are
kept in `--out`, and counted again but not drawn again by the next call: remove them after a change
of the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from .counter import Found, count_objects
from .pack import Session
from .scenes import COLOURS, SETTINGS_OF_KIND, TIMES, prompt

NATIVE = 32  # cells
KINDS = ("balloon", "boat", "lighthouse")  # what the demo model was taught


def ask(seed: int) -> tuple[str, str, str]:
    """(kind, colour, prompt) of a seed: kinds and colours take turns, the rest is drawn."""
    rng = np.random.default_rng(seed)
    kind, colour = KINDS[seed % len(KINDS)], COLOURS[seed % len(COLOURS)]
    setting, hour = rng.choice(SETTINGS_OF_KIND[kind]), rng.choice(TIMES)
    return kind, colour, prompt(kind, colour, str(setting), str(hour))


def empty(session: Session, scale: int) -> Tensor:
    """An empty latent so many times the native size."""
    side = session.native * scale
    return torch.zeros(1, 4, side, side)


def direct(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """The large picture at once, as the stock sampler does it."""
    return session.sample(prompt, empty(session, scale), seed)


def multidiffusion(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """Windows alone, arXiv 2302.08113."""
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import LocalViews

    model = add_views(session.model, local=LocalViews(jitter=False))
    return session.sample(prompt, empty(session, scale), seed, model)


def demofusion(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """The DemoFusion preset from the native picture of the same seed."""
    import comfy.samplers

    from hires_fusion.fusion_ops.filters import match_statistics
    from hires_fusion.fusion_ops.stages import plan_stages, stage_size
    from hires_fusion.fusion_ops.upsample import resize
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import DilatedViews, LocalViews
    from hires_fusion.sampling.steps import between_steps
    from hires_fusion.sampling.transforms import skip_residual

    native = latent = session.sample(prompt, empty(session, 1), seed)
    for number, stage in enumerate(plan_stages("DemoFusion", scale), 2):
        model = add_views(
            session.model, local=LocalViews(stride=stage.stride_cells(session.native))
        )
        model = add_views(
            model,
            dilated=DilatedViews(0, stage.cosine_scale_2, stage.cosine_scale_3, stage.sigma),
        )
        euler = comfy.samplers.sampler_object("euler")
        sampler = between_steps(euler, skip_residual(stage.cosine_scale_1))
        size = stage_size((session.native, session.native), stage.scale)
        lifted = resize(latent, size)
        latent = session.sample(prompt, lifted, seed + number, model, sampler)
        latent = match_statistics(latent, native)
    return latent


Method = Callable[[Session, str, int, int], Tensor]
METHODS: dict[str, Method] = {
    "direct": direct,
    "MultiDiffusion": multidiffusion,
    "DemoFusion": demofusion,
}


def native(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """The model's own size."""
    return session.sample(prompt, empty(session, 1), seed)


def is_right(found: list[Found], colour: str) -> bool:
    """One object, in the colour that was asked for."""
    return len(found) == 1 and found[0].colour == colour


def picture(
    session: Session, method: Method, seed: int, scale: int, kept: Path | None
) -> Image.Image:
    """One picture, with the seconds it took in its text; taken from `kept` if that exists."""
    if kept and kept.exists():
        return Image.open(kept)
    started = time.time()
    with torch.inference_mode():
        image = session.decode(method(session, ask(seed)[2], seed, scale))[0]
    out = Image.fromarray((image.movedim(0, -1).numpy() * 255).round().astype(np.uint8))
    out.info["seconds"] = f"{time.time() - started:.2f}"
    if kept:
        text = PngInfo()
        text.add_text("seconds", out.info["seconds"])
        out.save(kept, pnginfo=text)
    return out


def draw(
    session: Session, method: Method, seeds: range, scale: int, keep: Path | None = None
) -> Iterator[tuple[Image.Image, dict]]:
    """Pictures of one method with what was asked for and found, one per seed.

    With `keep` they are kept in that folder, and those already there are only counted again.
    """
    for seed in seeds:
        _, colour, text = ask(seed)
        image = picture(session, method, seed, scale, keep and keep / f"{seed}.png")
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
        found = count_objects(pixels.movedim(-1, 0)[None])[0]
        yield (
            image,
            {
                "seed": seed,
                "prompt": text,
                "objects": len(found),
                "found": [f"{f.colour} {f.kind}" for f in found],
                "one": len(found) == 1,
                "right": is_right(found, colour),
                "seconds": float(image.info["seconds"]),
            },
        )


def sheet(rows: dict[str, list[Image.Image]], side: int) -> Image.Image:
    """One row of pictures per method, labelled."""
    columns = max(map(len, rows.values()))
    out = Image.new("RGB", (columns * side, len(rows) * (side + 18)), "white")
    pen = ImageDraw.Draw(out)
    for r, (name, images) in enumerate(rows.items()):
        pen.text((4, r * (side + 18) + 3), name, fill="black")
        for c, image in enumerate(images):
            small = image.resize((side, side), Image.Resampling.LANCZOS)
            out.paste(small, (c * side, r * (side + 18) + 18))
    return out


def table(results: dict[str, list[dict]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| method | pictures | exactly one object | the right colour | mean objects | median s |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        cells = [name, str(len(rows))]
        for fact in ("one", "right"):
            hits = sum(row[fact] for row in rows)
            cells.append(f"{hits} ({hits / len(rows):.0%})")
        cells.append(f"{statistics.mean(row['objects'] for row in rows):.2f}")
        cells.append(f"{statistics.median(row['seconds'] for row in rows):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=int, default=16, help="pictures per method")
    p.add_argument("--first", type=int, default=1000, help="first seed")
    p.add_argument("--scale", type=int, default=3)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--native", type=int, default=0, help="count so many native pictures instead")
    p.add_argument("--model", type=Path, help="folder of other weights than those in demo/")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/repetition"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    session = Session(args.steps, args.cfg, args.model)
    methods = {"native": native} if args.native else METHODS
    seeds = range(args.first, args.first + (args.native or args.seeds))
    stem = "native" if args.native else f"{args.scale}x"
    pictures: dict[str, list[Image.Image]] = {name: [] for name in methods}
    results: dict[str, list[dict]] = {name: [] for name in methods}
    for name, method in methods.items():
        keep = args.out / f"{stem}_{name}"
        keep.mkdir(exist_ok=True)
        drawn = draw(session, method, seeds, args.scale, keep)
        for image, row in tqdm(drawn, desc=name, total=len(seeds)):
            pictures[name].append(image)
            results[name].append(row)
    print(table(results))
    (args.out / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    if args.native:
        shown = pictures["native"]
        pictures = {f"seeds {args.first + i}..": shown[i : i + 8] for i in range(0, len(shown), 8)}
    sheet(pictures, 192).save(args.out / f"{stem}.png")


if __name__ == "__main__":
    main()
