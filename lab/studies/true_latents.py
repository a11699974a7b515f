"""Which lift and which fuser is nearest to the truth in the latents that people use?

`python -m lab.studies.true_latents --photos FOLDER --vaes FOLDER`

A photograph reduced to 256 pixels is the truth, reduced to 128 the finished picture. The latent of
the small one is lifted as each method does it, and compared with the latent of the true one in the
model's own space: mean squared error, whole and by radial frequency (below 1/8, to 1/2, and above
1/2 of Nyquist). Fusers get the latent lift as base and the pixel lift as refined; AGF and DSF as
published, without training. Intervals are 95 % of the mean over photographs, differences are paired
with the latent bicubic lift (DemoFusion's).

Needs photographs and the tiny autoencoders (TAESD, MIT), neither of which is part of this project:
`apt-get install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds
plasma-workspace-wallpapers` (or `dpkg -x` of them; `--photos` is the folder that holds backgrounds/
and wallpapers/), and taesdxl and taesd3 in the host's models/vae_approx, or in `--vaes` or
HRF_TAESD.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..files import ROOT
from ..pack import enter
from ..pictures import to_tensor

# Latent spaces -> (tiny autoencoder, the host's latent format).
SPACES = {
    "SDXL, 4 channels": ("taesdxl", "SDXL"),
    "SD 3, 16 channels": ("taesd3", "SD3"),
}
# Photographs, not drawings, of the Debian packages named above; others in the folder are left out.
PHOTOS = (
    *("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Fossa_by_Jasper_Roks"),
    *("Kleiber_by_Lukas_Baubkus", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi"),
    *("free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich"),
    *("life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi"),
    *("seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi", "umang_by_Abhishek_Mudgal"),
    *("Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird", "RainDrops"),
    *("Storm", "TwoWings", "Wood", "YellowFlower", "Elephants_5640x3172"),
    *("EveningGlow", "FallenLeaf", "Path", "ColorfulCups", "BytheWater", "Kite", "ColdRipple"),
    *("OneStandsOut", "summer_1am", "DarkestHour", "Grey"),
)
SIDE = 256  # px of the truth
BANDS = (1 / 8, 1 / 2)  # of Nyquist
RESAMPLES = 4000
BASE = "latent bicubic"


class Missing(RuntimeError):
    """What the study measures with is not on this machine."""


def find_photos(folder: Path) -> list[Path]:
    """The largest file of each of PHOTOS below a folder; those in folders of their name too."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.jpg")):
        names = [name for name in PHOTOS if name == path.stem or name in path.parts]
        for name in names:
            if name not in found or path.stat().st_size > found[name].stat().st_size:
                found[name] = path
    return [found[name] for name in PHOTOS if name in found]


def photograph(path: Path) -> Image.Image:
    """The middle square of a photograph."""
    with Image.open(path) as image:
        image.draft("RGB", (4 * SIDE, 4 * SIDE))  # decodes less of a large one
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def reduced(image: Image.Image, side: int) -> Tensor:
    """(1, 3, side, side) in 0..1."""
    return to_tensor(image.resize((side, side), Image.Resampling.LANCZOS))


class Space:
    """A latent space of its tiny autoencoder; latents are the model's own."""

    def __init__(self, vae: str, latent_format: str, folder: Path | None = None):
        enter()
        # The host's modules. A statement would name our own room.
        folders, nodes = map(importlib.import_module, ("folder_paths", "nodes"))
        if folder:
            folders.add_model_folder_path("vae_approx", str(folder))
        known = folders.get_filename_list("vae_approx")
        parts = [f"{vae}_{part}" for part in ("encoder", "decoder")]
        if missing := [p for p in parts if not any(name.startswith(p) for name in known)]:
            raise Missing(
                f"{', '.join(missing)} is in no vae_approx folder: put TAESD's files into the "
                "host's models/vae_approx, or name their folder with --vaes or HRF_TAESD"
            )
        from hires_fusion.sampling.fusers import find_format

        self.vae = nodes.VAELoader().load_vae(vae)[0]
        self.format = find_format(latent_format)

    def encode(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to latents of the VAE."""
        return self.vae.encode(picture.movedim(1, -1))

    def own(self, latent: Tensor) -> Tensor:
        """A latent of the VAE in the model's space."""
        return self.format.process_in(latent)


class Pair(NamedTuple):
    """The latent of a finished picture, and that of the same twice as large."""

    small: Tensor
    true: Tensor


def methods(space: Space, pair: Pair) -> Iterator[tuple[str, Tensor]]:
    """What each method makes of the small latent, as latents of the VAE."""
    from hires_fusion.fusion_ops.bands import LowPass, refine
    from hires_fusion.fusion_ops.filters import match_statistics
    from hires_fusion.fusion_ops.latent_fusion import blend
    from hires_fusion.fusion_ops.upsample import Lift
    from hires_fusion.sampling.fusers import fuse
    from hires_fusion.sampling.lift import upsample

    size = tuple(pair.true.shape[-2:])

    def lifted(method: str, **options: float) -> Tensor:
        return upsample({"samples": pair.small}, size, Lift(method, **options), space.vae)[
            "samples"
        ]

    base = lifted(BASE)
    yield BASE, base
    yield "latent nearest", lifted("latent nearest")
    yield "latent bicubic, statistics match", match_statistics(base, pair.small)
    pixels = lifted("pixel bicubic")
    yield "pixel bicubic", pixels
    yield "pixel bicubic, statistics match", match_statistics(pixels, pair.small)
    for cutoff in (0.125, 0.25):
        # What the lift's own lfm does, without the same VAE passes again.
        yield f"pixel bicubic, LFM {cutoff}", refine(base, pixels, 1, LowPass("resize", cutoff))
    yield "pixel bicubic, unsharp 1", lifted("pixel bicubic", unsharp=1.0)
    yield "pixel lanczos", lifted("pixel lanczos")
    yield "pixel nearest", lifted("pixel nearest")
    yield "blend 0.5", blend(base, pixels, 0.5)
    pair_of = {"samples": base}, {"samples": pixels}
    for kind in ("agf", "dsf"):
        options = {"mode": "published", "weights": "", "ratio": 0.5, "seed": 0}
        fused = fuse(kind, *pair_of, latent_format=space.format, **options)
        yield f"{kind.upper()}, untrained", fused[0]["samples"]
    from hires_fusion.fusion_ops import spectrum

    band = spectrum.published_band(0.85, 0.5)
    yield "SpecFusion", spectrum.frequency_fusion(base, pixels, band)


def errors(found: Tensor, true: Tensor) -> list[float]:
    """Mean squared error of (1, C, H, W): of all, and of each band; the bands sum to all."""
    spectrum = torch.fft.fft2((found - true).double(), norm="ortho").abs() ** 2
    across, down = (torch.fft.fftfreq(side).abs() * 2 for side in true.shape[-2:])
    radius = torch.sqrt(across[:, None] ** 2 + down[None, :] ** 2)
    edges = (0.0, *BANDS, float("inf"))
    bands = [
        float((spectrum * ((radius >= low) & (radius < high))).sum() / true.numel())
        for low, high in itertools.pairwise(edges)
    ]
    return [sum(bands), *bands]


def interval(values: Tensor, statistic: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of rows; `values` (photographs, ...)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    found = torch.stack([statistic(values[rows]) for rows in drawn])
    low, high = torch.quantile(found.double(), torch.tensor([0.025, 0.975]).double()).tolist()
    return low, high


def measured(space: Space, photos: list[Path]) -> dict[str, list[list[float]]]:
    """Errors of each method on each photograph, and the truth's own power as "nothing"."""
    found: dict[str, list[list[float]]] = {}
    for path in tqdm(photos):
        image = photograph(path)
        pair = Pair(*(space.encode(reduced(image, side)) for side in (SIDE // 2, SIDE)))
        true = space.own(pair.true)
        rows = [("nothing", torch.zeros_like(true))]
        rows += [(name, space.own(latent)) for name, latent in methods(space, pair)]
        for name, latent in rows:
            found.setdefault(name, []).append(errors(latent.to(true), true))
    return found


def table(found: dict[str, list[list[float]]]) -> str:
    """A row for each method, with its error as a share of the latent bicubic lift's."""
    lines = [
        "| method | error | below 1/8 | to 1/2 | above 1/2 | of latent bicubic's | told apart |",
        "|---|---|---|---|---|---|---|",
    ]
    base = torch.tensor(found[BASE])[:, 0]
    for name, rows in found.items():
        all_, *bands = torch.tensor(rows).mean(0).tolist()
        both = torch.stack([torch.tensor(rows)[:, 0], base], dim=1)
        share = float(both[:, 0].mean() / both[:, 1].mean())
        low, high = interval(both, lambda drawn: drawn[:, 0].mean() / drawn[:, 1].mean())
        verdict = "better" if high < 1 else "worse" if low > 1 else "no"
        cells = " | ".join(f"{value:.4f}" for value in (all_, *bands))
        verdict = "" if name == BASE else verdict
        lines.append(f"| {name} | {cells} | {share:.2f} ({low:.2f}..{high:.2f}) | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    given: Any = os.environ.get("HRF_TAESD")
    parser.add_argument("--photos", type=Path, required=True, help="holds the packages' folders")
    parser.add_argument("--vaes", type=Path, default=given and Path(given), help="of TAESD's files")
    parser.add_argument("--most", type=int, help="photographs, all without")
    parser.add_argument("--out", type=Path, default=ROOT / "lab" / "runs" / "true_latents")
    args = parser.parse_args()
    photos = find_photos(args.photos)[: args.most]
    if not photos:
        raise SystemExit("no photographs there: see --help for the packages")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (vae, latent_format) in SPACES.items():
        try:
            space = Space(vae, latent_format, args.vaes)
        except Missing as missing:
            raise SystemExit(str(missing)) from None
        with torch.inference_mode():
            found = measured(space, photos)
        (args.out / f"{vae}.json").write_text(json.dumps(found), encoding="utf-8")
        print(f"{name}, {len(photos)} photographs\n\n{table(found)}\n", flush=True)


if __name__ == "__main__":
    main()
