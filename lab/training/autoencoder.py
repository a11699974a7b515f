"""The demo VAE as it is trained: initial weights, latent statistics, previews, what is exported."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files import save_atomic, write_json
from . import models
from .pictures import Pictures

SDXL_SCALE = 0.13025


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


def encode(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and log-variance, each (B, 4, h/8, w/8), of images in [-1, 1]."""
    moments = model.quant_conv(model.encoder(x)).float()
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-20.0, 10.0)


@torch.no_grad()
def latent_stats(model: nn.Module, images: Pictures, count: int = 96) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of posterior means over whole images."""
    z = torch.cat([encode(model, x)[0] for x in images.spread(count).split(8)])
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
def fit_rgb_factors(model: nn.Module, images: Pictures) -> tuple[list, list, float]:
    """Least-squares linear map from scaled latents to RGB in [-1, 1], for quick previews."""
    x = images.spread(64)
    z = torch.cat([encode(model, part)[0] for part in x.split(8)]) * SDXL_SCALE
    a = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    a = torch.cat([a, torch.ones_like(a[:, :1])], dim=1)
    b = F.avg_pool2d(x, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(a.cpu(), b.cpu()).solution
    r2 = 1 - ((a.cpu() @ solution - b.cpu()) ** 2).sum() / ((b.cpu() - b.cpu().mean(0)) ** 2).sum()
    return solution[:-1].tolist(), solution[-1].tolist(), float(r2)


@torch.no_grad()
def evaluate(model: nn.Module, images: Pictures, path: Path | None) -> float:
    """PSNR (dB) over 12 whole images; writes originals above reconstructions when `path`."""
    x = images.spread(12)
    y = torch.cat([model.decode(encode(model, part)[0]) for part in x.split(4)]).clamp(-1, 1)
    if path is not None:
        a, b = models.to_uint8(x), models.to_uint8(y)
        models.save_grid([a[:6], b[:6], a[6:], b[6:]] if len(x) == 12 else [a, b], path)
    return float(10 * torch.log10(4 / F.mse_loss(y, x)))


def export(model: nn.Module, ema: models.Ema, images: Pictures, out: Path, fold: bool) -> dict:
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
    save_atomic(final.state_dict(), out / "folded.pt")
    write_json(meta, out / "vae.json")
    return meta
