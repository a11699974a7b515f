"""The figures of the demo model's card: what the VAE keeps, and what the UNet draws.

    python -m lab.bench.model_figures                            # the shipped weights
    python -m lab.bench.model_figures --models demo lab/runs/new # side by side

True renders go through the VAE; pictures of captions and seeds that nothing else uses are counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..pack import Session
from ..pictures import sheet, to_image
from ..scenes.wishes import true_render, wish

NATIVE = 256
FIRST = 700_000  # of the seeds


def overshoot(y: Tensor, x: Tensor) -> float:
    """How far `y` leaves the range of `x` in the 3 x 3 px around, mean, in 1/255."""
    high, low = F.max_pool2d(x, 3, 1, 1), -F.max_pool2d(-x, 3, 1, 1)
    return float((F.relu(y - high) + F.relu(low - y)).mean() * 255)


def spectra(pictures: Tensor) -> Tensor:
    """(N, bins) radial spectra of (N, 3, H, W)."""
    from evaluation.spectrum import radial_spectrum

    return torch.stack([radial_spectrum(picture) for picture in pictures])


def through_vae(session: Session, true: Tensor) -> tuple[dict[str, float], Tensor]:
    """Figures of renders (N, 3, H, W) against themselves after the VAE, and those pictures."""
    from evaluation.perceptual import ShiftTolerant
    from evaluation.spectrum import spectrum_distance

    pixels = true.permute(0, 2, 3, 1)
    back = torch.cat([session.vae.decode(session.vae.encode(one)) for one in pixels.split(4)])
    back = back.float().cpu().permute(0, 3, 1, 2).clamp(0, 1)
    look = ShiftTolerant()
    distances = [look(a[None], b[None]) for a, b in zip(back, true, strict=True)]
    return {
        "spectrum, dB": spectrum_distance(spectra(back), spectra(true)),
        "ST-LPIPS": float(torch.cat(distances).mean()),
        "PSNR, dB": float(-10 * (back - true).square().mean((1, 2, 3)).log10().mean()),
        "overshoot, 1/255": overshoot(back, true),
        "colour, 1/255": float((back.mean((2, 3)) - true.mean((2, 3))).abs().mean() * 255),
    }, back


def drawn(session: Session, seeds: range, cfg: float, steps: int) -> Tensor:
    """(N, 3, H, W) native pictures of the seeds' captions."""
    import comfy.sample

    session.cfg, out = cfg, []
    for seed in seeds:
        latent = torch.zeros(1, 4, session.native, session.native)
        samples = comfy.sample.sample(
            session.model, comfy.sample.prepare_noise(latent, seed), steps, cfg, "dpmpp_2m",
            "karras", session.encode(wish(seed).prompt), session.negative, latent, seed=seed,
            disable_pbar=True,
        )  # fmt: skip
        out.append(session.vae.decode(samples)[0].float().cpu().permute(2, 0, 1).clamp(0, 1))
    return torch.stack(out)


def share_right(pictures: Tensor, seeds: range) -> float:
    """Share of pictures with exactly one object, of the kind's colour that was asked for."""
    from .counter import count_objects

    right = 0
    for found, seed in zip(count_objects(pictures), seeds, strict=True):
        right += len(found) == 1 and found[0].colour == wish(seed).colour
    return right / len(pictures)


@torch.inference_mode()
def figures(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """All figures of the weights in `folder`; contact sheets are written to --out."""
    from evaluation.spectrum import spectrum_distance

    session = Session(folder=folder)
    seeds = range(args.first, args.first + args.count)
    renders = [true_render(args.first + k, 0, NATIVE) for k in range(args.renders)]
    true = torch.from_numpy(np.stack(renders)).permute(0, 3, 1, 2).float()
    found, back = through_vae(session, true)
    pairs = [p for a, b in zip(true[:6], back[:6], strict=True) for p in (a, b)]
    write(pairs, args.out / f"{folder.name}_vae.png", 4)
    for cfg in args.cfg:
        pictures = drawn(session, seeds, cfg, args.steps)
        found[f"one object, right colour, cfg {cfg:g}"] = share_right(pictures, seeds)
        found[f"natives' spectrum, cfg {cfg:g}, dB"] = spectrum_distance(
            spectra(pictures), spectra(true)
        )
        write(list(pictures[:32]), args.out / f"{folder.name}_cfg{cfg:g}.png", 8)
    return found


def write(pictures: list[Tensor], path: Path, columns: int) -> None:
    """A contact sheet at 100 %."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet([("", to_image(picture[None])) for picture in pictures], columns).save(path)


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--models", type=Path, nargs="+", default=[Path("demo")])
    p.add_argument("--count", type=int, default=256, help="captions and seeds")
    p.add_argument("--renders", type=int, default=64, help="true renders through the VAE")
    p.add_argument("--first", type=int, default=FIRST, help="first seed")
    p.add_argument("--cfg", type=float, nargs="+", default=[5.0, 2.0])
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", type=Path, default=Path("lab/runs/figures"))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    rows = {folder: figures(folder, args) for folder in args.models}
    print("| figure |" + "".join(f" {folder} |" for folder in rows))
    print("|---|" + "---|" * len(rows))
    for name in next(iter(rows.values())):
        print(f"| {name} |" + "".join(f" {row[name]:.3f} |" for row in rows.values()))


if __name__ == "__main__":
    main()
