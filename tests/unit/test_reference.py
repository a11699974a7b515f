"""The plain DemoFusion loop's scaling fault, against known answers."""

from __future__ import annotations

import math

import pytest
import torch

from lab.reference.demofusion import Looks, misscaled, phase


def eps(scaled, sigma):
    """A model of noise that is given its scaled input, as in the published code."""
    return torch.tanh(3 * scaled) + 0.1 * sigma


def denoise(x, sigma):
    return x - sigma * eps(x / math.sqrt(sigma**2 + 1), sigma)


@pytest.mark.parametrize("scaled_as", [0.0, 0.7, 2.0, 14.0])
def test_the_model_sees_the_input_of_the_other_level(scaled_as):
    x, sigma = torch.randn(1, 4, 5, 5) * 3, 2.0
    expected = x - sigma * eps(x / math.sqrt(scaled_as**2 + 1), sigma)
    assert torch.allclose(misscaled(denoise, x, sigma, scaled_as), expected, atol=1e-5)


def test_only_the_first_batch_of_a_step_is_scaled_right():
    x = torch.randn(1, 4, 5, 5)
    look = Looks(denoise, 2.0, 2.0, 1.0, 3)
    right = [torch.equal(look(x), denoise(x, 2.0)) for _ in range(5)]
    assert right == [True, True, True, False, False]
    short = Looks(denoise, 2.0, 2.0, 1.0, 3)
    short(x)
    short.end_batch()
    assert not torch.equal(short(x), denoise(x, 2.0))


def run(batch):
    x, noise = torch.randn(2, 1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    calls = []

    def record(view, sigma):
        calls.append(sigma)
        return denoise(view, sigma)

    out = phase(
        x,
        noise,
        2,
        [9.0, 3.0, 0.0],
        [0.9, 0.3],
        record,
        lambda sigma: [(0, 0)] * 9,
        window=6,
        stride=3,
        fault_batch=batch,
    )
    return out, len(calls)


def test_the_fault_depends_on_the_batch_and_is_off_by_default():
    right, calls = run(0)
    assert calls == 2 * (9 + 4)
    small, large = run(2)[0], run(9)[0]
    assert (right - small).norm() > 0.01 * right.norm()
    assert (small - large).norm() > 0.01 * right.norm()
