"""Draw prompts with the demo model as ComfyUI would, into one labelled PNG.

python -m lab.sample_grid --out out/grid.png
python -m lab.sample_grid --prompts "a red lighthouse by a calm sea" --size 768 --seeds 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import models
from .train_unet import PROMPTS

LABEL_HEIGHT = 18


def draw(demo: tuple, prompt: str, size: int, seed: int, steps: int, cfg: float) -> Tensor:
    """One picture (size, size, 3) in [0, 1], through the host's own sampling."""
    import comfy.sample

    model, clip, vae = demo
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, "")
    )
    latent = torch.zeros(1, 4, size // 8, size // 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    samples = comfy.sample.sample(
        model, noise, steps, cfg, "dpmpp_2m", "karras", positive, negative, latent,
        seed=seed, disable_pbar=True,
    )  # fmt: skip
    return vae.decode(samples)[0].float().cpu()


def labelled(image: Tensor, text: str) -> np.ndarray:
    """The picture as uint8 with its prompt below it."""
    from PIL import Image, ImageDraw

    pixels = (image.numpy() * 255).round().astype(np.uint8)
    height, width = pixels.shape[:2]
    canvas = Image.new("RGB", (width, height + LABEL_HEIGHT), "white")
    canvas.paste(Image.fromarray(pixels), (0, 0))
    label = ImageDraw.Draw(canvas)
    while label.textlength(text) > width - 6 and len(text) > 4:
        text = text[:-4] + "..."
    label.text((3, height + 3), text, fill="black")
    return np.asarray(canvas)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default=str(models.ROOT / "demo"), help="folder of the weights")
    p.add_argument("--out", default="out/sample_grid.png")
    p.add_argument("--prompts", nargs="*", default=list(PROMPTS))
    p.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    p.add_argument("--columns", type=int, default=4)
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--cfg", type=float, default=5.0)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    models.setup_host()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        from demo.loader import load_demo_model

        demo = load_demo_model(args.model)
        cells = [
            labelled(draw(demo, prompt, args.size, seed, args.steps, args.cfg), prompt)
            for prompt in args.prompts
            for seed in range(args.seeds)
        ]
    columns = min(args.columns, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.stack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    models.save_grid(rows, Path(args.out))
    print(args.out)


if __name__ == "__main__":
    main()
