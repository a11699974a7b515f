"""Fine-tune the demo UNet on the low-noise end: `python -m lab.training.train_refiner`.

A refiner is a model of the last steps, as SDXL's is (trained on the first 200 of 1000 timesteps).
This one begins as the demo UNet and is trained on timesteps below `--reach` alone. Only the levels
of 32 x 32 and 16 x 16 cells learn, so that its file holds those and the rest is the base's.

    python -m lab.training.train_refiner --measure --held lab/runs/held   # losses per timestep
    python -m lab.training.train_refiner --export                       # demo/refiner.safetensors

`--held` is a folder of `lab.scenes.dataset` with another seed than the training pictures'.
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

from ..files import ROOT, save_atomic
from ..pack import setup_host
from . import diffusion, models
from .demo_model import DemoModel
from .latents import Latents
from .pictures import Pictures
from .train_unet import load_vae, parameter_groups

TIMESTEPS = (5, 25, 50, 100, 150, 200, 250, 300, 350, 500)


def base_model(folder: Path) -> DemoModel:
    """The demo model as shipped, in float32, with a frozen text encoder."""
    model = DemoModel()
    model.load(folder)
    model.clip.requires_grad_(False)
    return model


def outer(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that a refiner has of its own: all but the innermost level and the embeddings."""
    levels = len(unet.channel_mult)
    inner_in = 1 + (levels - 1) * (unet.num_res_blocks[0] + 1)
    inner_out = unet.num_res_blocks[-1] + 1
    shared = ("time_embed", "label_emb", "middle_block")
    own = {}
    for name, weight in unet.named_parameters():
        parts = name.split(".")
        inside = parts[0] == "input_blocks" and int(parts[1]) >= inner_in - 1
        inside |= parts[0] == "output_blocks" and int(parts[1]) < inner_out
        if not inside and parts[0] not in shared:
            own[name] = weight
    return own


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
    own = outer(unet)
    unet.requires_grad_(False)
    for weight in own.values():
        weight.requires_grad_(True)
    vae = load_vae(Path(args.vae), device)
    pictures = Pictures(Path(args.data), device)
    cache = None if device.type == "cuda" else Path(args.data) / "latents"
    data = Latents(pictures, vae, model, cache, mirror=device.type == "cuda")
    optimizer = torch.optim.AdamW(parameter_groups(unet), lr=args.lr, betas=(0.9, 0.99), fused=True)
    ema = models.Ema(unet, args.ema)
    acp = diffusion.alphas_cumprod(model.sdxl).to(device)
    step, seen, total = 0, [], args.minutes * 60

    def save() -> None:
        state = {"ema": ema.shadow, "step": step, "batch": args.batch, "reach": args.reach}
        save_atomic({**state, "elapsed": time.time() - started}, out / "checkpoint.pt")

    def one_step(dtype: torch.dtype) -> Tensor:
        """Gradients of one batch; its squared error."""
        batch = data.batch(args.batch, rng)
        t = (diffusion.stratified_timesteps(args.batch, device) * args.reach).long()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            difference = errors(model, batch, t, torch.randn_like(batch[0]), acp)
        mse = difference.square().mean()
        optimizer.zero_grad(set_to_none=True)
        (mse + args.low * difference.mean((2, 3)).square().mean()).backward()
        return mse.detach()

    dtype = models.fastest_dtype(one_step, device)
    started = logged = saved = time.time()
    while (elapsed := time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr, warmup=0.04)
        mse = one_step(dtype)
        if torch.isfinite(nn.utils.clip_grad_norm_(own.values(), 1.0)):
            optimizer.step()
            ema.update(step)
        step += 1
        seen.append(mse)
        if time.time() - logged > args.log_every:
            rate = len(seen) * args.batch / (time.time() - logged)
            mean = float(torch.stack(seen).mean())
            print(f"{elapsed / 60:.1f} min  step {step}  mse {mean:.5f}  {rate:.1f}/s", flush=True)
            seen, logged = [], time.time()
        if time.time() - saved > 240:
            save()
            saved = time.time()
    save()
    print(f"done: {step} steps of {args.batch}", flush=True)


def held_out(folder: Path, model: DemoModel, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (N, 4, 32, 32), token ids and sizes of pictures that no training has seen."""
    from ..pack import Session

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
    if args.shipped:
        refiner = base | load_file(Path(args.base) / "refiner.safetensors")
    else:
        refiner = torch.load(Path(args.out) / "checkpoint.pt", weights_only=True)["ema"]
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
    """The EMA of the weights that it has of its own, beside the base's, fp16."""
    state = torch.load(Path(args.out) / "checkpoint.pt", map_location="cpu", weights_only=True)
    told = {"steps": str(state["step"]), "batch": str(state["batch"]),
            "timesteps": f"0 to {int(1000 * state['reach']) - 1}",
            "minutes": f"{state['elapsed'] / 60:.0f}"}  # fmt: skip
    names = outer(base_model(Path(args.base)).sdxl.diffusion_model)
    own = {name: state["ema"][name] for name in names}
    save_file(models.half_state(own), Path(args.base) / "refiner.safetensors", told)
    print(told)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default="lab/runs/data", help="folder of lab.scenes.dataset")
    p.add_argument("--vae", default="lab/runs/vae", help="whose folded.pt encodes them")
    p.add_argument("--base", default=str(ROOT / "demo"), help="folder of the base's weights")
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
    p.add_argument("--held", default="lab/runs/held", help="folder of lab.scenes.dataset")
    p.add_argument("--count", type=int, default=512, help="with --measure: pictures")
    p.add_argument("--export", action="store_true", help="write refiner.safetensors and stop")
    args = p.parse_args()
    setup_host()
    (export if args.export else measure if args.measure else train)(args)


if __name__ == "__main__":
    main()
