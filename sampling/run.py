"""What one sampling run knows of itself: its seed and its noise levels."""

from __future__ import annotations

import random

from torch import Tensor


class Run:
    """State of one sampling run, gone when it ends."""

    def __init__(self, seed: int = 0, sigmas: Tensor | None = None):
        self.seed = seed
        # As numbers: a sampler may write into the tensor (uni_pc does).
        self.sigmas = [] if sigmas is None else sigmas[:-1].tolist()

    def nearest(self, sigma: float) -> int:
        """The step whose start is nearest to a noise level."""
        return min(range(len(self.sigmas)), key=lambda i: abs(self.sigmas[i] - sigma))

    def rng(self, sigma: float, what: str = "") -> random.Random:
        """Random numbers of one noise level: they depend on nothing but it, the seed and `what`.

        Levels within a step take those of the step's nearer end, or else a sampler that chooses
        its levels (dpm_adaptive) would get others after the smallest rounding. Four digits, for a
        GPU rounds the schedule elsewhere than a CPU does.
        """
        if self.sigmas:
            sigma = self.sigmas[self.nearest(sigma)]
        return random.Random(f"{self.seed}/{sigma:.3e}{what}")
