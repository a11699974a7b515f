"""Small models with windowed attention, and what their attention is asked."""

from __future__ import annotations

import pytest
import torch

from hires_fusion.sampling.attention import OVERRIDE, WindowedAttention, add_windowed_attention

from .families import FAMILIES, cond, latent
from .stub import sample

KNOWN = (
    *("SD 1.5", "SD 2", "SDXL", "SDXL refiner", "SD 3", "Flux", "Flux 2", "Chroma"),
    *("Lumina 2", "Z-Image", "Qwen-Image"),
)


def draw(family, model, x, **options):
    prompts = {"positive": cond(family, 2), "negative": cond(family, 3)}
    return sample(model, x, **({"steps": 2, "scheduler": "simple"} | prompts | options))


def windowed(model, **settings):
    return add_windowed_attention(model, WindowedAttention(**settings))


def counting(model):
    """A clone that notes (batch, heads or 1, q tokens, k tokens) of every attention; and them."""
    calls = []

    def note(function, q, k, v, heads, *args, **kwargs):
        axis = 2 if kwargs.get("skip_reshape") else 1
        calls.append((len(q), q.shape[axis], k.shape[axis]))
        return function(q, k, v, heads, *args, **kwargs)

    model = model.clone()
    model.model_options["transformer_options"][OVERRIDE] = note
    return model, calls


def close(got, wanted):
    """The same but for the order of sums, as seen from the largest value."""
    return torch.allclose(got, wanted, rtol=1e-3, atol=2e-4 * float(wanted.abs().max()))


def noise_like(x):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(3))


SD, FLUX = FAMILIES["SD 1.5"], FAMILIES["Flux"]


def both(test):
    return pytest.mark.parametrize("family", [SD, FLUX], ids=["SD 1.5", "Flux"])(test)


def large(family, batch=1):
    return latent(family, 2 * family.cells, 3 * family.cells, batch)
