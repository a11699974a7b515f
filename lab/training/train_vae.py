"""Train the demo VAE on random crops of the scenes.

    python -m lab.training.train_vae --data lab/runs/data --minutes 15 --out lab/runs/vae
    python -m lab.training.train_vae --decoder-only --minutes 20   # latents fixed, decoder sharper
    python -m lab.training.train_vae --decoder-only --critic 0.3 --out lab/runs/vae_critic

The schedule is by the clock: warm-up and cosine decay over `--minutes`, whatever the speed.
A run that was cut off goes on from its last checkpoint. At the end the latents' mean and
spread are folded into the weights of the 1x1 convolutions around the bottleneck, so that
latents have zero mean and unit variance per channel after SDXL's scale factor.
`--decoder-only` starts from `folded.pt` of --base, or from the shipped weights.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files import ROOT, save_atomic
from ..pack import setup_host
from . import losses, models
from .autoencoder import encode, evaluate, export, init_autoencoder
from .pictures import Pictures

CROPS = ((64, 16), (96, 7), (128, 4))  # (side in px, batch size), of about equal cost
AWAKE = 0.25  # share of the run after which the critic takes part


class Losses:
    """The decoder's loss, with a critic that learns beside it."""

    def __init__(self, args: argparse.Namespace, device: torch.device, last: Tensor) -> None:
        self.args, self.last = args, last
        self.look = losses.Perceptual().to(device) if args.perceptual else None
        self.critic = losses.Discriminator().to(device) if args.critic else None
        if self.critic:
            weights = self.critic.parameters()
            self.optimizer = torch.optim.Adam(weights, lr=args.critic_lr, betas=(0.5, 0.9))
        self.seen: dict[str, list[float]] = {}

    def note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.seen.setdefault(name, []).append(value.detach())

    def report(self) -> str:
        """Means since the last report."""
        means = {k: float(torch.stack(v).float().mean()) for k, v in self.seen.items()}
        self.seen.clear()
        return "  ".join(f"{k} {v:.4f}" for k, v in means.items())

    def __call__(self, y: Tensor, x: Tensor, progress: float) -> Tensor:
        """Loss of decoded `y` against `x`, both (B, 3, H, W) in -1..1."""
        args = self.args
        loss, l1 = losses.reconstruction_loss(y, x)
        over = losses.overshoot(y.float(), x)
        energy = losses.band_energy(y.float(), x)
        loss = loss + args.overshoot * over + args.energy * energy
        self.note(L1=l1, over=over, energy=energy)
        if self.look:
            distance = self.look(y, x)
            loss = loss + args.perceptual * distance.float()
            self.note(look=distance)
        if self.critic and progress > AWAKE:
            self.critic.requires_grad_(False)
            against = -self.critic(y).float().mean()
            weight = losses.balance(loss, against, self.last)
            loss = loss + args.critic * weight * against
            self.note(weight=weight)
        return loss

    def teach(self, y: Tensor, x: Tensor, progress: float) -> None:
        """One step of the critic; it starts a little before it is heard."""
        if not self.critic or progress < 0.8 * AWAKE:
            return
        self.critic.requires_grad_(True)
        loss = losses.hinge(self.critic(x).float(), self.critic(y.detach()).float())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.note(hinge=loss)


def start(args: argparse.Namespace, images: Pictures) -> nn.Module:
    """The autoencoder to begin with."""
    from safetensors.torch import load_file

    from demo.vae import build_autoencoder

    model = build_autoencoder()
    folded = Path(args.base) / "folded.pt"
    if not args.decoder_only:
        init_autoencoder(model, images.crops(64, 32).cpu())
    elif folded.exists():
        model.load_state_dict(torch.load(folded, map_location="cpu", weights_only=True))
    else:
        state = load_file(Path(args.base) / "vae.safetensors")
        model.load_state_dict({k: v.float() for k, v in state.items()})
    models.trainable(model)
    if args.decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    return model


def train(args: argparse.Namespace) -> None:
    """The training loop."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = models.pick_device()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    images = Pictures(Path(args.data), device)
    rng = np.random.default_rng()
    model = start(args, images).to(device, memory_format=torch.channels_last)
    checkpoint = out / ("decoder.pt" if args.decoder_only else "checkpoint.pt")
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = models.Ema(model, args.ema)
    judge = Losses(args, device, model.decoder.conv_out.weight)
    step, before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.shadow = state["ema"]
        step, before = state["step"], state["elapsed"]
        if judge.critic and "critic" in state:
            judge.critic.load_state_dict(state["critic"])
        print(f"resumed at step {step}, {before / 60:.1f} min", flush=True)
    print(f"{sum(p.numel() for p in weights) / 1e6:.2f} M weights to train, {len(images)} images")
    spread = None  # running std of latents, the unit of the noise that the decoder must bear

    def decode(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded crops, what they should be, and the latents' KL term."""
        nonlocal spread
        with torch.set_grad_enabled(not args.decoder_only):
            mean, logvar = encode(model, x)
        std = mean.detach().std((0, 2, 3), keepdim=True)
        spread = std if spread is None else torch.lerp(spread, std, 0.02)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        level = args.noise * torch.rand(len(z), 1, 1, 1, device=device)
        z = z + level * spread * torch.randn_like(z)
        if rng.random() < args.equivariance:
            # latents must survive being resized: the upscaling techniques do just that
            z, x = F.avg_pool2d(z, 2), F.avg_pool2d(x, 2)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return model.decode(z), x, kl

    def one_step(dtype: torch.dtype, progress: float, kind: int | None = None) -> Tensor:
        side, batch = CROPS[rng.integers(len(CROPS)) if kind is None else kind]
        x = images.crops(side, batch * args.scale)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            y, x, kl = decode(x)
            loss = judge(y, x, progress)
        if not args.decoder_only:
            loss = loss + args.kl * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            judge.teach(y, x, progress)
        return loss.detach()

    dtype = models.fastest_dtype(lambda dtype: one_step(dtype, 1.0, 2), device)
    judge.seen.clear()
    started, total = time.time(), args.minutes * 60
    logged, saved, steps = time.time(), time.time(), 0
    while (elapsed := before + time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr) * min(1, (step + 1) / 60)
        loss = one_step(dtype, elapsed / total)
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            ema.update(step)
        step, steps = step + 1, steps + 1
        now = time.time()
        if now - logged > args.log_every:
            if not math.isfinite(float(loss)):
                raise RuntimeError(f"loss is not finite at step {step}: lower --lr, start again")
            print(
                f"{(before + now - started) / 60:6.2f}/{args.minutes:g} min  step {step}  "
                f"{judge.report()}  PSNR {evaluate(model, images, None):.2f} dB  "
                f"{len(images)} images  {steps / (now - logged):.2f} step/s",
                flush=True,
            )
            images.refresh()
            steps, logged = 0, time.time()
        if now - saved > args.save_every:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"ema": ema.shadow, "step": step, "elapsed": before + now - started}
            if judge.critic:
                state["critic"] = judge.critic.state_dict()
            save_atomic(state, checkpoint)
            saved = time.time()
    meta = export(model, ema, images, out, fold=not args.decoder_only)
    print(f"done: {step} steps, PSNR {meta['psnr']:.2f} dB, {out / 'vae.safetensors'}", flush=True)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default="lab/runs/data")
    p.add_argument("--out", default="lab/runs/vae")
    p.add_argument("--base", default=str(ROOT / "demo"), help="--decoder-only: what to begin with")
    p.add_argument("--minutes", type=float, default=15, help="whole training time")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--scale", type=int, default=1, help="times the crops of a step: 12 for a GPU")
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--kl", type=float, default=1e-4, help="weight of the KL term")
    p.add_argument("--noise", type=float, default=0.15, help="most latent noise, in latent std")
    p.add_argument("--equivariance", type=float, default=0.25, help="share of half-size steps")
    p.add_argument("--perceptual", type=float, default=0.5, help="weight of ST-LPIPS (VGG)")
    p.add_argument("--overshoot", type=float, default=2.0, help="weight against halos")
    p.add_argument("--energy", type=float, default=0.5, help="weight of local contrast")
    p.add_argument("--critic", type=float, default=0.0, help="the discriminator's share")
    p.add_argument("--critic-lr", type=float, default=4e-4)
    p.add_argument("--decoder-only", action="store_true", help="freeze the encoder")
    p.add_argument("--log-every", type=float, default=30, help="seconds")
    p.add_argument("--save-every", type=float, default=120, help="seconds")
    args = p.parse_args()
    setup_host()
    train(args)


if __name__ == "__main__":
    main()
