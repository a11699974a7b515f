"""Where the images come from: a tensor, a folder, or a list of files; whole or as random crops."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Source = Tensor | Path | str | Sequence[Path]


class Images:
    """A set of images, read one at a time.

    Args:
        source: (N, 3, H, W) in 0..1, a folder (its images in the order of their names), or a list
            of files. Files may differ in size.
        what: how an error calls the set.

    Raises:
        ValueError: no images, or a tensor of another shape or range.
    """

    def __init__(self, source: Source, what: str = "images"):
        self.tensor: Tensor | None = None
        self.files: list[Path] = []
        if isinstance(source, Tensor):
            self.tensor = _checked(source, what)
            return
        if isinstance(source, (str, Path)):
            folder = Path(source)
            if not folder.is_dir():
                raise ValueError(f"{what}: {folder} is not a folder")
            self.files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
            if not self.files:
                raise ValueError(f"{what}: no images ({', '.join(sorted(SUFFIXES))}) in {folder}")
            return
        self.files = [Path(file) for file in source]
        missing = [file for file in self.files if not file.is_file()]
        if missing or not self.files:
            raise ValueError(f"{what}: {f'no file {missing[0]}' if missing else 'an empty list'}")

    def __len__(self) -> int:
        return len(self.files) if self.tensor is None else len(self.tensor)

    def __getitem__(self, index: int) -> Tensor:
        """(3, H, W) float32 in 0..1, on the CPU."""
        if self.tensor is not None:
            return self.tensor[index].float().cpu()
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
        return torch.from_numpy(pixels).movedim(-1, 0)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) without reading the pixels."""
        if self.tensor is not None:
            return tuple(self.tensor.shape[-2:])
        with Image.open(self.files[index]) as image:
            return image.height, image.width

    def digest(self) -> str:
        """Tells sets of images apart: by content, files by name, size and time of change."""
        sha = hashlib.blake2b(digest_size=16)
        if self.tensor is not None:
            tensor = self.tensor.detach().cpu().contiguous()
            sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            sha.update(tensor.view(-1).view(torch.uint8).numpy())
        for file in self.files:
            facts = file.stat()
            sha.update(f"{file.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        return sha.hexdigest()


def _checked(images: Tensor, what: str) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape)
        raise ValueError(f"{what}: a tensor must be (N, 3, H, W), this one is {shape}")
    if not len(images):
        raise ValueError(f"{what}: no images")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1.001):
        raise ValueError(f"{what}: values must be in 0..1, these are in {low:g}..{high:g}")
    return images.clamp(0, 1)


def check_crops(images: Images, size: int, what: str) -> None:
    """Raise ValueError if an image is smaller than a crop."""
    for index in range(len(images)):
        if min(images.size(index)) < size:
            height, width = images.size(index)
            raise ValueError(
                f"{what}: image {index} is {height} x {width} pixels, smaller than crop_size "
                f"{size}: choose a smaller crop_size, or 0 crops"
            )


def crops_of(image: Tensor, count: int, size: int, rng: np.random.Generator) -> Tensor:
    """(count, 3, size, size): crops of an image at places drawn uniformly."""
    height, width = image.shape[-2:]
    tops = rng.integers(0, height - size + 1, count)
    lefts = rng.integers(0, width - size + 1, count)
    places = zip(tops, lefts, strict=True)
    return torch.stack([image[:, top : top + size, left : left + size] for top, left in places])
