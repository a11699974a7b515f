"""Learned distance of image pairs: LPIPS from given weights, else the shift-tolerant one."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from .features import resize
from .packages import need, stand_ins

TRUNK = {"alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


class ShiftTolerant:
    """ST-LPIPS, arXiv 2207.13686, AlexNet variant: its package holds all weights."""

    name = "ST-LPIPS"

    def __init__(self, device: str | torch.device = "cpu"):
        # Imported by the package, used by nothing in it.
        with stand_ins(("IPython", "embed"), ("torchsummary", "summary")):
            package = need("stlpips_pytorch.stlpips", self.name)
        self.model = package.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
        self.model.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of (B, 3, H, W) in 0..1."""
        first, second = (images.to(self.device) for images in same_size(first, second))
        return self.model(first, second, normalize=True).flatten()


class Lpips:
    """LPIPS, arXiv 1801.03924, of torchmetrics, with torchvision's trunk from a local file.

    Args:
        trunk: the file that torchvision would download; its folder must be called "checkpoints".
    """

    name = "LPIPS"

    def __init__(self, trunk: Path, net: str = "alex", device: str | torch.device = "cpu"):
        module = need("torchmetrics.image.lpip", self.name)
        with hub_folder(trunk.parent.parent):
            self.model = module.LearnedPerceptualImagePatchSimilarity(net, normalize=True)
        self.model.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) distances of (B, 3, H, W) in 0..1."""
        first, second = (images.to(self.device) for images in same_size(first, second))
        return torch.stack([self.model(a[None], b[None]) for a, b in zip(first, second)])  # noqa: B905


@contextmanager
def hub_folder(folder: Path):
    """torch.hub keeps its files in `folder`/checkpoints."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        yield
    finally:
        torch.hub.set_dir(before)


def same_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller one's size."""
    size = min(first.shape[-2:], second.shape[-2:], key=lambda side: side[0] * side[1])
    return resize(first, *size), resize(second, *size)


def load_lpips(models: Path | None, device: str | torch.device = "cpu") -> ShiftTolerant | Lpips:
    """LPIPS if <models>/checkpoints holds torchvision's AlexNet, else ST-LPIPS."""
    trunk = models and models / "checkpoints" / TRUNK["alex"]
    if trunk and trunk.is_file():
        return Lpips(trunk, device=device)
    return ShiftTolerant(device)
