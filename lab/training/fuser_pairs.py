"""Triples of a base latent, its refined latent and the true one, to train and judge fusers on.

    python -m lab.training.fuser_pairs --count 384 --seed 21 --out lab/runs/pairs    # demo model
    python -m lab.training.fuser_pairs --count 256 --seed 22 --whole --out lab/runs/held_pairs
    python -m lab.training.fuser_pairs --model sdxl.safetensors --refiner refiner.safetensors \
        --images photos/ --size 1024 --steps 50 --batch 1 --out lab/runs/sdxl_pairs

A picture that is drawn from noise has no truth to come near to. So the true picture's latent is
noised to a level of the schedule (`--levels`, drawn for each picture) and the base model samples
from there: it keeps the layout that the noise has not hidden and invents the rest, as it does in
the last part of any run. The refiner then noises the base's latent to `--strength` and samples
again, as in the published pipeline. Low levels make pairs whose base is near the truth, high ones
pairs that differ from it in whole shapes.

Pictures are scenes of `lab.scenes.dataset`, or the files of `--images`, each with its caption in a
.txt of the same name (or `--prompt` for all). Writes pairs.safetensors, scaled latents, and
meta.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from ..files import write_json
from ..pack import enter, run_guider
from ..scenes.wishes import TAUGHT

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


class Model(NamedTuple):
    """One loaded checkpoint."""

    model: Any
    clip: Any
    vae: Any

    def conditioning(self, prompts: list[str]) -> list:
        """CONDITIONING of a batch, one prompt a picture."""
        parts = [self.clip.encode_from_tokens(self.clip.tokenize(p), True) for p in prompts]
        if len({cond.shape for cond, _ in parts}) > 1:
            raise ValueError("prompts of different lengths can't share a batch: use --batch 1")
        cond, pooled = (torch.cat(part) for part in zip(*parts, strict=True))
        return [[cond, {"pooled_output": pooled}]]

    def scaled(self, latent: Tensor) -> Tensor:
        """A LATENT's samples in the model's own space."""
        return self.model.model.process_latent_in(latent)


def load(name: str, variant: str) -> Model:
    """The demo model's "base" or "refiner", or a checkpoint file."""
    if name == "demo":
        from hires_fusion.demo.loader import load_demo_model

        return Model(*load_demo_model(variant=variant))
    import comfy.sd

    return Model(*comfy.sd.load_checkpoint_guess_config(name, output_vae=True)[:3])


def again(model: Model, prompts: list[str], latent: Tensor, noise: Tensor, share: float,
          args: argparse.Namespace) -> Tensor:  # fmt: skip
    """Image to image: noise LATENT samples to `share` of the schedule and sample from there."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model.model)
    guider.set_conds(model.conditioning(prompts), model.conditioning([""] * len(prompts)))
    guider.set_cfg(args.cfg)
    sampling = model.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, args.scheduler, args.steps)
    sigmas = sigmas[-(max(1, int(args.steps * share)) + 1) :]
    sampler = comfy.samplers.sampler_object(args.sampler)
    return run_guider(guider, noise, latent, sampler, sigmas)


def scenes(args: argparse.Namespace) -> list[tuple[np.ndarray, dict]]:
    """Rendered scenes with meta data; with --whole only whole ones that show their object."""
    from ..scenes.dataset import sample

    found, number = [], 0
    with tqdm(total=args.count, desc="scenes", mininterval=10) as bar:
        while len(found) < args.count:
            picture, meta = sample(args.seed * 10_000_000 + number, args.size, TAUGHT)
            number += 1
            if not args.whole or (not meta["crop"] and meta["kind"]):
                found.append((picture, meta))
                bar.update()
    return found


def files(args: argparse.Namespace) -> list[tuple[np.ndarray, dict]]:
    """Pictures of a folder, cut to a square of --size, with their captions."""
    paths = sorted(p for p in Path(args.images).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no pictures ({', '.join(sorted(SUFFIXES))}) in {args.images}")
    found = []
    for path in paths[: args.count]:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        image = ImageOps.fit(image, (args.size, args.size), Image.Resampling.LANCZOS)
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8").strip() if text.exists() else args.prompt
        found.append((np.asarray(image), {"caption": caption, "file": path.name}))
    return found


def two_noises(shape: torch.Size, seed: int, number: int) -> Tensor:
    """(2, C, h, w) of one picture, whatever its batch."""
    generator = torch.Generator().manual_seed(seed * 10_000_000 + number)
    return torch.randn((2, *shape), generator=generator)


@torch.inference_mode()
def make(args: argparse.Namespace) -> tuple[dict[str, Tensor], list[dict], str]:
    """The triples, each (N, C, h, w) in scaled space, what is known of each, the latent format."""
    base, refiner = load(args.model, "base"), load(args.refiner, "refiner")
    pictures = files(args) if args.images else scenes(args)
    draw = np.random.default_rng(args.seed)
    # One level a batch, as all of a batch share their sigmas.
    starts = range(0, len(pictures), args.batch)
    levels = [float(draw.choice(args.levels)) for _ in starts]
    triples: dict[str, list[Tensor]] = {"true": [], "base": [], "refined": []}
    for start, level in tqdm(list(zip(starts, levels, strict=True)), mininterval=10):
        part = pictures[start : start + args.batch]
        pixels = torch.from_numpy(np.stack([p for p, _ in part])).float() / 255
        prompts = [meta["caption"] for _, meta in part]
        true = base.vae.encode(pixels)
        seeds = range(start, start + len(part))
        noises = torch.stack([two_noises(true.shape[1:], args.seed, seed) for seed in seeds])
        drawn = again(base, prompts, true, noises[:, 0], level, args)
        refined = again(refiner, prompts, drawn, noises[:, 1], args.strength, args)
        for name, latent in (("true", true), ("base", drawn), ("refined", refined)):
            triples[name].append(base.scaled(latent).float().cpu())
        for _, meta in part:
            meta["level"] = level
    joined = {name: torch.cat(parts) for name, parts in triples.items()}
    kind = type(base.model.model.latent_format).__name__
    return joined, [meta for _, meta in pictures], kind


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default="demo", help="checkpoint file of the base model")
    p.add_argument("--refiner", default="demo", help="checkpoint file of the refiner")
    p.add_argument("--images", help="folder of pictures instead of scenes")
    p.add_argument("--prompt", default="a photo", help="for pictures without a .txt")
    p.add_argument("--count", type=int, default=384)
    p.add_argument("--seed", type=int, default=21, help="of scenes and noise")
    p.add_argument("--whole", action="store_true", help="only whole scenes, to count objects in")
    p.add_argument("--size", type=int, default=256, help="pixels of a side")
    p.add_argument("--levels", type=float, nargs="+", default=[0.3, 0.5, 0.7],
                   help="shares of the schedule that the base model samples")  # fmt: skip
    p.add_argument("--strength", type=float, default=0.3, help="share that the refiner samples")
    p.add_argument("--steps", type=int, default=20, help="of the whole schedule")
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--sampler", default="euler")
    p.add_argument("--scheduler", default="ddim_uniform")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", type=Path, default=Path("lab/runs/pairs"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    enter()
    from safetensors.torch import save_file

    triples, meta, latent_format = make(args)
    args.out.mkdir(parents=True, exist_ok=True)
    told = {k: str(getattr(args, k)) for k in ("model", "refiner", "strength", "steps", "cfg")}
    told |= {"latent_format": latent_format, "data": args.images or f"scenes of seed {args.seed}",
             "levels": " ".join(map(str, args.levels)), "seed": str(args.seed)}  # fmt: skip
    save_file(triples, args.out / "pairs.safetensors", told)
    (args.out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    write_json(told, args.out / "recipe.json")


if __name__ == "__main__":
    main()
