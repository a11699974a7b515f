"""How often is the counter right? `python -m lab.bench.counter_accuracy`"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..scenes import Scene, random_scene, render
from .counter import LONG_SIDE, count_objects

TEST_SEED = 900_000_000  # far from those of lab.scenes.dataset and lab.training.train_counter


def soften(images: Tensor, rng: torch.Generator) -> Tensor:
    """Spoil (B, 3, H, W) in 0..1 as small autoencoders and samplers do; other draws per batch."""

    def uniform(lo: float, hi: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng) * (hi - lo) + lo

    batch, _, height, width = images.shape
    chance = uniform(0, 1, 4)
    if chance[0] < 0.35:
        scale = float(uniform(0.3, 0.9, 1))
        small = F.interpolate(images, scale_factor=scale, mode="area")
        images = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    if chance[1] < 0.35:
        sigma = float(uniform(0.4, 1.8, 1))
        reach = int(3 * sigma + 1)
        taps = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
        kernel = (taps / taps.sum()).view(1, 1, -1).repeat(3, 1, 1)
        images = F.conv2d(images, kernel[:, :, None], padding=(0, reach), groups=3)
        images = F.conv2d(images, kernel[..., None], padding=(reach, 0), groups=3)
    if chance[2] < 0.3:
        flow = F.interpolate(
            torch.randn(batch, 2, 22, 22, generator=rng),
            (height, width),
            mode="bicubic",
            align_corners=False,
        ) * float(uniform(0.3, 2.0, 1))
        base = F.affine_grid(torch.eye(2, 3).repeat(batch, 1, 1), list(images.shape), False)
        grid = base + flow.movedim(1, -1) * (2 / width)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, lift = uniform(0.85, 1.15, batch, 3, 1, 1), uniform(-0.06, 0.06, batch, 1, 1, 1)
    gain = 0.4 * gain + 0.6 * gain[:, :1]
    images = (images - 0.5) * gain + 0.5 + lift
    if chance[3] < 0.5:
        noise = torch.randn(images.shape, generator=rng)
        images = images + noise * uniform(0, 0.05, batch, 1, 1, 1)
    return images.clamp(0, 1)


def _truth(scene: Scene) -> Counter:
    return Counter((focal.kind, focal.colour) for focal in scene.objects)


def measure(count: int, crowds: int, scales: tuple[int, ...], out: Path) -> dict:
    """How often number, kinds and colours are all right, on scenes the training never saw.

    One-object scenes at each scale (1x is 256 px), clean and softened, and at 1x crowds of 0..8.
    """
    rng = torch.Generator().manual_seed(1)
    rows, wrong = [], []
    jobs = [(f"{s}x", s, count, 1) for s in scales] + [("crowd", 1, crowds, None)]
    for name, scale, samples, one in jobs:
        right = Counter()
        for index in tqdm(range(samples), desc=name, unit="image", mininterval=5):
            seed = TEST_SEED + index
            if one:
                scene = random_scene(seed)
            else:
                scene = random_scene(seed, n_objects=index % 9, object_scale=(0.25, 1.2))
            picture = render(scene, LONG_SIDE * scale, LONG_SIDE * scale).image
            image = torch.from_numpy(picture).movedim(-1, 0)[None]
            soft = soften(F.interpolate(image, LONG_SIDE, mode="area"), rng)
            for label, shown in (("clean", image), ("soft", soft)):
                found = count_objects(shown)[0]
                right[label, "number"] += len(found) == len(scene.objects)
                exact = Counter((f.kind, f.colour) for f in found) == _truth(scene)
                right[label, "exact"] += exact
                if not exact:
                    wrong.append([name, label, seed, [[f.kind, f.colour] for f in found]])
        row = {"scale": name, "samples": samples}
        for label in ("clean", "soft"):
            row |= {f"{label}_{what}": right[label, what] / samples for what in ("number", "exact")}
        rows.append(row)
    print(f"{'':8}{'samples':>8}{'number':>9}{'exact':>9}{'soft: number':>14}{'exact':>9}")
    for row in rows:
        print(
            f"{row['scale']:8}{row['samples']:8d}{row['clean_number']:9.1%}"
            f"{row['clean_exact']:9.1%}{row['soft_number']:14.1%}{row['soft_exact']:9.1%}"
        )
    result = {"rows": rows, "wrong": wrong}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))
    return result


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--count", type=int, default=500, help="pictures per scale")
    p.add_argument("--crowds", type=int, default=450, help="pictures with 0..8 objects")
    p.add_argument("--scales", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--out", type=Path, default=Path("lab/runs/counter.json"))
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    measure(args.count, args.crowds, tuple(args.scales), args.out)


if __name__ == "__main__":
    main()
