"""Distances between sets of features, and how sure they are.

Features are (N, D) float tensors, one row per image. Kernel distance, Inception Score and
precision and recall are torch-fidelity's. The Fréchet distance is ours, because an interval needs
it some hundred times: it takes singular values of an N x N matrix instead of eigenvalues of a
D x D one; tests compare it with torch-fidelity and torchmetrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .packages import need

NEIGHBOURS = 3  # precision and recall, arXiv 1904.06991
KERNEL_SUBSET, KERNEL_SUBSETS = 1000, 50  # KID, arXiv 1801.01401
ENOUGH_FOR_SPLITS = 5000  # Inception Score: images from which on it is a mean over 10 splits


def frechet(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets, arXiv 1706.08500.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2), where S = A^T A for the centred rows A over
    sqrt(N - 1), and tr sqrt(S1 S2) is the sum of the singular values of A1 A2^T.

    Args:
        first, second: (N, D) and (M, D), at least 2 rows each.
    """
    first, second = first.double(), second.double()
    distance = (first.mean(0) - second.mean(0)).square().sum()
    roots = []
    for features in (first, second):
        root = (features - features.mean(0)) / math.sqrt(len(features) - 1)
        distance += root.square().sum()
        # As many rows as columns at most, with the same A^T A.
        roots.append(torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root)
    distance -= 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(0.0, float(distance))


def kernel(first: Tensor, second: Tensor) -> float:
    """KID, arXiv 1801.01401: unbiased squared MMD with the cubic kernel; may be below 0.

    Of sets of one size up to 1000 it takes all pairs; else the mean over random subsets.
    """
    fidelity = need("torch_fidelity.metric_kid", "KID")
    size = min(len(first), len(second), KERNEL_SUBSET)
    subsets = 1 if len(first) == len(second) == size else KERNEL_SUBSETS
    found = fidelity.kid_features_to_metric(
        first.double(),
        second.double(),
        kid_subsets=subsets,
        kid_subset_size=size,
        verbose=False,
    )
    return found[fidelity.KEY_METRIC_KID_MEAN]


def inception_score(logits: Tensor) -> float:
    """Inception Score, arXiv 1606.03498; of fewer than 5000 images in one piece, not in ten."""
    fidelity = need("torch_fidelity.metric_isc", "Inception Score")
    splits = 10 if len(logits) >= ENOUGH_FOR_SPLITS else 1
    return fidelity.isc_features_to_metric(logits, splits)[fidelity.KEY_METRIC_ISC_MEAN]


def precision_recall(generated: Tensor, reference: Tensor) -> tuple[float, float]:
    """Improved precision and recall, arXiv 1904.06991, with 3 neighbours."""
    fidelity = need("torch_fidelity.metric_prc", "precision and recall")
    # Squared distances through matrix products cancel in float32 for near rows.
    found = fidelity.prc_features_to_metric(
        generated.double(),
        reference.double(),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=10000,
        save_cpu_ram=False,
        verbose=False,
    )
    return found[fidelity.KEY_METRIC_PRECISION], found[fidelity.KEY_METRIC_RECALL]


def half_samples(
    statistic: Callable[[list[np.ndarray]], np.ndarray],
    counts: list[int],
    rounds: int,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Deviations of a statistic of random half samples from their mean; (rounds, values).

    The repeated half-sample bootstrap: a half drawn without replacement varies around the whole
    sample as the whole sample does around the truth. The ordinary bootstrap draws images twice,
    which KID and precision take for images that are alike.

    Args:
        statistic: values from the chosen rows of each set.
        counts: images of each set; a crop stays with its image, so images are what is drawn.
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        values.append(statistic([rng.permutation(n)[: math.ceil(n / 2)] for n in counts]))
        tick()
    found = np.asarray(values, np.float64)
    return found - found.mean(0)


def interval(value: float, deviations: np.ndarray, bounds: tuple[float, float]) -> tuple:
    """(low, high): the 95 % interval around a value, within the metric's own bounds."""
    if not len(deviations) or not np.isfinite(deviations).all():
        return math.nan, math.nan
    low, high = value + np.quantile(deviations, (0.025, 0.975))
    return tuple(float(np.clip(bound, min(bounds[0], value), bounds[1])) for bound in (low, high))


def mean_interval(values: np.ndarray, rounds: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of a mean."""
    if not rounds or len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)
