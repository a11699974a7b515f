"""The training pictures as latents: batches with their captions and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import diffusion
from .autoencoder import SDXL_SCALE, encode
from .demo_model import DemoModel
from .pictures import Pictures


class Latents:
    """Latents of `pictures`, encoded as the pictures come and kept on the device.

    Args:
        pictures: what to encode; `refresh` takes up those that were drawn since.
        vae: the autoencoder, on the device that trains.
        model: whose tokenizer reads the captions.
        cache: folder for what is encoded already, so that the next run starts at once; None keeps
            nothing.
        mirror: encode the mirrored pictures as well.
    """

    BLOCK = 512

    def __init__(self, pictures: Pictures, vae: torch.nn.Module, model: DemoModel,
                 cache: Path | None = None, mirror: bool = False) -> None:  # fmt: skip
        self.pictures, self.vae, self.model = pictures, vae, model
        self.cache, self.mirror = cache, mirror
        self.device = pictures.device
        self.empty = torch.tensor(model.tokens(""))
        self.pieces = (2, 2 + 512)  # ids of single bytes, from lab.training.tokenizer
        self.known: dict[str, list[int]] = {}
        self.encoded = 0  # pictures
        self.latents = torch.empty(0, 8, 0, 0, dtype=torch.float16, device=self.device)
        self.tokens = torch.empty(0, len(self.empty), dtype=torch.long)
        self.crop = torch.empty(0, 2)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def __len__(self) -> int:
        return len(self.latents)

    @torch.no_grad()
    def refresh(self) -> None:
        """Encode what was drawn since; a block that is not full waits, unless it is the first."""
        self.pictures.refresh()
        whole = len(self.pictures.file) == len(self.pictures)
        blocks = []
        while (left := len(self.pictures) - self.encoded) > 0:
            if left < self.BLOCK and not whole and (blocks or len(self)):
                break
            blocks.append((self.encoded, min(left, self.BLOCK)))
            self.encoded += blocks[-1][1]
        latents, tokens, crops = [self.latents], [self.tokens], [self.crop]
        for start, count in tqdm(blocks, desc="encoding", disable=len(blocks) < 4):
            part = self._block(start, count)
            rows = self.pictures.meta[start : start + count] * (2 if self.mirror else 1)
            latents.append(part)
            tokens.append(torch.tensor([self._ids(row["caption"]) for row in rows]))
            offsets = [[row["crop_top"], row["crop_left"]] for row in rows]
            crops.append(torch.tensor(offsets).float())
        if blocks:
            self.latents = torch.cat([part for part in latents if len(part)])
            self.tokens = torch.cat(tokens)
            self.crop = torch.cat(crops)

    def _ids(self, caption: str) -> list[int]:
        if caption not in self.known:
            self.known[caption] = self.model.tokens(caption)
        return self.known[caption]

    def _block(self, start: int, count: int) -> Tensor:
        """Mean and deviation (n, 8, h, w), float16, scaled as the model sees them."""
        file = self.cache and self.cache / f"{start:07d}_{count}{'_m' if self.mirror else ''}.npy"
        if file and file.exists():
            return torch.from_numpy(np.load(file)).to(self.device)
        out = []
        for flip in (False, True)[: 1 + self.mirror]:
            at_once = 256 if self.device.type == "cuda" else 32
            for i in range(start, start + count, at_once):
                x = self.pictures.whole(slice(i, min(i + at_once, start + count)))
                mean, logvar = encode(self.vae, x.flip(-1) if flip else x)
                out.append(torch.cat([mean, torch.exp(0.5 * logvar)], dim=1) * SDXL_SCALE)
        block = torch.cat(out).half()
        if file:
            np.save(file, block.cpu().numpy())
        return block

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, 4, h, w), token ids (B, T) and sizes (B, 6) of random pictures.

        A tenth has no caption, and one in twenty a word that means nothing.
        """
        index = torch.from_numpy(rng.integers(0, len(self), size))
        here = index.to(self.device)
        mean, std = self.latents[here].float().chunk(2, dim=1)
        tokens = self.tokens[index]
        lot = torch.from_numpy(rng.random(size))
        tokens[lot < 0.1] = self.empty
        if odd := ((lot >= 0.1) & (lot < 0.15)).nonzero().flatten().tolist():
            noisy = [
                diffusion.noise_words(ids, self.model.length, rng, self.pieces)
                for ids in tokens[odd].tolist()
            ]
            tokens[odd] = torch.tensor(noisy)
        tokens = tokens.to(self.device)
        sizes = diffusion.random_sizes(self.crop[index], rng).to(self.device)
        return mean + std * torch.randn_like(std), tokens, sizes
