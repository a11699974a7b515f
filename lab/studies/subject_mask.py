"""How well does attention find the subject? `python -m lab.studies.subject_mask --seeds 32`

True renders, whose objects' masks are known, go through the VAE as a photograph would, and Subject
Mask looks for the object under the noise levels of each range of the schedule. AUC: how often a
cell of the object gets more than one of the rest (.5 is chance). Found: pictures in which the
object has a place. Of those: the share of the object that the mask covers, and how much of the
picture the mask is, beside the object's own share.

With `--pictures`: native pictures, enlarged as pixels and drawn again from `--start` of the
schedule through the windows of Tiled Diffusion, under the full prompt, and by place with the mask;
objects beyond the first, and fidelity to the native picture.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..bench.counter import count_objects
from ..bench.measures import fidelity
from ..bench.task import draw_native
from ..pack import Session
from ..pictures import sheet_of_rows, to_image
from ..scenes.render import render
from ..scenes.scene import random_scene
from ..scenes.wishes import wish

RANGES = ((0.0, 0.3), (0.2, 0.5), (0.35, 0.65), (0.5, 0.8), (0.6, 0.9), (0.8, 1.0))
SIDE = 256
SCENES = 9_700_000_000  # far above those of the training data


def area_under_curve(score: Tensor, truth: Tensor) -> float:
    """How often a true cell's score is above another's; ties count half."""
    inside, outside = score[truth], score[~truth]
    higher = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside).double()
    return float(higher.mean())


def true_scene(seed: int) -> tuple[Tensor, Tensor]:
    """A render (1, H, W, 3), and which of its cells are more than half object, (h, w)."""
    asked = wish(seed)
    scene = random_scene(
        SCENES + seed,
        kind=asked.kind,
        colour=asked.colour,
        setting=asked.setting,
        time=asked.time,
    )
    drawn = render(scene, SIDE, SIDE)
    cover = F.avg_pool2d(torch.from_numpy(drawn.masks[0])[None], 8)[0]
    return torch.from_numpy(drawn.image)[None], cover > 0.5


def measure(session: Session, seed: int, span: tuple[float, float], evaluations: int) -> Any:
    """(AUC, found, share of the object covered, share of the picture, the object's share)."""
    from hires_fusion.sampling import subject

    asked = wish(seed)
    image, truth = true_scene(seed)
    if not truth.any():
        return None
    tokens = subject.subject_tokens(session.clip, asked.prompt, asked.kind)
    positive = session.encode(asked.prompt)
    arguments = (session.model, session.vae.encode(image), positive, tokens, evaluations, seed)
    share = subject.read_share(*arguments, span)[0]
    found = subject.mask_of(share[None])
    covered, size = float(found.mask[0][truth].mean()), float(found.mask.mean())
    facts = (area_under_curve(share, truth), bool(found.placed[0]), covered, size)
    return (*facts, float(truth.float().mean()))


def table_of_pictures(seeds: range, scale: int, start: float, out: Path) -> None:
    session = Session()
    from hires_fusion.sampling import subject
    from hires_fusion.sampling.by_place import prompts_by_place
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.lift import upsample
    from hires_fusion.sampling.plan import LocalViews

    tiled = add_views(session.model, local=LocalViews())
    side = session.native * scale
    rows: dict[str, list[tuple[float, float]]] = {}
    shown: dict[str, list[Image.Image]] = {}
    for seed in tqdm(seeds):
        asked = wish(seed)
        native = draw_native(session, asked.prompt, seed)
        tokens = subject.subject_tokens(session.clip, asked.prompt, asked.kind)
        whole, rest = session.encode(asked.prompt), session.encode(without_subject(asked.prompt))
        found = subject.find_subject(session.model, native, whole, tokens, seed=seed)
        lifted = upsample({"samples": native}, (side, side), "pixel bicubic", session.vae)
        small = session.decode(native).clamp(0, 1)
        prompts = {"full prompt": whole, "by place": prompts_by_place(whole, rest, found.mask)}
        shown.setdefault("native", []).append(to_image(small).resize((side * 8, side * 8)))
        for name, positive in prompts.items():
            latent = session.sample(
                asked.prompt, lifted["samples"], seed, tiled, start=start, positive=positive
            )
            picture = session.decode(latent).clamp(0, 1)
            excess = max(len(count_objects(picture)[0]) - 1, 0)
            rows.setdefault(name, []).append((excess, fidelity(picture, small)))
            shown.setdefault(name, []).append(to_image(picture))
    print("| prompts | pictures | excess objects | PSNR |\n|---|---|---|---|")
    for name, found_rows in rows.items():
        excess, psnr = (statistics.mean(part) for part in zip(*found_rows, strict=True))
        print(f"| {name} | {len(found_rows)} | {excess:.2f} | {psnr:.1f} |")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{scale}x.json").write_text(json.dumps(rows, indent=1) + "\n")
    sheet_of_rows({name: images[:6] for name, images in shown.items()}, 256).save(
        out / f"{scale}x.png"
    )


def without_subject(prompt: str) -> str:
    """The caption's setting and time alone."""
    return re.split(r" (?:over|on|by|below|among) ", prompt, maxsplit=1)[-1]


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seeds", type=int, default=32)
    p.add_argument("--first", type=int, default=6200, help="first seed")
    p.add_argument("--evaluations", type=int, nargs="+", default=[1, 4])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--pictures", action="store_true", help="draw large pictures instead")
    p.add_argument("--scale", type=int, default=2)
    p.add_argument("--start", type=float, default=0.2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/subject_mask"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.pictures:
        with torch.inference_mode():
            seeds = range(args.first, args.first + args.seeds)
            table_of_pictures(seeds, args.scale, args.start, args.out)
        return
    session = Session()
    print("| evaluations | schedule | AUC | lowest | found | covered | mask | object |")
    print("|---|---|---|---|---|---|---|---|")
    for evaluations in args.evaluations:
        for span in RANGES:
            with torch.inference_mode():
                seeds = range(args.first, args.first + args.seeds)
                rows = [measure(session, seed, span, evaluations) for seed in seeds]
            rows = [row for row in rows if row]
            scores = [row[0] for row in rows]
            placed = [row for row in rows if row[1]] or rows
            means = [statistics.mean(row[i] for row in placed) for i in (2, 3, 4)]
            cells = [f"{span[0]:g} to {span[1]:g}", f"{statistics.mean(scores):.3f}"]
            cells += [f"{min(scores):.2f}", f"{sum(row[1] for row in rows)} of {len(rows)}"]
            cells += [f"{mean:.0%}" for mean in means]
            print(f"| {evaluations} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
