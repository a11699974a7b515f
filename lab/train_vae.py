"""Train the demo VAE on random crops of the scenes.

    python -m lab.train_vae --data lab/runs/data --minutes 15 --out lab/runs/vae
    python -m lab.train_vae ... --decoder-only     # later: polish the decoder, latents fixed

The schedule is by the clock: warm-up and cosine decay over `--minutes`, whatever the speed.
A run that was cut off goes on from its last checkpoint. At the end the latents' mean and
spread are folded into the weights of the 1x1 convolutions around the bottleneck, so that
latents have zero mean and unit variance per channel after SDXL's scale factor.
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

from . import models

SDXL_SCALE = 0.13025
CROPS = ((64, 16), (96, 7), (128, 4))  # (side in px, batch size), of about equal cost


@torch.no_grad()
def init_autoencoder(model: nn.Module, x: Tensor) -> None:
    """Initial weights for a net without norms.

    Residual branches start small, and one batch `x` of images sets the scale at the bottleneck
    and at the output, as norms would have done.
    """
    models.init_weights(model)
    for name, layer in model.named_modules():
        if name.endswith("conv2"):
            layer.weight *= 0.1
    nn.init.normal_(model.quant_conv.weight[4:], std=1e-3)
    nn.init.constant_(model.quant_conv.bias[4:], -8.0)
    mean, _ = encode(model, x)
    model.quant_conv.weight[:4] /= mean.std((0, 2, 3)).view(-1, 1, 1, 1)
    model.quant_conv.bias[:4] = -encode(model, x)[0].mean((0, 2, 3))
    y = model.decode(encode(model, x)[0])
    model.decoder.conv_out.weight *= 0.3 / y.std()


def crops(images: np.ndarray, side: int, batch: int, rng: np.random.Generator) -> Tensor:
    """Random crops (batch, 3, side, side) in [-1, 1], half of them mirrored."""
    limit = images.shape[1] - side + 1
    out = np.empty((batch, side, side, 3), np.uint8)
    for i, index in enumerate(rng.integers(0, len(images), batch)):
        y, x = rng.integers(0, limit, 2)
        crop = images[index, y : y + side, x : x + side]
        out[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return torch.from_numpy(out).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def reconstruction_loss(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of `y` against `x`, and the plain L1: L1 + gradients + band-pass terms.

    The difference goes through the pyramid (it is linear), so each level is one L1.
    """
    d = y.float() - x
    l1 = d.abs().mean()
    grad = d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
    bands = d.new_zeros(())
    level = d
    for _ in range(3):
        low = F.avg_pool2d(level, 2)
        bands = bands + (level - F.interpolate(low, scale_factor=2, mode="nearest")).abs().mean()
        level = low
    return l1 + 0.5 * grad + 0.5 * (bands + level.abs().mean()), l1


def encode(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and log-variance, each (B, 4, h/8, w/8), of images in [-1, 1]."""
    moments = model.quant_conv(model.encoder(x)).float()
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-20.0, 10.0)


@torch.no_grad()
def latent_stats(model: nn.Module, images: np.ndarray, count: int = 96) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of posterior means over whole images."""
    device = next(model.parameters()).device
    pick = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    means = []
    for chunk in np.array_split(pick, max(1, len(pick) // 8)):
        x = torch.from_numpy(np.ascontiguousarray(images[chunk])).permute(0, 3, 1, 2)
        means.append(encode(model, x.to(device).float() / 127.5 - 1)[0])
    z = torch.cat(means)
    return z.mean((0, 2, 3)), z.std((0, 2, 3))


@torch.no_grad()
def fold_scale(model: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Make latents have mean 0 and std 1/SDXL_SCALE; the images decoded stay the same."""
    k = 1.0 / (SDXL_SCALE * std)
    channels = len(k)
    quant, post = model.quant_conv, model.post_quant_conv
    quant.weight[:channels] *= k.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - mean) * k
    quant.bias[channels:] += 2 * k.log()
    post.bias += torch.einsum("oihw,i->o", post.weight, mean)
    post.weight /= k.view(1, -1, 1, 1)


@torch.no_grad()
def fit_rgb_factors(model: nn.Module, images: np.ndarray) -> tuple[list, list, float]:
    """Least-squares linear map from scaled latents to RGB in [-1, 1], for quick previews."""
    device = next(model.parameters()).device
    pick = np.linspace(0, len(images) - 1, min(64, len(images))).astype(int)
    x = torch.from_numpy(np.ascontiguousarray(images[pick])).permute(0, 3, 1, 2)
    x = x.to(device).float() / 127.5 - 1
    z = torch.cat([encode(model, part)[0] for part in x.split(8)]) * SDXL_SCALE
    a = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    a = torch.cat([a, torch.ones_like(a[:, :1])], dim=1)
    b = F.avg_pool2d(x, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(a.cpu(), b.cpu()).solution
    r2 = 1 - ((a.cpu() @ solution - b.cpu()) ** 2).sum() / ((b.cpu() - b.cpu().mean(0)) ** 2).sum()
    return solution[:-1].tolist(), solution[-1].tolist(), float(r2)


@torch.no_grad()
def evaluate(model: nn.Module, images: np.ndarray, path: Path | None) -> float:
    """PSNR (dB) over 12 whole images; writes originals above reconstructions when `path`."""
    device = next(model.parameters()).device
    pick = np.linspace(0, len(images) - 1, min(12, len(images))).astype(int)
    x = torch.from_numpy(np.ascontiguousarray(images[pick])).permute(0, 3, 1, 2)
    x = x.to(device).float() / 127.5 - 1
    with torch.autocast(device.type, torch.bfloat16):
        y = torch.cat([model.decode(encode(model, part)[0]) for part in x.split(4)])
    y = y.float().clamp(-1, 1)
    if path is not None:
        a, b = models.to_uint8(x), models.to_uint8(y)
        models.save_grid([a[:6], b[:6], a[6:], b[6:]] if len(pick) == 12 else [a, b], path)
    return float(10 * torch.log10(4 / F.mse_loss(y, x)))


def export(model: nn.Module, ema: models.Ema, images: np.ndarray, out: Path, fold: bool) -> dict:
    """Write vae.safetensors (fp16) and vae.json from the EMA weights; returns the metadata."""
    from safetensors.torch import save_file

    from demo.vae import build_autoencoder, vae_params

    final = build_autoencoder().to(next(model.parameters()).device)
    final.load_state_dict(ema.shadow)
    if fold:
        fold_scale(final, *latent_stats(final, images))
    factors, bias, r2 = fit_rgb_factors(final, images)
    psnr = evaluate(final, images, out / "final.png")
    mean, std = latent_stats(final, images, 32)
    meta = {
        "params": vae_params(),
        "latent_rgb_factors": factors,
        "latent_rgb_factors_bias": bias,
        "preview_r2": r2,
        "psnr": psnr,
        "scaled_latent_mean": (mean * SDXL_SCALE).tolist(),
        "scaled_latent_std": (std * SDXL_SCALE).tolist(),
    }
    save_file(models.half_state(final.state_dict()), str(out / "vae.safetensors"))
    models.save_atomic(final.state_dict(), out / "folded.pt")
    models.write_json(meta, out / "vae.json")
    return meta


def train(args: argparse.Namespace) -> None:
    """The training loop."""
    from demo.vae import build_autoencoder

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = models.pick_device()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    images = models.load_images(Path(args.data))
    rng = np.random.default_rng()
    model = build_autoencoder()
    init_autoencoder(model, crops(images, 64, 32, rng))
    checkpoint = out / ("decoder.pt" if args.decoder_only else "checkpoint.pt")
    if args.decoder_only and not checkpoint.exists():
        model.load_state_dict(torch.load(out / "folded.pt", weights_only=True))
    model = models.trainable(model).to(device, memory_format=torch.channels_last)
    if args.decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = models.Ema(model, 0.998)
    step, before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.shadow = state["ema"]
        step, before = state["step"], state["elapsed"]
        print(f"resumed at step {step}, {before / 60:.1f} min", flush=True)
    print(f"{sum(p.numel() for p in weights) / 1e6:.2f} M weights to train, {len(images)} images")

    started, total = time.time(), args.minutes * 60
    logged = saved = time.time()
    spread = None  # running std of latents, the unit of the noise that the decoder must bear
    sums = np.zeros(3)
    while (elapsed := before + time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr) * min(1, (step + 1) / 60)
        side, batch = CROPS[rng.integers(len(CROPS))]
        x = crops(images, side, batch, rng).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
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
            y = model.decode(z)
        loss, l1 = reconstruction_loss(y, x)
        if not args.decoder_only:
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            loss = loss + args.kl * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        ema.update(model, step)
        step += 1
        sums += (loss.item(), l1.item(), 1)
        if not math.isfinite(sums[0]):
            raise RuntimeError(f"loss is not finite at step {step}: lower --lr and start again")
        now = time.time()
        if now - logged > args.log_every:
            psnr = evaluate(model, images, None)
            print(
                f"{(before + now - started) / 60:6.2f}/{args.minutes:g} min  step {step}  "
                f"loss {sums[0] / sums[2]:.4f}  L1 {sums[1] / sums[2]:.4f}  PSNR {psnr:.2f} dB  "
                f"latent std {spread.flatten().tolist()}  {sums[2] / (now - logged):.2f} step/s",
                flush=True,
            )
            sums[:] = 0
            logged = time.time()
        if now - saved > args.save_every:
            save(checkpoint, model, optimizer, ema, step, before + now - started)
            live = {k: v.detach().clone() for k, v in model.state_dict().items()}
            model.load_state_dict(ema.shadow)
            evaluate(model, images, out / "reconstruction.png")
            model.load_state_dict(live)
            saved = time.time()
    save(checkpoint, model, optimizer, ema, step, before + time.time() - started)
    meta = export(model, ema, images, out, fold=not args.decoder_only)
    print(f"done: {step} steps, PSNR {meta['psnr']:.2f} dB, {out / 'vae.safetensors'}", flush=True)


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: models.Ema,
         step: int, elapsed: float) -> None:  # fmt: skip
    """Write a checkpoint from which `train` can go on."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.shadow}
    models.save_atomic({**state, "step": step, "elapsed": elapsed}, path)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default="lab/runs/data")
    p.add_argument("--out", default="lab/runs/vae")
    p.add_argument("--minutes", type=float, default=15, help="whole training time")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--kl", type=float, default=1e-4, help="weight of the KL term")
    p.add_argument("--noise", type=float, default=0.15, help="most latent noise, in latent std")
    p.add_argument("--equivariance", type=float, default=0.25, help="share of half-size steps")
    p.add_argument("--decoder-only", action="store_true", help="freeze the encoder")
    p.add_argument("--log-every", type=float, default=30, help="seconds")
    p.add_argument("--save-every", type=float, default=120, help="seconds")
    args = p.parse_args()
    models.setup_host()
    train(args)


if __name__ == "__main__":
    main()
