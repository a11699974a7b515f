"""What a decoded picture is held against: pixels, bands, edges, a learned distance, a critic.

An L1 alone smooths what it cannot predict. The learned distance brings texture back but rings at
edges, which the penalty on overshoot forbids; the critic (a patch discriminator) is for what both
let pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.packages import need, stand_ins


def reconstruction_loss(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of `y` against `x`, and the plain L1: L1 + gradients + band-pass terms.

    The difference goes through the pyramid (it is linear), so each level is one L1.
    """
    d = y.float() - x
    l1 = d.abs().mean()
    grad = d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
    bands = d.new_zeros(())
    level = d
    for _ in range(3):
        low = F.avg_pool2d(level, 2)
        bands = bands + (level - F.interpolate(low, scale_factor=2, mode="nearest")).abs().mean()
        level = low
    return l1 + 0.5 * grad + 0.5 * (bands + level.abs().mean()), l1


def overshoot(y: Tensor, x: Tensor) -> Tensor:
    """How far `y` (B, 3, H, W) leaves the range of `x` in the 3 x 3 px around each pixel: halos."""
    high = F.max_pool2d(x, 3, 1, 1)
    low = -F.max_pool2d(-x, 3, 1, 1)
    return (F.relu(y - high) + F.relu(low - y)).mean()


def band_energy(y: Tensor, x: Tensor) -> Tensor:
    """Difference of local contrast: mean |Laplacian band| over 8 x 8 px, of three octaves."""
    total = y.new_zeros(())
    for _ in range(3):
        low_y, low_x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
        band_y = (y - F.interpolate(low_y, scale_factor=2)).abs()
        band_x = (x - F.interpolate(low_x, scale_factor=2)).abs()
        total = total + (F.avg_pool2d(band_y, 8) - F.avg_pool2d(band_x, 8)).abs().mean()
        y, x = low_y, low_x
    return total


class Perceptual(nn.Module):
    """ST-LPIPS (arXiv 2207.13686) over a VGG trunk, at full and at half size."""

    LEAST = 64  # px: the trunk's last layer pads by two

    def __init__(self, net: str = "vgg") -> None:
        super().__init__()
        # imported by the package, used by nothing in it
        with stand_ins(("IPython", "embed"), ("torchsummary", "summary")):
            package = need("stlpips_pytorch.stlpips", "ST-LPIPS")
        self.model = package.LPIPS(net=net, variant="shift_tolerant", verbose=False)
        self.model.eval().requires_grad_(False)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Mean distance of (B, 3, H, W) in -1..1; of pictures under 64 px 0."""
        total = y.new_zeros(())
        for weight in (1.0, 0.5):
            if min(x.shape[-2:]) >= self.LEAST:
                total = total + weight * self.model(y, x).mean()
            y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
        return total


class Discriminator(nn.Module):
    """Logits of "true" for patches of about 34 px (Isola et al. 2017), spectrally normalised."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, stride in ((width, 2), (2 * width, 2), (4 * width, 1), (4 * width, 1)):
            size = 4 if stride == 2 else 3
            layers += [norm(nn.Conv2d(inputs, outputs, size, stride, 1)), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.net = nn.Sequential(*layers, norm(nn.Conv2d(inputs, 1, 3, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H/4, W/4) logits of pictures in -1..1."""
        return self.net(x)


def hinge(true: Tensor, drawn: Tensor) -> Tensor:
    """The discriminator's loss; 2 where it knows nothing."""
    return F.relu(1 - true).mean() + F.relu(1 + drawn).mean()


def balance(loss: Tensor, critic: Tensor, last: Tensor) -> Tensor:
    """Weight that makes both gradients alike in size at the layer `last` (Esser et al. 2021)."""
    (a,) = torch.autograd.grad(loss, last, retain_graph=True)
    (b,) = torch.autograd.grad(critic, last, retain_graph=True)
    return (a.norm() / (b.norm() + 1e-6)).clamp(0, 1e4).detach()
