"""A session of the lab that draws nothing."""

from __future__ import annotations

import types

import torch


class Redrawing:
    """Turns whatever it is given white, and remembers how it was asked."""

    native, steps, calls, cells = 32, 20, 0, 0

    def __init__(self, *_):
        self.asked = []
        self.vae = types.SimpleNamespace(encode=lambda pixels: pixels[:, ::8, ::8, :1])

    def sample(self, prompt, latent, seed, *_, **how):
        side = latent.shape[1:3] if latent.shape[-1] == 1 else latent.shape[2:]
        self.asked.append((tuple(side), how))
        return torch.zeros(1, 4, *side)

    def decode(self, latent):
        return torch.ones(1, 3, latent.shape[-2] * 8, latent.shape[-1] * 8)
