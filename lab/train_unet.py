"""Train the demo UNet and text encoder on cached latents.

    python -m lab.train_unet --data lab/runs/latents --minutes 75 --out lab/runs/unet
    python -m lab.train_unet --export            # EMA weights to demo/, fp16
    python -m lab.train_unet --export --random   # a model of random weights, for tests

The schedule is by the clock (warm-up, then cosine decay over `--minutes`); a run that was cut
off goes on from its last checkpoint, whatever the number of threads.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import diffusion, models

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


class DemoModel(nn.Module):
    """The host's SDXL model and CLIP text model, ready for training in float32."""

    def __init__(self) -> None:
        super().__init__()
        from demo.architecture import CHANNELS_PER_GROUP, TEXT_CONFIG, UNET_CONFIG
        from demo.text import clip_target, tokenizer_facts
        from demo.unet import DemoSDXL

        self.text_config = {**TEXT_CONFIG, **tokenizer_facts()}
        config = DemoSDXL(UNET_CONFIG, channels_per_group=CHANNELS_PER_GROUP)
        config.set_inference_dtype(torch.float32, None)
        self.sdxl = config.get_model({}, "")
        target = clip_target(self.text_config)
        self.tokenizer = target.tokenizer()
        self.clip = target.clip(dtype=torch.float32)
        models.init_weights(self.sdxl.diffusion_model)
        models.init_weights(self.clip)
        self.zero_outputs()
        models.trainable(self.sdxl.diffusion_model)
        models.trainable(self.clip)
        self.clip.clip_l.logit_scale.requires_grad_(False)
        self.length = self.text_config["max_position_embeddings"]

    def zero_outputs(self) -> None:
        """Residual branches and the last convolution start at zero."""
        unet = self.sdxl.diffusion_model
        for name, layer in unet.named_modules():
            if name.endswith(("out_layers.3", "proj_out")):
                nn.init.zeros_(layer.weight)
        nn.init.zeros_(unet.out[2].weight)

    def tokens(self, text: str) -> list[int]:
        """Token ids of one prompt, padded; a longer one is cut."""
        return [t for t, _ in self.tokenizer.tokenize_with_weights(text)["l"][0]]

    def text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Context and pooled output of token ids (B, T)."""
        return diffusion.encode_text(self.clip.clip_l, tokens)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
        """Noise prediction for scaled latents `x` (B, 4, h, w) at timesteps `t`."""
        from demo.unet import size_embedding

        context, pooled = self.text(tokens)
        y = torch.cat([pooled.float(), size_embedding(self.sdxl, sizes)], dim=1)
        return self.sdxl.diffusion_model(x, t.float(), context=context, y=y)

    def weights(self) -> nn.ModuleDict:
        """The two modules with trained weights."""
        return nn.ModuleDict({"unet": self.sdxl.diffusion_model, "text": self.clip})


class Latents:
    """Cached latents from several folders; files that come later are picked up by `refresh`."""

    def __init__(self, folders: list[Path], model: DemoModel) -> None:
        self.wanted = [f / n for f in folders for n in ("latents.npy", "latents_flip.npy")]
        self.model = model
        self.empty = model.tokens("")
        self.pieces = (2, 2 + 512)  # ids of single bytes, from lab.tokenizer
        self.latents: list[np.ndarray] = []
        self.captions: list[list[int]] = []
        self.crops = torch.zeros(0, 2)
        self.rows = np.zeros((0, 2), np.int64)  # of each sample: which file, which row of it
        self.refresh()
        if not self.latents:
            raise FileNotFoundError(f"no latents.npy in {folders}: run `python -m lab.encode`")

    def refresh(self) -> None:
        """Add the files that were not there before."""
        for path in [p for p in self.wanted if p.exists()]:
            self.wanted.remove(path)
            part = np.load(path)
            meta = json.loads((path.parent / "meta.json").read_text(encoding="utf-8"))[: len(part)]
            known = {c: self.model.tokens(c) for c in {m["caption"] for m in meta}}
            crops = torch.tensor([[m["crop_top"], m["crop_left"]] for m in meta]).float()
            self.rows = np.concatenate(
                [self.rows, [(len(self.latents), i) for i in range(len(part))]]
            )
            self.latents.append(part)
            self.captions += [known[m["caption"]] for m in meta]
            self.crops = torch.cat([self.crops, crops])
            print(f"{path}: {len(part)} pictures, {len(self.rows)} in all", flush=True)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, 4, h, w), token ids (B, T) and sizes (B, 6) of random pictures."""
        index = rng.integers(0, len(self.rows), size)
        z = torch.from_numpy(np.stack([self.latents[p][i] for p, i in self.rows[index]]))
        mean, std = z.float().chunk(2, dim=1)
        tokens = []
        for i in index:
            ids = self.captions[i]
            if rng.random() < 0.1:
                ids = self.empty
            elif rng.random() < 0.06:
                ids = diffusion.noise_words(ids, self.model.length, rng, self.pieces)
            tokens.append(ids)
        sizes = diffusion.random_sizes(self.crops[index], rng)
        return mean + std * torch.randn_like(std), torch.tensor(tokens), sizes


def parameter_groups(modules: nn.Module) -> list[dict]:
    """Weight decay for matrices and convolutions only."""
    decay, plain = [], []
    for name, weight in modules.named_parameters():
        if weight.requires_grad:
            (plain if weight.ndim < 2 or "embedding" in name else decay).append(weight)
    return [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def sample_grid(model: DemoModel, ema: models.Ema, vae: Path, path: Path) -> None:
    """Draw `PROMPTS`, twice, with the EMA weights."""
    from demo.vae import build_autoencoder

    device = next(model.parameters()).device
    weights = model.weights()
    live = {k: v.detach().clone() for k, v in weights.state_dict().items()}
    weights.load_state_dict(ema.shadow)
    decoder = build_autoencoder()
    decoder.load_state_dict(torch.load(vae / "folded.pt", map_location="cpu", weights_only=True))
    decoder = decoder.to(device, memory_format=torch.channels_last)
    rows = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        tokens = torch.tensor([model.tokens(p) for p in (*PROMPTS, "")], device=device)
        context, pooled = (part.float() for part in model.text(tokens))
        for seed in range(2):
            z = diffusion.euler_sample(model.sdxl, context, pooled, 25, 5.0, seed)
            rows.append(models.to_uint8(decoder.decode(z / model.sdxl.latent_format.scale_factor)))
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
    model = DemoModel().to(device)
    weights = model.weights()
    data = Latents([Path(f) for f in ",".join(args.data).split(",")], model)
    groups = parameter_groups(weights)
    trained = [p for g in groups for p in g["params"]]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), fused=True)
    ema = models.Ema(weights, args.ema)
    step, before = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        weights.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ema.shadow = state["ema"]
        step, before = state["step"], state["elapsed"]
        print(f"resumed at step {step}, {before / 60:.1f} min", flush=True)
    for name, part in weights.items():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
    acp = diffusion.alphas_cumprod(model.sdxl).to(device)
    weight = diffusion.min_snr_weight(acp)

    def save(elapsed: float) -> None:
        state = {"model": weights.state_dict(), "optimizer": optimizer.state_dict()}
        models.save_atomic(
            {**state, "ema": ema.shadow, "step": step, "elapsed": elapsed}, checkpoint
        )

    started, total = time.time(), args.minutes * 60
    logged = saved = drawn = time.time()
    sums = np.zeros(4)
    while (elapsed := before + time.time() - started) < total:
        for group in optimizer.param_groups:
            group["lr"] = models.cosine_lr(elapsed / total, args.lr) * min(1, (step + 1) / 200)
        x0, tokens, sizes = (part.to(device) for part in data.batch(args.batch, rng))
        t = diffusion.stratified_timesteps(args.batch, device)
        noise = torch.randn_like(x0)
        a = acp[t].view(-1, 1, 1, 1)
        x = a.sqrt() * x0 + (1 - a).sqrt() * noise
        with torch.autocast(device.type, torch.bfloat16, enabled=not args.fp32):
            eps = model(x, t, tokens, sizes)
        difference = eps.float() - noise
        errors = difference.square().mean((1, 2, 3))
        # The mean of the noise is a thousandth of the error, and decides the picture's colour.
        shifts = difference.mean((2, 3)).square().mean(1)
        loss = (weight[t] * (errors + args.low * shifts)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            ema.update(weights, step)
        step += 1
        sums += (loss.item(), errors.mean().item(), float(norm), 1)
        now = time.time()
        if now - logged > args.log_every:
            n = sums[3]
            print(
                f"{(before + now - started) / 60:6.2f}/{args.minutes:g} min  step {step}  "
                f"loss {sums[0] / n:.4f}  mse {sums[1] / n:.4f}  grad {sums[2] / n:.2f}  "
                f"{n * args.batch / (now - logged):.1f} samples/s",
                flush=True,
            )
            sums[:] = 0
            logged = time.time()
        if now - saved > args.save_every:
            save(before + now - started)
            data.refresh()
            saved = time.time()
        if now - drawn > args.draw_every:
            sample_grid(model, ema, Path(args.vae), out / f"samples_{step:06d}.png")
            drawn = time.time()
    save(before + time.time() - started)
    sample_grid(model, ema, Path(args.vae), out / "samples_final.png")
    print(f"done: {step} steps of {args.batch}", flush=True)


def export(args: argparse.Namespace) -> None:
    """Write the model into `--to`: three fp16 safetensors files and config.json."""
    from safetensors.torch import save_file

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
        others = [Path(folder) / "checkpoint.pt" for folder in args.also]
        runs = [torch.load(p, map_location="cpu", weights_only=True)["ema"] for p in others]
        runs.append(state["ema"])
        model.weights().load_state_dict({k: sum(r[k] for r in runs) / len(runs) for k in runs[0]})
        folder = Path(args.vae)
        vae_state = torch.load(folder / "folded.pt", map_location="cpu", weights_only=True)
        vae_meta = json.loads((folder / "vae.json").read_text(encoding="utf-8"))
        trained = {"step": state["step"], "minutes": round(state["elapsed"] / 60, 1)}
    files = {
        "unet": model.sdxl.diffusion_model.state_dict(),
        "text_encoder": model.clip.state_dict(),
        "vae": vae_state,
    }
    for name, weights in files.items():
        save_file(models.half_state(weights), str(to / f"{name}.safetensors"))
    models.write_json(
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
    p.add_argument("--data", nargs="+", default=["lab/runs/latents"], help="one or more folders")
    p.add_argument("--vae", default="lab/runs/vae")
    p.add_argument("--out", default="lab/runs/unet")
    p.add_argument("--minutes", type=float, default=75, help="whole training time")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--low", type=float, default=8, help="extra weight of the noise's mean")
    p.add_argument("--fp32", action="store_true", help="no bfloat16 in the forward pass")
    p.add_argument("--log-every", type=float, default=60, help="seconds")
    p.add_argument("--save-every", type=float, default=300, help="seconds")
    p.add_argument("--draw-every", type=float, default=900, help="seconds")
    p.add_argument("--export", action="store_true", help="write the weights to --to and stop")
    p.add_argument(
        "--also",
        nargs="*",
        default=[],
        help="with --export: runs that began at a checkpoint of --out, to take the mean with",
    )
    p.add_argument("--random", action="store_true", help="with --export: untrained weights")
    p.add_argument("--to", default=str(models.ROOT / "demo"))
    args = p.parse_args()
    models.setup_host()
    (export if args.export else train)(args)


if __name__ == "__main__":
    main()
