"""What windowed attention costs against full attention. `python -m lab.studies.windowed_attention`

Work: one evaluation of SDXL's network at several sizes, counted by torch on the meta device, so no
number is computed. Time: one evaluation of the demo model on the CPU, full and windowed in turn,
with the median of the ratios. Pictures, with `--seeds`: the native picture enlarged as pixels,
noised to `--start` of the schedule and sampled again as a whole, with each kind of attention;
objects beyond the first, fidelity to the native picture, gradients across the borders that blocks
have without jitter against those beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from evaluation.spectrum import fine_share, radial_spectrum

from ..bench.counter import count_objects
from ..bench.flops import FAMILIES, Network
from ..bench.measures import fidelity, seam_score
from ..bench.task import draw_native
from ..pack import Session
from ..pictures import sheet_of_rows, to_image
from ..scenes.wishes import wish

SIZES = (1024, 1536, 2048, 3072, 4096)


def table_of_work() -> None:
    network = Network(FAMILIES["SDXL"])
    from hires_fusion.sampling.attention import WindowedAttention

    print(
        "| picture | full | windowed | with jitter | window 2 | attention alone, full | windowed |"
    )
    print("|---|---|---|---|---|---|---|")
    for pixels in SIZES:
        side = pixels // 8
        full = network.work(side, side)
        still, moved, wide = (
            network.work(side, side, WindowedAttention(window=window, jitter=jitter))
            for window, jitter in ((1.0, False), (1.0, True), (2.0, False))
        )
        counts = (full.all, still.all, moved.all, wide.all, full.attention, still.attention)
        row = " | ".join(f"{n / 1e12:.1f}" for n in counts)
        print(f"| {pixels} | {row} |", flush=True)


def table_of_time(scales: list[int], rounds: int) -> None:
    session = Session(steps=1)
    from hires_fusion.sampling.attention import WindowedAttention, add_windowed_attention

    windowed = add_windowed_attention(session.model, WindowedAttention())
    print("| canvas | full | windowed | ratio |\n|---|---|---|---|")
    for scale in scales:
        cells = session.native * scale
        empty = torch.zeros(1, 4, cells, cells)
        took: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds + 1):
            for changed, model in ((False, session.model), (True, windowed)):
                started = time.perf_counter()
                session.sample("a castle", empty, 7, model)
                took[changed].append(time.perf_counter() - started)
        full, cut = (took[changed][1:] for changed in (False, True))  # the first round warms up
        ratio = statistics.median(b / a for a, b in zip(full, cut, strict=True))
        times = [statistics.median(found) for found in (full, cut)]
        print(
            f"| {cells} × {cells} | {times[0]:.2f} s | {times[1]:.2f} s | {ratio:.2f} |", flush=True
        )


def models(session: Session) -> dict[str, Any]:
    """What is compared in pictures."""
    from hires_fusion.sampling.attention import WindowedAttention, add_windowed_attention
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import LocalViews

    def windowed(**settings: Any) -> Any:
        return add_windowed_attention(session.model, WindowedAttention(**settings))

    return {
        "full": session.model,
        "windowed": windowed(),
        "without jitter": windowed(jitter=False),
        "blocks as windows, without jitter": windowed(query_block=1.0, jitter=False),
        "windows of 2": windowed(window=2.0),
        "Tiled Diffusion": add_views(session.model, local=LocalViews()),
    }


def table_of_pictures(
    seeds: range, scale: int, start: float, only: list[str] | None, out: Path
) -> None:
    session = Session()
    from hires_fusion.sampling.lift import upsample

    side = session.native * scale
    borders = list(range(session.native // 2, side, session.native // 2))
    rows: dict[str, list[tuple[float, ...]]] = {}
    shown: dict[str, list[Image.Image]] = {}
    for seed in tqdm(seeds):
        prompt = wish(seed).prompt
        native = draw_native(session, prompt, seed)
        lifted = upsample({"samples": native}, (side, side), "pixel bicubic", session.vae)
        small = session.decode(native).clamp(0, 1)
        for name, model in models(session).items():
            if only and name not in only:
                continue
            started = time.perf_counter()
            latent = session.sample(prompt, lifted["samples"], seed, model, start=start)
            took = time.perf_counter() - started
            picture = session.decode(latent).clamp(0, 1)
            objects = len(count_objects(picture)[0])
            spectrum = fine_share(radial_spectrum(picture[0]))
            facts = (max(objects - 1, 0), fidelity(picture, small), seam_score(picture, borders))
            rows.setdefault(name, []).append((*facts, spectrum, took))
            shown.setdefault(name, []).append(to_image(picture))
    print("| attention | excess objects | PSNR | borders | fine share | median s |")
    print("|---|---|---|---|---|---|")
    for name, found in rows.items():
        excess, psnr, seam, fine, took = zip(*found, strict=True)
        means = [statistics.mean(part) for part in (excess, psnr, seam)]
        cells = [f"{n:.2f}" for n in means] + [f"{statistics.mean(fine):.3%}"]
        print(f"| {name} | {' | '.join(cells)} | {statistics.median(took):.1f} |")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{scale}x.json").write_text(json.dumps(rows, indent=1) + "\n")
    sheet_of_rows({name: images[:6] for name, images in shown.items()}, 384).save(
        out / f"{scale}x.png"
    )


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--scales", type=int, nargs="*", default=[4, 8])
    p.add_argument("--seeds", type=int, default=0, help="draw so many pictures of each instead")
    p.add_argument("--first", type=int, default=6000, help="first seed")
    p.add_argument("--scale", type=int, default=3)
    p.add_argument("--start", type=float, default=0.4)
    p.add_argument("--only", nargs="+", help="names of the table to draw, all by default")
    p.add_argument("--out", type=Path, default=Path("lab/runs/windowed_attention"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        if args.seeds:
            seeds = range(args.first, args.first + args.seeds)
            table_of_pictures(seeds, args.scale, args.start, args.only, args.out)
            return
        table_of_work()
        table_of_time(args.scales, args.rounds)


if __name__ == "__main__":
    main()
