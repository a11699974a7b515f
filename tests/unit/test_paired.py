"""What can be told apart: distances and means of paired seeds, against known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lab.bench.paired import NONE, Estimate, distance_pairs, of_pairs, of_values
from lab.bench.standings import words


def features(count: int, shift: float, seed: int, crops: int = 2, depth: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, crops, depth)) + shift


def test_the_distance_is_the_unbiased_mmd_by_hand():
    row, reference = features(4, 0.5, 1, crops=1), features(4, 0.0, 2, crops=1)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a[0] @ b[0] / 6 + 1) ** 3)

    wanted = [
        k(row[i], row[j])
        + k(reference[i], reference[j])
        - k(row[i], reference[j])
        - k(row[j], reference[i])
        for i, j in itertools.permutations(range(4), 2)
    ]
    found = of_pairs(distance_pairs(row, reference), 100)
    assert found.value == pytest.approx(np.mean(wanted)) and found.count == 4


def test_the_distance_of_one_distribution_is_zero_on_average():
    values = [
        of_pairs(distance_pairs(features(12, 0, 2 * s), features(12, 0, 2 * s + 1)), 2).value
        for s in range(300)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))


def share_told_apart(shift: float, seeds: int, tries: int = 200) -> float:
    """How often two rows are told apart that share part of each picture, as methods do."""
    told = 0
    for t in range(tries):
        reference, shared = features(seeds, 0, 3 * t), features(seeds, 0.4, 3 * t + 1)
        a, b = (shared + 0.3 * features(seeds, s, 5 * t + s0) for s, s0 in ((shift, 2), (0, 3)))
        pairs = distance_pairs(a, reference) - distance_pairs(b, reference)
        told += of_pairs(pairs, 300).verdict() != "not told apart"
    return told / tries


def test_equal_rows_are_rarely_told_apart_and_different_ones_often():
    assert share_told_apart(0.0, 8) < 0.09
    assert share_told_apart(0.0, 24) < 0.09
    assert share_told_apart(1.0, 24) > 0.8


def test_means_have_students_interval():
    values = np.random.default_rng(0).normal(size=(400, 8))
    missed = [not (e.low < 0 < e.high) for e in (of_values(v, 300) for v in values)]
    assert 0.02 < np.mean(missed) < 0.08
    assert of_values([1.0, np.nan, 3.0], 100).value == 2
    assert of_values([1.0], 100) == NONE and not NONE.exists


def test_verdicts_are_words():
    assert words(Estimate(-0.02, -0.03, -0.01, 9)) == "better (-0.020)"
    assert words(Estimate(0.02, 0.01, 0.03, 9)) == "worse (+0.020)"
    assert words(Estimate(0.02, -0.01, 0.03, 9)) == "not told apart"
    assert words(Estimate(-1.0, -1.0, -1.0, 5)) == "not told apart"  # one in sixteen by chance
    assert words(NONE) == ""
