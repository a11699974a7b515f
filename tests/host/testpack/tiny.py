"""Models of every family as nodes: tiny random networks, and stubs of text encoder and VAE."""

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parents[1]


def _families():
    """tests/host/families.py, which is no part of this pack."""
    if "hrft_host.families" not in sys.modules:
        folder = importlib.util.spec_from_loader("hrft_host", None, is_package=True)
        package = importlib.util.module_from_spec(folder)
        package.__path__ = [str(HERE)]
        sys.modules["hrft_host"] = package
    return importlib.import_module("hrft_host.families")


class Text:
    """A text encoder whose words are random, the same for the same text."""

    def __init__(self, family):
        self.family = family

    def tokenize(self, text, **options):
        return text

    def encode_from_tokens_scheduled(self, tokens, **options):
        return _families().cond(self.family, sum(tokens.encode()) % 1000)


class Picture:
    """A VAE that averages the pixels of a cell, and back."""

    def __init__(self, family):
        self.cell, self.latent_channels = family.cell, family.channels
        self.frames = family.frames

    def throw_exception_if_invalid(self):
        pass

    def spacial_compression_decode(self):
        return self.cell

    spacial_compression_encode = spacial_compression_decode

    def encode(self, pixels):
        cells = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), self.cell)
        times = -(-self.latent_channels // 3)
        latent = (2 * cells - 1).repeat(1, times, 1, 1)[:, : self.latent_channels]
        return latent.unsqueeze(2) if self.frames else latent

    def decode(self, samples, **options):
        flat = samples[:, :, 0] if samples.ndim == 5 else samples
        pixels = (flat[:, :3] * 0.25 + 0.5).clamp(0, 1)
        large = torch.nn.functional.interpolate(pixels, scale_factor=self.cell)
        return large.movedim(1, -1)


class TinyFamily:
    """MODEL, CLIP and VAE in place of a checkpoint."""

    CATEGORY = "testing"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "make"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"family": ("STRING", {})}})

    def make(self, family):
        module = _families()
        known = module.FAMILIES[family]
        return module.tiny(known), Text(known), Picture(known)
