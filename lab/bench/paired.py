"""Differences of two rows on the same seeds: how large, how sure, and in words.

A row's pictures of a seed and the reference of the seed have one caption, so seeds are what is
independent. The kernel distance is the mean over pairs of *different* seeds, which is unbiased
(arXiv 1801.01401, Gretton et al. 2012, equation 3), and its bootstrap draws seeds with replacement
and never pairs one with itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

SURE = 0.95
SAME = "not told apart"
FEWEST = 6  # seeds: of fewer, not even all signs alike would be rarer than 1 in 20


class Estimate(NamedTuple):
    """A figure with its 95 % interval, and the seeds that it rests on."""

    value: float
    low: float
    high: float
    count: int

    def verdict(self, below: str = "better", above: str = "worse") -> str:
        """A difference in words: whether the interval lies below 0, above 0 or around it."""
        if self.count < FEWEST or self.low <= 0 <= self.high:
            return SAME
        return below if self.high < 0 else above

    @property
    def exists(self) -> bool:
        """Whether there are seeds at all."""
        return self.count > 1


NONE = Estimate(np.nan, np.nan, np.nan, 0)


def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KID's cubic kernel between pictures, the mean over pairs of their crops.

    Args:
        first, second: (N, crops, D) and (M, crops, D).

    Returns:
        (N, M).
    """
    shape = len(first), first.shape[1], len(second), second.shape[1]
    products = first.reshape(-1, first.shape[-1]) @ second.reshape(-1, second.shape[-1]).T
    return ((products / first.shape[-1] + 1) ** 3).reshape(shape).mean((1, 3))


def distance_pairs(row: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(N, N) whose mean off the diagonal is the squared distance (MMD) of the two sets.

    Args:
        row, reference: (N, crops, D) of the same seeds in the same order.
    """
    across = kernel(row, reference)
    return kernel(row, row) + kernel(reference, reference) - across - across.T


def _drawn(count: int, draws: int) -> np.ndarray:
    """(draws, count): how often each seed is drawn."""
    rng = np.random.default_rng(count)
    return rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def _estimate(value: float, drawn: np.ndarray, count: int) -> Estimate:
    """A figure with the interval that its bootstrap's deviation gives.

    Student's t and n / (n - 1) make up for few seeds, whose percentiles are too narrow.
    """
    reach = float(stats.t.ppf((1 + SURE) / 2, count - 1)) * np.nanstd(drawn)
    reach *= np.sqrt(count / (count - 1))
    return Estimate(value, value - reach, value + reach, count)


def of_pairs(pairs: np.ndarray, draws: int) -> Estimate:
    """The mean of a symmetric (N, N) off its diagonal."""
    count = len(pairs)
    if count < 3:
        return NONE
    pairs = pairs - np.diag(np.diag(pairs))
    times = _drawn(count, draws)
    total = ((times @ pairs) * times).sum(1)
    number = count**2 - (times**2).sum(1)
    means = np.divide(total, number, out=np.full(draws, np.nan), where=number > 0)
    return _estimate(float(pairs.sum() / (count * (count - 1))), means, count)


def of_values(values: np.ndarray, draws: int) -> Estimate:
    """The mean of (N,) values, one a seed."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return NONE
    means = _drawn(len(values), draws) @ values / len(values)
    return _estimate(float(values.mean()), means, len(values))
