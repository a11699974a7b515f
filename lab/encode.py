"""Cache the VAE's latents of the training images.

    python -m lab.encode --data lab/runs/data --vae lab/runs/vae --out lab/runs/latents

Writes `latents.npy`, float16 (N, 8, h, w): posterior mean and standard deviation after SDXL's
scale factor, and with `--flip` `latents_flip.npy`, of the mirrored images, which training picks
up when it appears. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import models
from .train_vae import SDXL_SCALE, encode


def encode_all(model: torch.nn.Module, images: np.ndarray, path: Path, flip: bool,
               batch: int) -> None:  # fmt: skip
    """Encode every image into `path`, in order, remembering how far it came."""
    if path.exists():
        return
    device = next(model.parameters()).device
    shape = (len(images), 8, images.shape[1] // 8, images.shape[2] // 8)
    partial, progress = path.with_suffix(".part"), path.with_suffix(".progress")
    start = int(progress.read_text()) if partial.exists() and progress.exists() else 0
    out = np.lib.format.open_memmap(partial, "r+" if start else "w+", np.float16, shape)
    for i in tqdm(range(start, len(images), batch), desc=path.name, mininterval=10):
        part = images[i : i + batch]
        x = torch.from_numpy(np.ascontiguousarray(part[:, :, ::-1] if flip else part.copy()))
        x = x.permute(0, 3, 1, 2).to(device).float().div_(127.5).sub_(1)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            mean, logvar = encode(model, x)
        moments = torch.cat([mean, torch.exp(0.5 * logvar)], dim=1) * SDXL_SCALE
        out[i : i + batch] = moments.cpu().numpy()
        if i // batch % 50 == 0:
            out.flush()
            progress.write_text(str(i))
    out.flush()
    del out
    partial.rename(path)
    progress.unlink(missing_ok=True)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default="lab/runs/data")
    p.add_argument("--vae", default="lab/runs/vae")
    p.add_argument("--out", default="lab/runs/latents")
    p.add_argument("--flip", action="store_true", help="encode the mirrored images as well")
    p.add_argument("--limit", type=int, default=0, help="only so many images (0: all)")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    models.setup_host()
    torch.set_num_threads(args.threads)
    from demo.vae import build_autoencoder

    out, vae = Path(args.out), Path(args.vae)
    out.mkdir(parents=True, exist_ok=True)
    model = build_autoencoder()
    model.load_state_dict(torch.load(vae / "folded.pt", map_location="cpu", weights_only=True))
    model.to(models.pick_device(), memory_format=torch.channels_last).requires_grad_(False)
    images = models.load_images(Path(args.data))
    images = images[: args.limit] if args.limit else images
    with (Path(args.data) / "meta.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][: len(images)]
    keep = [{k: r.get(k, 0) for k in ("caption", "crop_top", "crop_left", "crop")} for r in rows]
    models.write_json(keep, out / "meta.json")
    shutil.copy(vae / "vae.json", out / "vae.json")
    encode_all(model, images, out / "latents.npy", False, args.batch)
    if args.flip:
        encode_all(model, images, out / "latents_flip.npy", True, args.batch)


if __name__ == "__main__":
    main()
