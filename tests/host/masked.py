"""Latents, masks and a VAE for the tests of what a noise mask keeps."""

from __future__ import annotations

import torch


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def textured(x, sigma, conds):
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    wave = torch.linspace(0, 6, x.shape[-1]).sin()
    return torch.tanh(near / (1 + sigma.view(-1, 1, 1, 1)) + 0.3 * wave)


class PoolingVAE:
    """A VAE whose cells are 2 x 2 pixels; something is lost on the way. Video where it is given."""

    video = False

    def spacial_compression_decode(self):
        return 2

    def decode(self, samples):
        self.video = samples.ndim == 5
        pixels = samples.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return pixels[:, :3].mul(0.1).add(0.5).movedim(1, -1)

    def encode(self, pixels):
        cells = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 2).sub(0.5).mul(9.5)
        cells = torch.cat([cells, cells[:, :1]], 1)
        return cells.unsqueeze(2) if self.video else cells


H, W, LEFT = 16, 24, 12


def left_kept(shape, cell=1):
    """Keep the left half, softly at its border: 0, then one column of a half, then 1."""
    mask = torch.ones(shape)
    mask[..., : (LEFT - 1) * cell] = 0
    mask[..., (LEFT - 1) * cell : LEFT * cell] = 0.5
    return mask


def each_its_own():
    """Two pictures: the first keeps its left half, the second its right half."""
    mask = torch.zeros(2, 1, H, W)
    mask[0, ..., LEFT:], mask[1, ..., :LEFT] = 1, 1
    return mask
