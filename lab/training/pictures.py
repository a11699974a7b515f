"""The rendered pictures of a folder of `lab.scenes.dataset`, while it is still being filled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Pictures:
    """uint8 pictures (N, H, W, 3) with their meta data.

    On a GPU they lie in its memory (60 000 of 256 px take 12 GB), on the CPU they are read from the
    file.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.lines = folder / "meta.jsonl"
        self.file = np.load(folder / "images.npy", mmap_mode="c")
        self.device = device
        self.meta: list[dict] = []
        on_gpu = device.type == "cuda"
        self.pool = (
            torch.empty(self.file.shape, dtype=torch.uint8, device=device)
            if on_gpu
            else torch.from_numpy(self.file)
        )
        self.refresh()

    def __len__(self) -> int:
        return len(self.meta)

    def refresh(self) -> int:
        """Take up the pictures that were finished since; returns how many."""
        lines = self.lines.read_text(encoding="utf-8").splitlines()
        new = [json.loads(line) for line in lines[len(self.meta) : len(self.file)]]
        start = len(self.meta)
        if self.device.type == "cuda" and new:
            part = np.ascontiguousarray(self.file[start : start + len(new)])
            self.pool[start : start + len(new)] = torch.from_numpy(part).to(self.device)
        self.meta += new
        return len(new)

    def whole(self, index: slice | Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in -1..1."""
        part = self.pool[index].to(self.device)
        return part.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def spread(self, count: int) -> Tensor:
        """At most `count` whole pictures, evenly spread over the set."""
        index = torch.linspace(0, len(self) - 1, min(count, len(self))).long()
        return self.whole(index.to(self.pool.device))

    def crops(self, side: int, batch: int) -> Tensor:
        """Random crops (B, 3, side, side) in -1..1, half of them mirrored."""
        where = self.pool.device
        index = torch.randint(len(self), (batch,), device=where)
        y, x = torch.randint(self.pool.shape[1] - side + 1, (2, batch), device=where)
        steps = torch.arange(side, device=where)
        rows, cols = y[:, None] + steps, x[:, None] + steps
        mirror = torch.rand(batch, device=where) < 0.5
        cols = torch.where(mirror[:, None], cols.flip(1), cols)
        part = self.pool[index[:, None, None], rows[:, :, None], cols[:, None, :]].to(self.device)
        return part.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
