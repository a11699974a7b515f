"""Compares a set of generated images with a set of reference images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .features import Extractor, InceptionV3, Lite0
from .images import Images, Source, check_crops
from .metrics import DEFAULT, FIDELITY, METRICS, SETS, Score, has_features, notes
from .packages import need
from .perceptual import load_lpips
from .run import Run, Watch
from .scorers import SOURCES, Scorer, default_folder, load_scorer

__all__ = ["DEFAULT", "METRICS", "Score", "compare"]


def compare(
    generated: Source,
    reference: Source,
    *,
    metrics: Sequence[str] = DEFAULT,
    crops: int = 0,
    crop_size: int = 0,
    seed: int = 0,
    bootstrap: int = 200,
    prompts: list[str] | None = None,
    progress: bool = True,
    extractor: Extractor | Path | None = None,
    models: Path | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    device: str | torch.device = "cpu",
    watch: Watch | None = None,
) -> dict[str, Score]:
    """Figures by name, in the order asked for.

    Metrics of features carry the extractor's suffix in their names ("FID-Lite0"; none with
    Inception-v3); LPIPS is "ST-LPIPS" where torchvision's trunk is not at hand. With crops, every
    metric of features comes a second time, as "FID-crop-Lite0".

    Args:
        generated, reference: tensors (N, 3, H, W) in 0..1, folders, or lists of files.
        metrics: names from METRICS, or of `scorers`.
        crops: random square crops of each image, 10 of the native size in DemoFusion's protocol.
        crop_size: their side in pixels.
        seed: of crops and intervals.
        bootstrap: rounds for the 95 % intervals, 0 for none.
        prompts: what each generated image shows, for the scores that read.
        progress: show progress bars.
        extractor: a feature network; a path is Inception-v3 weights; None is EfficientNet-Lite0.
        models: folder of weights, see `scorers.SOURCES`.
        scorers: used instead of the published ones of those names, or as further ones.
        device: where networks run.
        watch: called with (images read, images to read).

    Raises:
        ValueError: wrong input, before anything is computed.
        MissingPackage, MissingModel, FileNotFoundError: what to install or to fetch.
    """
    made, seen = Images(generated, "generated"), Images(reference, "reference")
    scorers = dict(scorers or {})
    check(metrics, made, seen, crops, crop_size, prompts, scorers)
    for name in FIDELITY.intersection(metrics):
        need("torch_fidelity", name)
    models = default_folder(models)
    network = _extractor(extractor, device) if has_features(metrics) else None
    lpips = load_lpips(models, device) if "LPIPS" in metrics else None
    for name in metrics:
        if name in SOURCES and name not in scorers:
            scorers[name] = load_scorer(name, models, device)

    with (
        torch.no_grad(),
        Run(made, seen, crops, crop_size, seed, bootstrap, progress, watch) as run,
    ):
        both = len(made) + len(seen)
        for name in metrics:
            single = len(made)
            twice = both * (2 if crops else 1)
            run.expect(twice if name in SETS else both if name == "spectrum" else single)
        found: dict[str, Score] = {}
        for name in metrics:
            if name in scorers:
                found[name] = run.scores(scorers[name], prompts)
            elif name in SETS:
                found |= run.set_metric(name, network)
            elif name == "LPIPS":
                found[lpips.name] = run.pairs(lpips)
            else:
                found[name] = run.spectrum()
    for note in notes(found):
        warnings.warn(note, stacklevel=2)
    return found


def _extractor(given: Extractor | Path | str | None, device: str | torch.device) -> Extractor:
    if given is None:
        return Lite0(device)
    return InceptionV3(Path(given), device) if isinstance(given, (str, Path)) else given


def check(
    metrics: Sequence[str],
    made: Images,
    seen: Images,
    crops: int = 0,
    crop_size: int = 0,
    prompts: list[str] | None = None,
    scorers: Mapping[str, Scorer] | None = None,
) -> None:
    """Raise ValueError, with the fix, for what `compare` could not compute."""
    scorers = scorers or {}
    known = [*METRICS, *(name for name in scorers if name not in METRICS)]
    unknown = [name for name in metrics if name not in known]
    if unknown or not metrics:
        what = f"no metric {unknown[0]!r}" if unknown else "no metrics"
        raise ValueError(f"{what}: choose from {', '.join(known)}")
    for name in metrics:
        least = SETS[name].least if name in SETS else 1
        for images, what in ((made, "generated"), (seen, "reference")):
            if len(images) < least:
                raise ValueError(
                    f"{name} needs at least {least} {what} images and there are {len(images)}: "
                    f"give more, or leave {name} out"
                )
        reads = SOURCES[name].uses_prompt if name in SOURCES else name in scorers
        if reads and prompts is None:
            raise ValueError(f"{name} needs prompts: one for each generated image")
    if prompts is not None and len(prompts) != len(made):
        raise ValueError(f"{len(prompts)} prompts for {len(made)} generated images: give one each")
    if "LPIPS" in metrics and len(made) != len(seen):
        raise ValueError(
            f"LPIPS compares image i with image i, but {len(made)} generated images meet "
            f"{len(seen)} references: give as many of each in the same order, or leave LPIPS out"
        )
    if crops < 0 or (crops > 0) != (crop_size > 0):
        raise ValueError("crops and crop_size go together: both above 0, or both 0")
    if crops:
        check_crops(made, crop_size, "generated")
        check_crops(seen, crop_size, "reference")
