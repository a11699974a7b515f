"""Train AGF and DSF on triples of `lab.training.fuser_pairs`, and judge them on others.

    python -m lab.training.train_fusers --pairs lab/runs/pairs --out demo/latent_fusion --name demo
    python -m lab.training.train_fusers --report --held lab/runs/held_pairs

The loss is the squared distance of the fused latent from the true one, in scaled latent space.
The files go into ComfyUI's models/latent_fusion/. The report holds fused latents against the
base, the refined latent, untrained fusers and plain blends, of which the best ratio is chosen on
the training triples; with --count-objects it decodes the ones that matter and counts (held triples
of whole demo scenes only). --keep saves those pictures, for a distance of distributions, and takes
what it has saved before: remove them after a change of the fusers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ..files import ROOT
from ..pack import enter
from . import models

KINDS = ("agf", "dsf")
DEPTH, NETWORK_STEPS = 5, 400
SEEN_BY_LATENTS = ("(seed 0)", "cell", "share")  # ends of names that are not decoded
Triples = dict[str, Tensor]


def load(folder: Path) -> tuple[Triples, dict[str, str]]:
    """Triples (N, C, h, w) and the recipe they were made by."""
    path = folder / "pairs.safetensors"
    with safe_open(path, framework="pt") as file:
        recipe = file.metadata()
    return load_file(path), recipe


def best_ratio(triples: Triples) -> float:
    """The share of the refined latent in the plain blend nearest to the truth, in 0..1."""
    step = triples["refined"] - triples["base"]
    wanted = ((triples["true"] - triples["base"]) * step).sum() / step.square().sum()
    return float(wanted.clamp(0, 1))


def correlation(triples: Triples) -> float:
    """Of what the refiner changed and what would lead from the base to the truth."""
    changes = [(triples[name] - triples["base"]).flatten() for name in ("refined", "true")]
    return float(torch.nn.functional.cosine_similarity(*changes, dim=0))


def trained_share(kind: str, triples: Triples, args: argparse.Namespace) -> Tensor:
    """The map of the trained fuser in --out."""
    from hires_fusion.fusion_ops.latent_fusion import refined_share

    weights = load_file(args.out / f"{args.name}_{kind}.safetensors")
    return refined_share(kind, triples["base"], triples["refined"], weights)


def fit(kind: str, triples: Triples, args: argparse.Namespace) -> Triples:
    """Weights of a fuser, from the best plain blend on."""
    from hires_fusion.fusion_ops.latent_fusion import blend, refined_share, weight_shapes

    channels = triples["true"].shape[1]
    weights = {k: torch.zeros(s) for k, s in weight_shapes(kind, channels).items()}
    start = min(max(best_ratio(triples), 0.02), 0.98)
    bias = torch.logit(torch.tensor(start))
    weights[f"{kind}.bias"] += bias * (torch.tensor([-0.5, 0.5]) if kind == "agf" else 1)
    parameters = [w.requires_grad_() for w in weights.values()]
    optimizer = torch.optim.Adam(parameters, lr=args.lr)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    for _ in tqdm(range(args.steps), desc=kind, mininterval=10):
        index = torch.randint(len(triples["true"]), (args.batch,), generator=generator)
        true, base, refined = (triples[k][index] for k in ("true", "base", "refined"))
        fused = blend(base, refined, refined_share(kind, base, refined, weights))
        loss = (fused - true).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
    return {k: w.detach().contiguous() for k, w in weights.items()}


def network_share(triples: Triples, held: Triples, args: argparse.Namespace) -> Tensor:
    """The share of each held-out cell by a network that sees all of both latents around it.

    Some 30 000 weights and 11 x 11 cells, against the 18 and 99 weights of AGF and DSF: it tells
    whether what they miss lies in them or is not in the latents.
    """
    channels = 2 * triples["true"].shape[1]
    torch.manual_seed(args.seed)
    sizes = (channels, *(32,) * (DEPTH - 1), 1)
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes)]
    nn.init.zeros_(layers[-1].weight)
    nn.init.constant_(layers[-1].bias, float(torch.logit(torch.tensor(best_ratio(triples)))))
    parts = [part for layer in layers for part in (layer, nn.SiLU())][:-1]
    network = nn.Sequential(*parts, nn.Sigmoid())
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, NETWORK_STEPS)
    generator = torch.Generator().manual_seed(args.seed)
    for _ in tqdm(range(NETWORK_STEPS), desc="network", mininterval=10):
        index = torch.randint(len(triples["true"]), (32,), generator=generator)
        true, base, refined = (triples[k][index] for k in ("true", "base", "refined"))
        share = network(torch.cat([base, refined], 1))
        loss = (base + share * (refined - base) - true).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
    with torch.no_grad():
        return network(torch.cat([held["base"], held["refined"]], 1))


def train(args: argparse.Namespace) -> None:
    """Train both fusers and write their files."""
    triples, recipe = load(args.pairs)
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        weights = fit(kind, triples, args)
        with torch.no_grad():
            error = errors(fused(kind, weights, triples), triples["true"]).mean()
        told = {f"pairs_{k}": v for k, v in recipe.items() if k != "latent_format"}
        told |= {"fuser": kind, "latent_format": recipe["latent_format"],
                 "pairs": str(len(triples["true"])), "steps": str(args.steps),
                 "metric": f"squared latent error on the training pairs: {error:.5f}"}  # fmt: skip
        path = args.out / f"{args.name}_{kind}.safetensors"
        save_file(weights, path, told)
        path.chmod(0o644)
        print(f"{path}: {told['metric']}; best plain blend {best_ratio(triples):.2f}")


def fused(kind: str, weights: Triples, triples: Triples) -> Tensor:
    """Fused latents of triples, in scaled space."""
    from hires_fusion.fusion_ops.latent_fusion import blend, refined_share

    base, refined = triples["base"], triples["refined"]
    return blend(base, refined, refined_share(kind, base, refined, weights))


def errors(latent: Tensor, true: Tensor) -> Tensor:
    """Mean squared error of each latent, (N,)."""
    return (latent - true).square().flatten(1).mean(1)


def fine_power(latent: Tensor) -> Tensor:
    """Power beyond half of the highest frequency, summed over a batch."""
    from hires_fusion.fusion_ops.spectrum import Band, refined_spectrum_share

    power = torch.fft.fft2(latent).abs().square()
    band = Band(0.25, 0.0, hermitian=True)
    return (power * refined_spectrum_share(*latent.shape[-2:], band)).sum()


def candidates(args: argparse.Namespace, triples: Triples, ratio: float) -> dict[str, Tensor]:
    """Everything that is compared, by name, as scaled latents."""
    from hires_fusion.fusion_ops.latent_fusion import blend, published_weights

    base, refined, true = (triples[k] for k in ("base", "refined", "true"))
    channels = true.shape[1]
    out = {
        "base": base,
        "refined": refined,
        "blend 0.5": blend(base, refined, 0.5),
        f"best blend ({ratio:.2f})": blend(base, refined, ratio),
    }
    for kind in KINDS:
        weights = published_weights(kind, channels, 0)
        out[f"{kind.upper()}, untrained (seed 0)"] = fused(kind, weights, triples)
        path = args.out / f"{args.name}_{kind}.safetensors"
        out[f"{kind.upper()}, trained"] = fused(kind, load_file(path), triples)
    # What no fuser can know: the best share of each cell, from the truth itself.
    step = refined - base
    best = ((true - base) * step).sum(1, keepdim=True) / step.square().sum(1, keepdim=True)
    out["best share of each cell"] = blend(base, refined, best.nan_to_num().clamp(0, 1))
    return out


def report(args: argparse.Namespace) -> None:
    """The table of docs/benchmarks.md."""
    held, _ = load(args.held)
    meta = json.loads((args.held / "meta.json").read_text(encoding="utf-8"))
    triples = load(args.pairs)[0]
    ratio = best_ratio(triples)
    print(f"{len(meta)} held-out triples; best ratio on them {best_ratio(held):.2f}")
    print(f"The refiner's change and the wanted one correlate by {correlation(held):.3f}")
    for kind in KINDS:
        share = trained_share(kind, held, args)
        print(f"{kind.upper()}, trained: share {share.mean():.3f}, deviation {share.std():.3f}")
    found = candidates(args, held, ratio)
    if args.network:
        from hires_fusion.fusion_ops.latent_fusion import blend

        share = network_share(triples, held, args)
        found["a network's share"] = blend(held["base"], held["refined"], share)
    reference = errors(found[f"best blend ({ratio:.2f})"], held["true"])
    levels = sorted({m["level"] for m in meta})
    columns = ["latent error", "against the best blend", *(f"at {lv:g}" for lv in levels),
               "fine detail"]  # fmt: skip
    columns += ["one object", "right colour", "mean objects"] if args.count_objects else []
    print(f"| latent | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    pipeline = load_vae() if args.count_objects else None
    for name, latent in [*found.items(), *([("true", held["true"])] if pipeline else [])]:
        error = errors(latent, held["true"])
        gain = error - reference
        spread = 1.96 * float(gain.std()) / len(gain) ** 0.5
        row = [f"{error.mean():.4f}", f"{gain.mean():+.4f} ± {spread:.4f}"]
        for level in levels:
            row.append(f"{error[[m['level'] == level for m in meta]].mean():.4f}")
        row.append(f"{fine_power(latent) / fine_power(held['true']):.0%}")
        if pipeline and not name.endswith(SEEN_BY_LATENTS):
            row += count(pipeline, latent, meta, args.keep and args.keep / name)
        row += [""] * (len(columns) - len(row))
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def load_vae():
    """The demo model and VAE."""
    from hires_fusion.demo.loader import load_demo_model

    return load_demo_model()


@torch.inference_mode()
def count(pipeline, latent: Tensor, meta: list[dict], keep: Path | None) -> list[str]:
    """Exactly one object, in the right colour, and the mean number, of decoded latents."""
    from ..bench.counter import count_objects
    from ..bench.repetition import is_right

    model, _, vae = pipeline
    rows = []
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(len(latent)), mininterval=20):
        path = keep and keep / f"{number:04d}.png"
        if path and path.exists():
            image = np.asarray(Image.open(path))
        else:
            pixels = vae.decode(model.model.process_latent_out(latent[number : number + 1]))
            image = models.to_uint8(pixels.movedim(-1, 1) * 2 - 1)[0]
        if path and not path.exists():
            Image.fromarray(image).save(path)
        pixels = torch.from_numpy(image).movedim(-1, 0)[None].float() / 255
        (found,) = count_objects(pixels)
        rows.append((len(found), is_right(found, meta[number]["colour"])))
    ones, rights = sum(n == 1 for n, _ in rows), sum(right for _, right in rows)
    mean = statistics.mean(n for n, _ in rows)
    return [f"{ones / len(rows):.1%}", f"{rights / len(rows):.1%}", f"{mean:.3f}"]


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--pairs", type=Path, default=Path("lab/runs/pairs"), help="to train on")
    p.add_argument("--held", type=Path, default=Path("lab/runs/held_pairs"), help="to judge on")
    p.add_argument("--out", type=Path, default=ROOT / "demo" / "latent_fusion")
    p.add_argument("--name", default="demo", help="files are NAME_agf and NAME_dsf.safetensors")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--report", action="store_true", help="compare on --held, train nothing")
    p.add_argument("--count-objects", action="store_true", help="decode with the demo VAE, count")
    p.add_argument("--network", action="store_true", help="with --report: train a larger network")
    p.add_argument("--keep", type=Path, help="save the decoded pictures in folders here")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    enter()
    (report if args.report else train)(args)


if __name__ == "__main__":
    main()
