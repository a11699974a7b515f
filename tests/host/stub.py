"""A model of the host's own class whose denoiser is a plain function: nothing to train."""

from __future__ import annotations

from collections.abc import Callable

import comfy.conds
import comfy.model_base
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
from torch import Tensor

# (x, sigma (B,), conds of the call) -> x0
Denoiser = Callable[[Tensor, Tensor, dict], Tensor]


class StubModel(comfy.model_base.BaseModel):
    """A BaseModel with an arbitrary function as its denoiser."""

    def __init__(self, denoiser: Denoiser, native_size: int = 128, kind: str = "EPS"):
        config = comfy.supported_models.SDXL({"disable_unet_model_creation": True})
        config.native_size = native_size
        kind = comfy.model_base.ModelType[kind]
        super().__init__(config, kind, device=torch.device("cpu"))
        self.denoiser = denoiser
        self.calls: list[Tensor] = []

    def get_dtype(self) -> torch.dtype:
        return torch.float32

    def apply_model(self, x, t, c_crossattn=None, **kwargs) -> Tensor:
        self.calls.append(x.clone())
        return self.denoiser(x, t, {"context": c_crossattn, **kwargs})

    def extra_conds(self, **kwargs) -> dict:
        out = {"c_crossattn": comfy.conds.CONDCrossAttn(kwargs["cross_attn"])}
        if "map" in kwargs:
            out["map"] = comfy.conds.CONDNoiseShape(kwargs["map"])
        return out


def patcher(denoiser: Denoiser, **options) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the stub; options are StubModel's, such as kind="FLOW"."""
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(StubModel(denoiser, **options), cpu, cpu)


def cond(value: float = 1.0, **options) -> list:
    """A CONDITIONING whose text embedding is one number."""
    return [[torch.full((1, 1, 1), value), options]]


def sample(
    model,
    latent: Tensor,
    *,
    sampler: str | comfy.samplers.Sampler = "euler",
    steps: int = 4,
    seed: int = 7,
    cfg: float = 3.0,
    positive=None,
    negative=None,
    scheduler: str = "ddim_uniform",
    noise: Tensor | None = None,
    sigmas: Tensor | None = None,
    **options,
) -> Tensor:
    """One run of the host's CFGGuider, with noise from the seed; the finished LATENT samples.

    `sigmas` replaces those of scheduler and steps.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive or cond(1.0), negative or cond(-1.0))
    guider.set_cfg(cfg)
    if sigmas is None:
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
    if isinstance(sampler, str):
        sampler = comfy.samplers.sampler_object(sampler)
    if noise is None:
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    return guider.sample(noise, latent, sampler, sigmas, seed=seed, disable_pbar=True, **options)
