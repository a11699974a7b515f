"""Distances against what is known of them, and against the two libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from evaluation import distances
from evaluation.spectrum import (
    fine_share,
    frequencies,
    plane_spectrum,
    radial_spectrum,
    spectrum_distance,
    spectrum_slope,
)


def cloud(rows, columns, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * scale + shift


def whitened(rows, columns, seed):
    """A set whose mean is 0 and whose covariance is the identity, exactly."""
    x = cloud(rows, columns, seed).double()
    x -= x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (rows - 1))).T


@pytest.mark.parametrize("rows", [40, 5])
def test_frechet_distance_of_a_set_to_itself_is_zero(rows):
    x = cloud(rows, 12)
    assert distances.frechet(x, x) < 1e-9
    assert distances.frechet(x, x.flip(0)) < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_of_known_gaussians(seed):
    rng = np.random.default_rng(seed)
    rows, columns = 200, 6
    first, second = whitened(rows, columns, seed), whitened(rows, columns, seed + 10)
    means = torch.from_numpy(rng.normal(size=(2, columns)))
    deviations = torch.from_numpy(rng.uniform(0.5, 2, (2, columns)))
    # Of diagonal covariances: |m1 - m2|^2 + |s1 - s2|^2.
    wanted = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    found = distances.frechet(first * deviations[0] + means[0], second * deviations[1] + means[1])
    assert found == pytest.approx(float(wanted), rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    first = whitened(100, 2, 0) * torch.tensor([1.0, 3.0])
    second = whitened(100, 2, 1) * torch.tensor([2.0, 0.5]) @ turn.T
    a = torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))
    b = turn @ torch.diag(torch.tensor([4.0, 0.25], dtype=torch.float64)) @ turn.T
    # Of 2 x 2 matrices: (tr sqrt M)^2 = tr M + 2 sqrt(det M).
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float((a @ b).det())))
    wanted = float(a.trace() + b.trace()) - 2 * root
    assert distances.frechet(first, second) == pytest.approx(wanted, rel=1e-9)


class Given(nn.Module):
    """A feature network that returns what it is given."""

    def __init__(self, columns):
        super().__init__()
        self.num_features = columns

    def forward(self, x):
        return x


def of_torchmetrics(metric, first, second):
    metric.update(first, real=False)
    metric.update(second, real=True)
    return metric.compute()


@pytest.mark.parametrize("rows", [30, 120])
def test_both_libraries_agree_on_the_frechet_distance(rows):
    from torch_fidelity import metric_fid

    columns = 64
    first, second = cloud(rows, columns), cloud(rows, columns, 1, 0.3, 1.4)
    stats = [metric_fid.fid_features_to_statistics(x.double()) for x in (first, second)]
    fidelity = metric_fid.fid_statistics_to_metric(*stats, verbose=False)
    metrics = FrechetInceptionDistance(Given(columns)).set_dtype(torch.float64)
    found = distances.frechet(first, second)
    assert found == pytest.approx(fidelity[metric_fid.KEY_METRIC_FID], rel=1e-4)
    assert found == pytest.approx(float(of_torchmetrics(metrics, first, second)), rel=1e-4)


def test_both_libraries_agree_on_the_kernel_distance():
    first, second = cloud(50, 64), cloud(50, 64, 1, 0.3, 1.4)
    metrics = KernelInceptionDistance(Given(64), subsets=1, subset_size=50)
    mean, _ = of_torchmetrics(metrics, first, second)
    assert distances.kernel(first, second) == pytest.approx(float(mean), rel=1e-4)


def test_kernel_distance_is_unbiased():
    found = [distances.kernel(cloud(20, 8, i), cloud(20, 8, 1000 + i)) for i in range(200)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error and min(found) < 0
    # The Fréchet distance of the same sets is not.
    assert distances.frechet(cloud(20, 8), cloud(20, 8, 1000)) > 0.5


def test_kernel_distance_of_sets_of_different_sizes():
    near = distances.kernel(cloud(30, 8), cloud(47, 8, 1))
    assert abs(near) < 0.1 < distances.kernel(cloud(30, 8), cloud(47, 8, 1, 1.0))


def test_precision_and_recall_of_known_clouds():
    near, far = cloud(100, 4), cloud(100, 4, 1, 100.0)
    assert distances.precision_recall(near, near) == (1, 1)
    assert distances.precision_recall(near, far) == (0, 0)
    both = torch.cat([near, far])
    # All that is generated is real, but only half of what is real is generated.
    precision, recall = distances.precision_recall(near, both)
    assert precision == 1 and recall == pytest.approx(0.5)
    precision, recall = distances.precision_recall(both, near)
    assert precision == pytest.approx(0.5) and recall == 1


def test_precision_and_recall_by_hand():
    # Third neighbours of 0..4 are at distances 3, 2, 2, 2, 3; that of 6 is at 4.
    reference = torch.arange(5.0)[:, None]
    generated = torch.tensor([[0.0], [-2.5], [-3.5], [6.5], [7.5]])
    precision, _ = distances.precision_recall(generated, reference)
    assert precision == pytest.approx(3 / 5)


def test_inception_score_of_known_classes():
    sure = 100.0 * torch.eye(8).repeat(4, 1)
    assert distances.inception_score(sure) == pytest.approx(8)
    assert distances.inception_score(torch.zeros(32, 8)) == pytest.approx(1)
    assert distances.inception_score(100.0 * torch.eye(8)[:1].repeat(9, 1)) == pytest.approx(1)


@pytest.mark.parametrize("statistic", ["frechet", "kernel"])
def test_intervals_are_as_wide_as_repetitions_differ(statistic):
    of, size = getattr(distances, statistic), 40
    sets = [(cloud(size, 4, i), cloud(size, 4, 5000 + i, 1.0)) for i in range(300)]
    true = [of(*pair) for pair in sets]
    widths = []
    for pair in sets[:15]:
        away = distances.half_samples(
            lambda rows, pair=pair: [of(pair[0][rows[0]], pair[1][rows[1]])], [size, size], 60, 0
        )
        assert away.mean() == pytest.approx(0, abs=1e-9)
        low, high = distances.interval(of(*pair), away[:, 0], (0, math.inf))
        assert low < of(*pair) < high
        widths.append(away.std())
    assert np.mean(widths) == pytest.approx(np.std(true), rel=0.25)


def test_interval_of_a_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = distances.mean_interval(values, 500, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert all(math.isnan(bound) for bound in distances.mean_interval(values[:1], 500, 0))


def noise_of_slope(slope, seed, side=128):
    """(3, H, W) grey noise whose power falls with frequency to the `slope`."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    radius = (rows[:, None].square() + columns.square()).sqrt()
    radius[0, 0] = 1
    white = torch.fft.rfft2(torch.randn(side, side, generator=generator))
    return torch.fft.irfft2(white * radius ** (slope / 2), s=(side, side)).expand(3, -1, -1)


@pytest.mark.parametrize("slope", [-1.0, -2.0, -3.0])
def test_spectrum_has_the_slope_of_the_noise(slope):
    spectra = torch.stack([radial_spectrum(noise_of_slope(slope, i)) for i in range(20)])
    inner = slice(4, -1)
    log = frequencies().log10().double()[inner]
    found = np.polyfit(log.numpy(), spectra.mean(0)[inner].numpy(), 1)[0]
    assert found == pytest.approx(slope, abs=0.12)
    assert spectrum_slope(spectra.mean(0)) == pytest.approx(slope, abs=0.12)


def test_slope_and_share_of_spectra_by_hand():
    power = -2 * frequencies(8).log10()
    assert spectrum_slope(power) == pytest.approx(-2, rel=1e-5)
    power[[0, 3]] = torch.nan  # a small picture lacks some rings
    assert spectrum_slope(power) == pytest.approx(-2, rel=1e-5)
    # Rings of equal power count by their areas, which grow as 1, 3, 5, 7.
    assert fine_share(torch.zeros(4)) == pytest.approx(12 / 16)
    assert fine_share(torch.tensor([0, 0, 1, torch.nan])) == pytest.approx(50 / 54)
    white = torch.stack([radial_spectrum(noise_of_slope(0, i)) for i in range(20)]).mean(0)
    assert fine_share(white) == pytest.approx(0.75, abs=0.03)


def test_the_spectrum_of_planes_tells_where_a_wave_lies():
    noise = torch.randn(64, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    flat = plane_spectrum(noise, 8)
    assert flat.shape == (64, 2, 8) and float(flat.mean(0)[:, 2:].abs().max()) < 0.15
    wave = torch.cos(torch.arange(16) * 2 * torch.pi * 3 / 16)  # 3/16 cycles: ring 3 of 8
    noise[:, 0] += 3 * wave
    change = (plane_spectrum(noise, 8) - flat).mean(0)
    assert int(change[0].nan_to_num(-1).argmax()) == 3 and float(change[0, 3]) > 1
    assert bool((change[1].nan_to_num() == 0).all())
    assert torch.allclose(plane_spectrum(noise[5, 1], 8), flat[5, 1], equal_nan=True)


def test_spectrum_distance_of_known_slopes():
    sets = [
        torch.stack([radial_spectrum(noise_of_slope(s, i)) for i in range(30)]) for s in (-2, -3)
    ]
    log = 10 * frequencies().log10().double()
    wanted = float(log.square().mean().sqrt())  # 10 log10 of f^-2 / f^-3, over all rings
    assert spectrum_distance(*sets) == pytest.approx(wanted, rel=0.08)
    assert spectrum_distance(sets[0], sets[0]) == 0


def test_power_is_per_pixel_and_counts_gain():
    small = torch.stack([radial_spectrum(noise_of_slope(0, i, 64)) for i in range(40)])
    large = torch.stack([radial_spectrum(noise_of_slope(0, i, 128)) for i in range(40)])
    assert spectrum_distance(small, large) < 0.6
    half = torch.stack([radial_spectrum(noise_of_slope(0, i, 64) / 2) for i in range(40)])
    assert spectrum_distance(small, half) == pytest.approx(20 * math.log10(2), rel=1e-6)
