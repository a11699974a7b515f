"""Train the demo UNet and text encoder on the pictures' latents.

    python -m lab.training.train_unet --data lab/runs/data --minutes 75 --out lab/runs/unet
    python -m lab.training.train_unet --base demo         # on from finished weights
    python -m lab.training.train_unet --export            # EMA weights to demo/, fp16
    python -m lab.training.train_unet --export --random   # a model of random weights, for tests

The schedule is by the clock (warm-up, then cosine decay over `--minutes`); a run that was cut
off goes on from its last checkpoint, whatever the number of threads. Every timestep's error counts
in proportion to what it usually is there (after Karras et al. 2024, EDM2, with running means
instead of a network), and the noisiest quarter, where the layout is made, is drawn more often.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..files import ROOT, save_atomic, write_json
from ..pack import setup_host
from . import diffusion, models
from .demo_model import DemoModel
from .latents import Latents
from .pictures import Pictures

PROMPTS = (
    "a red hot-air balloon over snowy mountains by day",
    "a blue hot-air balloon over desert dunes at sunset",
    "a yellow sailing boat on a calm sea by day",
    "a purple lighthouse by a calm sea at dawn",
    "a green hot-air balloon over a calm sea at night",
    "a red lighthouse among green hills by day",
    "snowy mountains by day",
    "a red sailing boat on a calm sea at sunset",
)


def parameter_groups(modules: nn.Module) -> list[dict]:
    """Weight decay for matrices and convolutions only."""
    decay, plain = [], []
    for name, weight in modules.named_parameters():
        if weight.requires_grad:
            (plain if weight.ndim < 2 or "embedding" in name else decay).append(weight)
    return [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def read_vae(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights and meta data of the autoencoder that was trained, or is shipped, in `folder`."""
    if (folder / "folded.pt").exists():
        state = torch.load(folder / "folded.pt", map_location="cpu", weights_only=True)
        return state, json.loads((folder / "vae.json").read_text(encoding="utf-8"))
    state = {k: v.float() for k, v in load_file(folder / "vae.safetensors").items()}
    return state, json.loads((folder / "config.json").read_text(encoding="utf-8"))["vae"]


def load_vae(folder: Path, device: torch.device, wait: bool = False) -> nn.Module:
    """The trained autoencoder, frozen; `wait`: as soon as its training has written it."""
    from demo.vae import build_autoencoder

    while wait and not any((folder / n).exists() for n in ("folded.pt", "vae.safetensors")):
        time.sleep(0.2)
    vae = build_autoencoder()
    vae.load_state_dict(read_vae(folder)[0])
    return vae.requires_grad_(False).to(device, memory_format=torch.channels_last)


def sample_grid(model: DemoModel, shadow: dict, vae: nn.Module, path: Path) -> None:
    """Draw `PROMPTS`, twice, with the averaged weights `shadow`."""
    device = next(model.parameters()).device
    weights = model.weights()
    live = {k: v.detach().clone() for k, v in weights.state_dict().items()}
    weights.load_state_dict(shadow)
    rows = []
    with torch.no_grad():
        tokens = torch.tensor([model.tokens(p) for p in (*PROMPTS, "")], device=device)
        context, pooled = model.text(tokens)
        for seed in range(2):
            z = diffusion.euler_sample(model.sdxl, context, pooled, 25, 5.0, seed)
            rows.append(models.to_uint8(vae.decode(z / model.sdxl.latent_format.scale_factor)))
    models.save_grid(rows, path)
    weights.load_state_dict(live)


def train(args: argparse.Namespace) -> None:
    """The training loop."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(int(time.time()))
    device = models.pick_device()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng()
    model = DemoModel()
    if args.base:
        model.load(Path(args.base))
    model = model.to(device)
    weights = model.weights()
    vae = load_vae(Path(args.vae), device, args.wait)
    cache = None if device.type == "cuda" else Path(args.data) / "latents"
    pictures = Pictures(Path(args.data), device)
    data = Latents(pictures, vae, model, cache, mirror=device.type == "cuda")
    groups = parameter_groups(weights)
    trained = [p for g in groups for p in g["params"]]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), fused=True)
    averages = [models.Ema(weights, decay) for decay in args.ema]
    step, before = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        weights.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for average, shadow in zip(averages, state["emas"], strict=True):
            average.shadow = shadow
        step, before = state["step"], state["elapsed"]
        print(f"resumed at step {step}, {before / 60:.1f} min", flush=True)
    for name, part in weights.items():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
    acp = diffusion.alphas_cumprod(model.sdxl).to(device)
    balance = diffusion.Balance(device)

    def save(elapsed: float) -> None:
        state = {"model": weights.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"emas": [a.shadow for a in averages], "batch": args.batch}
        save_atomic({**state, "step": step, "elapsed": elapsed}, checkpoint)

    def one_step(dtype: torch.dtype) -> Tensor:
        """Gradients of one batch; the loss and the plain squared error."""
        x0, tokens, sizes = data.batch(args.batch, rng)
        t = diffusion.stratified_timesteps(args.batch, device)
        high = torch.rand(args.batch, device=device) < args.high
        t = torch.where(high, 750 + t // 4, t)
        noise = torch.randn_like(x0)
        a = acp[t].view(-1, 1, 1, 1)
        x = a.sqrt() * x0 + (1 - a).sqrt() * noise
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            eps = model(x, t, tokens, sizes, drop_pooled=args.drop_pooled)
        difference = eps.float() - noise
        errors = difference.square().mean((1, 2, 3))
        # The mean of the noise is a thousandth of the error, and decides the picture's colour.
        shifts = difference.mean((2, 3)).square().mean(1)
        loss = (balance(t, errors) * (errors + args.low * shifts)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return torch.stack([loss.detach(), errors.detach().mean()])

    unet = model.sdxl.diffusion_model

    def in_layout(option: tuple[torch.dtype, torch.memory_format]) -> Tensor:
        unet.to(memory_format=option[1])
        return one_step(option[0])

    options = itertools.product(
        (torch.float32, torch.bfloat16), (torch.contiguous_format, torch.channels_last)
    )
    dtype, layout = models.fastest(in_layout, list(options), device)
    unet.to(memory_format=layout)
    started, total = time.time(), args.minutes * 60
    logged = saved = drawn = time.time()
    sums, steps = torch.zeros(2, device=device), 0
    while (elapsed := before + time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr, floor=0.0)
            group["lr"] *= min(1, (step + 1) / 200)
        sums += one_step(dtype)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % args.ema_every == 0:
            for average in averages:
                average.update(step // args.ema_every)
        step, steps = step + 1, steps + 1
        now = time.time()
        if now - logged > args.log_every:
            loss, mse = (sums / steps).tolist()
            print(
                f"{(before + now - started) / 60:6.2f}/{args.minutes:g} min  step {step}  "
                f"loss {loss:.4f}  mse {mse:.4f}  {len(data)} latents  "
                f"{steps * args.batch / (now - logged):.1f} samples/s  errors "
                + " ".join(f"{v:.3f}" for v in balance.usual[::4].tolist()),
                flush=True,
            )
            if not math.isfinite(loss):
                raise RuntimeError(f"the loss is not finite at step {step}: lower --lr")
            sums.zero_()
            data.refresh()
            steps, logged = 0, time.time()
        if now - saved > args.save_every:
            save(before + now - started)
            saved = time.time()
        if now - drawn > args.draw_every:
            sample_grid(model, averages[0].shadow, vae, out / f"samples_{step:06d}.png")
            drawn = time.time()
    save(before + time.time() - started)
    for index, average in enumerate(averages):
        sample_grid(model, average.shadow, vae, out / f"samples_final_{index}.png")
    print(f"done: {step} steps of {args.batch}", flush=True)


def export(args: argparse.Namespace) -> None:
    """Write the model into `--to`: three fp16 safetensors files and config.json."""
    from demo.architecture import CHANNELS_PER_GROUP, NATIVE_SIZE, UNET_CONFIG
    from demo.vae import build_autoencoder, vae_params

    to = Path(args.to)
    to.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = DemoModel()
    if args.random:
        vae = build_autoencoder()
        models.init_weights(vae)
        vae_state = vae.state_dict()
        vae_meta = {"params": vae_params(), "latent_rgb_factors": torch.randn(4, 3).tolist(),
                    "latent_rgb_factors_bias": [0.0, 0.0, 0.0]}  # fmt: skip
        models.init_weights(model.sdxl.diffusion_model)
        trained = {"step": 0}
    else:
        state = torch.load(Path(args.out) / "checkpoint.pt", map_location="cpu", weights_only=True)
        model.weights().load_state_dict(state["emas"][args.average])
        vae_state, vae_meta = read_vae(Path(args.vae))
        trained = {
            "step": state["step"],
            "batch": state["batch"],
            "minutes": round(state["elapsed"] / 60, 1),
        }
    files = {
        "unet": model.sdxl.diffusion_model.state_dict(),
        "text_encoder": model.clip.state_dict(),
        "vae": vae_state,
    }
    for name, weights in files.items():
        save_file(models.half_state(weights), str(to / f"{name}.safetensors"))
    write_json(
        {
            "native_size": NATIVE_SIZE,
            "unet": UNET_CONFIG,
            "channels_per_group": CHANNELS_PER_GROUP,
            "text": model.text_config,
            "vae": vae_meta,
            "trained": trained,
        },
        to / "config.json",
    )
    size = sum((to / f"{name}.safetensors").stat().st_size for name in files) / 2**20
    print(f"{size:.1f} MiB of weights in {to}")


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default="lab/runs/data", help="folder of lab.scenes.dataset")
    p.add_argument("--vae", default="lab/runs/vae")
    p.add_argument("--wait", action="store_true", help="until --vae has its weights")
    p.add_argument("--out", default="lab/runs/unet")
    p.add_argument("--minutes", type=float, default=75, help="whole training time")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--ema", type=float, nargs="+", default=[0.998, 0.9995], help="decays")
    p.add_argument("--ema-every", type=int, default=1, help="steps")
    p.add_argument("--base", help="folder of weights to begin with, of this or a smaller network")
    p.add_argument("--high", type=float, default=0.3, help="extra share of timesteps over 750")
    p.add_argument("--drop-pooled", type=float, default=0.25, help="share without pooled")
    p.add_argument("--low", type=float, default=8, help="extra weight of the noise's mean")
    p.add_argument("--log-every", type=float, default=60, help="seconds")
    p.add_argument("--save-every", type=float, default=300, help="seconds")
    p.add_argument("--draw-every", type=float, default=900, help="seconds")
    p.add_argument("--export", action="store_true", help="write the weights to --to and stop")
    p.add_argument("--average", type=int, default=0, help="with --export: which of --ema")
    p.add_argument("--random", action="store_true", help="with --export: untrained weights")
    p.add_argument("--to", default=str(ROOT / "demo"))
    args = p.parse_args()
    setup_host()
    (export if args.export else train)(args)


if __name__ == "__main__":
    main()
