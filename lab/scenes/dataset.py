"""Write training pictures with captions: `python -m lab.scenes.dataset --count 12000`.

Half are whole scenes and half are crops of 2x to 4x, each captioned by what it shows. A fifth of
the whole scenes are cut from a slightly larger picture, with the cut recorded as SDXL records it.
Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import KINDS, WHOLE, Scene, View, caption, random_scene, render, visible_share
from .render import place_object

CROP_SHARE = 0.5
OFFSET_SHARE = 0.2
MAX_OFFSET = 32  # pixels at size 256
CHUNK = 32


def crop_view(scene: Scene, rng: np.random.Generator) -> View:
    """A view of 1/4 to 1/2 of the picture's side: anywhere, or (half of them) near the object."""
    side = float(1 / np.exp(rng.uniform(np.log(2.0), np.log(4.0))))
    x, y = rng.uniform(0, 1 - side, 2)
    if rng.random() < 0.5 and scene.objects:
        x0, y0, x1, y1 = place_object(scene, scene.objects[0], 1.0).box()
        x = rng.uniform(x0, x1) + 0.5 - side / 2
        y = rng.uniform(y0, y1) - side / 2
    x, y = (float(np.clip(value, 0, 1 - side)) for value in (x, y))
    return (x, y, x + side, y + side)


def sample(seed: int, size: int, kinds: tuple[str, ...]) -> tuple[np.ndarray, dict]:
    """Picture uint8 (size, size, 3) and its meta data; the same for the same arguments."""
    rng = np.random.default_rng([seed, 104729])
    wants_crop = rng.random() < CROP_SHARE
    for attempt in range(100):
        scene = random_scene(seed + attempt * 1_000_003, kinds=kinds)
        view, top, left = WHOLE, 0, 0
        if wants_crop:
            view = crop_view(scene, rng)
        elif rng.random() < OFFSET_SHARE:
            room = round(MAX_OFFSET * size / 256)
            top, left = (int(value) for value in rng.integers(0, room + 1, 2))
            # The larger picture keeps its aspect; what is cut away on either side follows from it.
            full = size + room
            view = (left / full, top / full, (left + size) / full, (top + size) / full)
        text = caption(scene, view, rng)
        if text is not None:
            break
    else:
        raise RuntimeError(f"seed {seed}: no view of 100 could be captioned")
    picture = render(scene, size, size, view).image
    focal = scene.objects[0]
    seen = visible_share(scene, focal, view)[0] >= 0.3
    meta = {
        "caption": text,
        "seed": scene.seed,
        "view": [round(value, 6) for value in view],
        "kind": focal.kind if seen else None,
        "colour": focal.colour if seen else None,
        "setting": scene.setting,
        "time": scene.time,
        "crop": bool(wants_crop),
        "crop_top": top,
        "crop_left": left,
    }
    return (picture * 255 + 0.5).astype(np.uint8), meta


def _job(task: tuple[int, int, tuple[str, ...]]) -> tuple[np.ndarray, str]:
    image, meta = sample(*task)
    return image, json.dumps(meta)


def write(
    out: Path, count: int, size: int, seed: int, kinds: tuple[str, ...], workers: int
) -> None:
    """Fill `out` with images.npy (count, size, size, 3) uint8 and meta.jsonl, one line each."""
    out.mkdir(parents=True, exist_ok=True)
    recipe = {"count": count, "size": size, "seed": seed, "kinds": list(kinds)}
    recipe_file, images_file, meta_file = (
        out / name for name in ("recipe.json", "images.npy", "meta.jsonl")
    )
    done = 0
    shape = (count, size, size, 3)
    if recipe_file.exists() and images_file.exists():
        if json.loads(recipe_file.read_text()) != recipe:
            raise SystemExit(
                f"{out} holds another data set ({recipe_file.read_text()}); "
                "give another --out, or remove it"
            )
        images = np.lib.format.open_memmap(images_file, mode="r+")
        lines = meta_file.read_text().splitlines() if meta_file.exists() else []
        done = len(lines) // CHUNK * CHUNK if len(lines) < count else count
        meta_file.write_text("".join(line + "\n" for line in lines[:done]))
    else:
        images = np.lib.format.open_memmap(images_file, mode="w+", dtype=np.uint8, shape=shape)
        meta_file.write_text("")
        recipe_file.write_text(json.dumps(recipe))
    tasks = [(seed * 10_000_000 + index, size, kinds) for index in range(done, count)]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for the spawned workers: they are the parallelism
    pool = get_context("spawn").Pool(workers) if workers > 1 else None
    results = pool.imap(_job, tasks, CHUNK) if pool else map(_job, tasks)
    lines = []
    with meta_file.open("a") as meta, tqdm(total=count, initial=done, unit="image") as bar:
        for index, (image, line) in enumerate(results, start=done):
            images[index] = image
            lines.append(line + "\n")
            if len(lines) == CHUNK or index == count - 1:
                # Pictures first: a line in meta.jsonl promises that its picture is there.
                images.flush()
                meta.write("".join(lines))
                meta.flush()
                lines.clear()
            bar.update()
    if pool:
        pool.close()
        pool.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("lab/runs/data"))
    args = parser.parse_args()
    kinds = tuple(args.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {sorted(unknown)}; known: {', '.join(KINDS)}")
    write(args.out, args.count, args.size, args.seed, kinds, args.workers)


if __name__ == "__main__":
    main()
