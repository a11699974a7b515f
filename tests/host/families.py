"""Tiny randomly initialised models of the host's own classes, one per family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch

from .networks import (
    AURA,
    CHROMA,
    COSMOS,
    FLUX,
    FLUX2,
    HUNYUAN,
    HUNYUAN_IMAGE,
    LTX,
    LUMINA,
    MMDIT,
    PIXART,
    QWEN,
    REFINER,
    SDXL,
    UNET,
    WAN,
    WAN22,
    WAN_I2V,
    Z_IMAGE,
)


@dataclass(frozen=True)
class Family:
    """How to build and prompt a small model.

    Attributes:
        config: class of comfy.supported_models.
        unet: what its checkpoint would tell of its network.
        context: width of a text token.
        pooled: width of the pooled text, 0 for none.
        native: native side in pixels that the pack should know.
        cell: pixels of a latent cell.
        patch: cells of a patch.
        cells: native side of the small model; some host classes take no smaller ones.
        frames: latents have a time axis.
        odd: the host itself takes sides that are no multiples of the patch.
        options: what else its conditioning holds.
    """

    config: str
    unet: dict[str, Any]
    native: int
    context: int = 24
    pooled: int = 0
    cell: int = 8
    patch: int = 2
    cells: int = 16
    frames: bool = False
    odd: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        return getattr(comfy.supported_models, self.config).latent_format().latent_channels


FAMILIES = {
    "SD 1.5": Family("SD15", UNET, 512, patch=1),
    "SD 2": Family("SD20", UNET, 512, patch=1),
    "SDXL": Family("SDXL", SDXL, 1024, pooled=1280, patch=1),
    "SDXL refiner": Family("SDXLRefiner", REFINER, 1024, pooled=1280, patch=1),
    "SD 3": Family("SD3", MMDIT, 1024, pooled=12),
    "AuraFlow": Family("AuraFlow", AURA, 1024),
    "PixArt Sigma": Family("PixArtSigma", PIXART, 1024, cells=40, odd=False),
    "Flux": Family("Flux", FLUX, 1024, pooled=12),
    "Flux 2": Family("Flux2", FLUX2, 1024, pooled=12, cell=16, patch=1),
    "Chroma": Family("Chroma", CHROMA, 1024, pooled=12),
    "Lumina 2": Family("Lumina2", LUMINA, 1024),
    "Z-Image": Family("ZImage", Z_IMAGE, 1024),
    "Qwen-Image": Family("QwenImage", QWEN, 1328, frames=True),
    "HunyuanImage 2.1": Family("HunyuanImage21", HUNYUAN_IMAGE, 2048, cell=32, patch=1),
    "Cosmos Predict2": Family("CosmosT2IPredict2", COSMOS, 1024, frames=True, odd=False),
    "HunyuanVideo": Family("HunyuanVideo", HUNYUAN, 848, pooled=12, frames=True, odd=False),
    "LTX-Video": Family(
        *("LTXV", LTX, 768),
        cell=32,
        patch=1,
        frames=True,
        options={"attention_mask": torch.ones(1, 8, dtype=torch.int64)},
    ),
    "Wan 2.1": Family("WAN21_T2V", WAN, 832, frames=True),
    "Wan 2.1 I2V": Family("WAN21_I2V", WAN_I2V, 832, frames=True),
    "Wan 2.2 5B": Family("WAN22_T2V", WAN22, 1280, cell=16, frames=True),
}


def tiny(family: Family, dtype: torch.dtype = torch.float32) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the family with small random weights, and a small native size.

    Its weights are the same in every dtype, but for their rounding.
    """
    config = getattr(comfy.supported_models, family.config)({"dtype": dtype, **family.unet})
    config.native_size = family.cells * family.cell
    cpu = torch.device("cpu")
    model = config.get_model({}, "", device=cpu)
    generator = torch.Generator().manual_seed(5)
    network = model.diffusion_model
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        scales = tensor.ndim == 1 and not name.endswith("bias")
        spread = 0.1 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
        drawn = scales + spread * torch.randn(tensor.shape, generator=generator)
        tensor.data = drawn.to(tensor.dtype)
    return comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu)


def cond(family: Family, seed: int) -> list:
    """A CONDITIONING of eight random tokens."""
    generator = torch.Generator().manual_seed(seed)
    options = dict(family.options)
    if family.pooled:
        options["pooled_output"] = torch.randn((1, family.pooled), generator=generator)
    return [[torch.randn((1, 8, family.context), generator=generator), options]]


def latent(family: Family, height: int, width: int, batch: int = 1) -> torch.Tensor:
    shape = (batch, family.channels, *([1] if family.frames else []), height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
