"""The metrics by name: what each is computed from, and what its figures may mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from . import distances
from .scorers import SOURCES


class Score(NamedTuple):
    """One figure.

    Attributes:
        value: the figure.
        low, high: its 95 % interval; NaN where none was asked for or there are too few images.
        count: images (or crops) that it rests on, of the smaller set.
    """

    value: float
    low: float
    high: float
    count: int


class SetMetric(NamedTuple):
    """A metric of two sets of features."""

    part: str  # of Features
    least: int  # images that each set must have
    bounds: tuple[float, float]
    of: Callable[[Tensor, Tensor], float]


def _precision(generated: Tensor, reference: Tensor) -> float:
    return distances.precision_recall(generated, reference)[0]


def _recall(generated: Tensor, reference: Tensor) -> float:
    return distances.precision_recall(generated, reference)[1]


def _inception_score(generated: Tensor, reference: Tensor) -> float:
    return distances.inception_score(generated)


_NEAR = distances.NEIGHBOURS + 1
SETS = {
    "FID": SetMetric("pooled", 2, (0, math.inf), distances.frechet),
    "sFID": SetMetric("spatial", 2, (0, math.inf), distances.frechet),
    "KID": SetMetric("pooled", 2, (-math.inf, math.inf), distances.kernel),
    "precision": SetMetric("pooled", _NEAR, (0, 1), _precision),
    "recall": SetMetric("pooled", _NEAR, (0, 1), _recall),
    "IS": SetMetric("logits", 1, (1, math.inf), _inception_score),
}
FIDELITY = {"KID", "precision", "recall", "IS"}  # computed by torch-fidelity
METRICS = (*SETS, "spectrum", "LPIPS", *SOURCES)
DEFAULT = ("FID", "sFID", "KID", "precision", "recall", "IS", "spectrum")
HIGHER_IS_BETTER = {"precision", "recall", "IS", *SOURCES}

# Features per image, by the suffix of the metric's name.
_DIMENSIONS = {("FID", "-Lite0"): 1280, ("sFID", "-Lite0"): 1372}
_DIMENSIONS |= {("FID", ""): 2048, ("sFID", ""): 2023}


def base_name(name: str) -> str:
    """The metric that a figure's name is of: "FID-crop-Lite0" is FID."""
    name = name.removeprefix("ST-")
    return next((m for m in METRICS if name == m or name.startswith(f"{m}-")), name)


def notes(scores: Mapping[str, Score]) -> list[str]:
    """What a reader of these figures has to know."""
    biased = []
    for name, score in scores.items():
        suffix = name.removeprefix(base_name(name)).removeprefix("-crop")
        dimensions = _DIMENSIONS.get((base_name(name), suffix), 0)
        if score.count <= dimensions:
            biased.append(f"{name} ({score.count} samples for {dimensions} dimensions)")
    found = []
    if biased:
        found.append(
            f"Biased upwards by few samples: {', '.join(biased)}. Compare them only between sets "
            "of equal size, or trust KID"
        )
    if any(name.endswith("-Lite0") for name in scores):
        found.append(
            "-Lite0: EfficientNet-Lite0 features instead of Inception-v3, not comparable with "
            "published figures"
        )
    return found


def direction(name: str) -> str:
    """Which way a metric gets better."""
    return "higher" if base_name(name) in HIGHER_IS_BETTER else "lower"


def has_features(names: Iterable[str]) -> bool:
    """Whether a feature network is needed."""
    return not SETS.keys().isdisjoint(names)
