"""The demo model as a rectified flow: the same denoiser under the names of SD 3 and Flux.

A flow's x = (1 - s) z + s n is the x of k-diffusion at sigma = s / (1 - s), times 1 - s. So a model
that predicts eps answers for a flow too, and what flow models do to a method, their scale of x and
their schedule, can be measured without one.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_sampling import CONST, reshape_sigma
from torch import Tensor


class FlowOfEps(torch.nn.Module, CONST):
    """A flow's model_sampling over a network that predicts eps.

    Args:
        discrete: the model_sampling that the network was trained with.
    """

    def __init__(self, discrete: Any):
        super().__init__()
        self.discrete = discrete
        self.register_buffer("sigmas", discrete.sigmas / (1 + discrete.sigmas))

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        return self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        return self.discrete.timestep(sigma / (1 - sigma))

    def sigma(self, timestep: Tensor) -> Tensor:
        sigma = self.discrete.sigma(timestep)
        return sigma / (1 + sigma)

    def percent_to_sigma(self, percent: float) -> float:
        sigma = self.discrete.percent_to_sigma(percent)
        return sigma / (1 + sigma) if sigma < 1e9 else sigma

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """x as the network knows it: of unit variance."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return noise / ((1 - sigma) ** 2 + sigma**2) ** 0.5

    def calculate_denoised(self, sigma: Tensor, output: Tensor, model_input: Tensor) -> Tensor:
        """z of eps and x."""
        sigma = reshape_sigma(sigma, output.ndim)
        return (model_input - sigma * output) / (1 - sigma)


def as_flow(model: Any) -> Any:
    """A clone of the MODEL that samples as a flow."""
    flow = model.clone()
    flow.add_object_patch("model_sampling", FlowOfEps(model.get_model_object("model_sampling")))
    return flow
