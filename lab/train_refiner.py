"""Fine-tune the demo UNet on the low-noise end: `python -m lab.train_refiner --minutes 28`.

A refiner is a model of the last steps, as SDXL's is (trained on the first 200 of 1000 timesteps).
This one begins as the demo UNet, keeps its text encoder as it is, and is trained on timesteps
below `--reach` alone, where the base's loss had little weight.

    python -m lab.train_refiner --measure --held lab/runs/held   # losses of both, per timestep
    python -m lab.train_refiner --export                         # to demo/refiner.safetensors

`--held` is a folder of `lab.dataset` with another seed than the training pictures'.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import diffusion, models
from .train_unet import DemoModel, Latents, parameter_groups

TIMESTEPS = (5, 25, 50, 100, 150, 200, 250, 300, 350, 500)


def base_model(folder: Path) -> DemoModel:
    """The demo model as shipped, in float32, with a frozen text encoder."""
    model = DemoModel()
    model.sdxl.diffusion_model.load_state_dict(load_file(folder / "unet.safetensors"))
    model.clip.load_state_dict(load_file(folder / "text_encoder.safetensors"), strict=False)
    model.clip.requires_grad_(False)
    return model


def errors(model: DemoModel, batch: tuple, t: Tensor, noise: Tensor, acp: Tensor) -> Tensor:
    """Noise prediction minus noise, (B, 4, h, w), of latents noised to timesteps t (B,)."""
    x0, tokens, sizes = batch
    a = acp[t].view(-1, 1, 1, 1)
    return model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, tokens, sizes).float() - noise


def train(args: argparse.Namespace) -> None:
    """The training loop; by the clock, from the shipped weights."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    device, out = models.pick_device(), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model = base_model(Path(args.base)).to(device)
    unet = model.sdxl.diffusion_model
    data = Latents([Path(folder) for folder in args.data], model)
    optimizer = torch.optim.AdamW(parameter_groups(unet), lr=args.lr, betas=(0.9, 0.99), fused=True)
    ema = models.Ema(unet, args.ema)
    acp = diffusion.alphas_cumprod(model.sdxl).to(device)
    started = logged = saved = time.time()
    step, seen, total = 0, [], args.minutes * 60

    def save() -> None:
        state = {"ema": ema.shadow, "step": step, "batch": args.batch, "reach": args.reach}
        models.save_atomic({**state, "elapsed": time.time() - started}, out / "checkpoint.pt")

    while (elapsed := time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr, warmup=0.04)
        batch = tuple(part.to(device) for part in data.batch(args.batch, rng))
        t = (diffusion.stratified_timesteps(args.batch, device) * args.reach).long()
        with torch.autocast(device.type, torch.bfloat16):
            difference = errors(model, batch, t, torch.randn_like(batch[0]), acp)
        shifts = difference.mean((2, 3)).square().mean()
        mse = difference.square().mean()
        loss = mse + args.low * shifts
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(unet.parameters(), 1.0)):
            optimizer.step()
            ema.update(unet, step)
        step += 1
        seen.append(mse.item())
        if time.time() - logged > args.log_every:
            rate = len(seen) * args.batch / (time.time() - logged)
            print(f"{elapsed / 60:.1f} min  step {step}  mse {np.mean(seen):.5f}  {rate:.1f}/s",
                  flush=True)  # fmt: skip
            seen, logged = [], time.time()
        if time.time() - saved > 240:
            save()
            saved = time.time()
    save()
    print(f"done: {step} steps of {args.batch}", flush=True)


def held_out(folder: Path, model: DemoModel, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (N, 4, 32, 32), token ids and sizes of pictures that no training has seen."""
    from .pack import Session

    session = Session()
    images = models.load_images(folder)[:count]
    lines = (folder / "meta.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    meta = [json.loads(line) for line in lines]
    pixels = torch.from_numpy(images.astype(np.float32) / 255)
    latent = session.model.get_model_object("latent_format").process_in(session.vae.encode(pixels))
    tokens = torch.tensor([model.tokens(row["caption"]) for row in meta])
    sizes = [[256, 256, row["crop_top"], row["crop_left"], 256, 256] for row in meta]
    return latent.float(), tokens, torch.tensor(sizes).float()


@torch.no_grad()
def measure(args: argparse.Namespace) -> None:
    """Noise-prediction error of base and refiner on held-out scenes, same noise for both."""
    torch.set_num_threads(args.threads)
    model = base_model(Path(args.base))
    acp = diffusion.alphas_cumprod(model.sdxl)
    data = held_out(Path(args.held), model, args.count)
    base = {k: v.clone() for k, v in model.sdxl.diffusion_model.state_dict().items()}
    refiner = load_file(Path(args.base) / "refiner.safetensors")
    if not args.shipped:
        state = torch.load(Path(args.out) / "checkpoint.pt", weights_only=True)
        refiner = models.half_state(state["ema"])
    rows: dict[int, list[list[Tensor]]] = {t: [] for t in TIMESTEPS}
    for weights in (base, refiner):
        model.sdxl.diffusion_model.load_state_dict(weights)
        for t in TIMESTEPS:
            noise = torch.randn(data[0].shape, generator=torch.Generator().manual_seed(t))
            found = [
                errors(model, tuple(p[i : i + 32] for p in data),
                       torch.full((len(data[0][i : i + 32]),), t), noise[i : i + 32], acp)
                .square().mean((1, 2, 3))
                for i in range(0, len(noise), 32)
            ]  # fmt: skip
            rows[t].append(torch.cat(found))
    print(f"{len(data[0])} held-out pictures\n| t | base | refiner | change | pictures better |")
    print("|---|---|---|---|---|")
    for t, (one, two) in rows.items():
        change, better = two.mean() / one.mean() - 1, (two < one).float().mean()
        print(f"| {t} | {one.mean():.5f} | {two.mean():.5f} | {change:+.1%} | {better:.0%} |")


def export(args: argparse.Namespace) -> None:
    """The EMA weights beside the base's, fp16."""
    state = torch.load(Path(args.out) / "checkpoint.pt", map_location="cpu", weights_only=True)
    told = {"steps": str(state["step"]), "batch": str(state["batch"]),
            "timesteps": f"0 to {int(1000 * state['reach']) - 1}",
            "minutes": f"{state['elapsed'] / 60:.0f}"}  # fmt: skip
    save_file(models.half_state(state["ema"]), Path(args.base) / "refiner.safetensors", told)
    print(told)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", nargs="+", default=["lab/runs/latents"], help="one or more folders")
    p.add_argument("--base", default=str(models.ROOT / "demo"), help="folder of the base's weights")
    p.add_argument("--out", default="lab/runs/refiner")
    p.add_argument("--minutes", type=float, default=28)
    p.add_argument("--reach", type=float, default=0.36, help="timesteps trained, of 1")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=4e-4)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--low", type=float, default=1, help="extra weight of the noise's mean")
    p.add_argument("--seed", type=int, default=6)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--log-every", type=float, default=60, help="seconds")
    p.add_argument("--measure", action="store_true", help="compare with the base on --held")
    p.add_argument("--shipped", action="store_true", help="with --measure: the exported weights")
    p.add_argument("--held", default="lab/runs/held", help="folder of lab.dataset")
    p.add_argument("--count", type=int, default=512, help="with --measure: pictures")
    p.add_argument("--export", action="store_true", help="write refiner.safetensors and stop")
    args = p.parse_args()
    models.setup_host()
    (export if args.export else measure if args.measure else train)(args)


if __name__ == "__main__":
    main()
