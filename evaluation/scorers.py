"""Learned scores of single images: one small protocol, local weights only, nothing downloaded.

A scorer is any callable `(images, prompts) -> scores`; `load_scorer` makes the published ones from
files under one folder, whose layout SOURCES tells.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .packages import need

FOLDER_VARIABLE = "HRF_EVALUATION_MODELS"


class Scorer(Protocol):
    """A score per image; higher is better."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of (B, 3, H, W) in 0..1 and their B prompts."""
        ...


class Source(NamedTuple):
    """Where a scorer's weights lie under the folder of models, and where they come from."""

    path: str
    origin: str
    uses_prompt: bool


CLIP_FOLDER = "clip-vit-large-patch14"
SOURCES = {
    "CLIP score": Source(CLIP_FOLDER, "huggingface.co/openai/clip-vit-large-patch14", True),
    "PickScore": Source(
        "PickScore_v1",
        "huggingface.co/yuvalkirstain/PickScore_v1 (tokenizer and preprocessor_config.json from "
        "huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K)",
        True,
    ),
    "HPSv2": Source("HPS_v2.1_compressed.pt", "huggingface.co/xswu/HPSv2", True),
    "ImageReward": Source("ImageReward", "huggingface.co/zai-org/ImageReward", True),
    "Aesthetic": Source(
        "sac+logos+ava1-l14-linearMSE.pth",
        "github.com/christophschuhmann/improved-aesthetic-predictor",
        False,
    ),
}
# What a folder of transformers' CLIP must hold; of each line one set of names is enough.
CLIP_FILES = (
    (("config.json",),),
    (("model.safetensors",), ("pytorch_model.bin",)),
    (("preprocessor_config.json",), ("processor_config.json",)),
    (("tokenizer.json",), ("vocab.json", "merges.txt")),
)


class MissingModel(FileNotFoundError):
    """A weights file is not where it should be; the message says which and where it is from."""


def _file(path: Path, metric: str, origin: str) -> Path:
    if not path.is_file():
        raise MissingModel(
            f"{metric}: no file {path}. Get it from {origin}; nothing is downloaded by itself"
        )
    return path


def _clip_folder(folder: Path, metric: str, origin: str) -> Path:
    for choices in CLIP_FILES:
        if not any(all((folder / name).is_file() for name in names) for names in choices):
            names = " or ".join(" and ".join(names) for names in choices)
            raise MissingModel(
                f"{metric}: no file {names} in {folder}. Get it from {origin}; nothing is "
                "downloaded by itself"
            )
    return folder


@contextmanager
def offline():
    """Packages that would ask the hub read only its cache."""
    import huggingface_hub.constants as hub

    before, environment = hub.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    hub.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
        del os.environ["HF_HUB_OFFLINE"]
        if environment is not None:
            os.environ["HF_HUB_OFFLINE"] = environment


def _arrays(images: Tensor) -> list:
    """uint8 (H, W, 3) arrays, as image processors and Pillow take them."""
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return list(pixels.movedim(1, -1).numpy())


class Clip:
    """A CLIP of transformers in a local folder.

    Args:
        scaled: scores are the cosine times the model's own logit scale (PickScore, arXiv
            2305.01569), else 100 max(cosine, 0) (CLIP score, arXiv 2104.08718, as torchmetrics).
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", scaled: bool = False):
        from transformers import CLIPModel, CLIPProcessor

        with offline():
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True)
            self.processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        self.model.eval().requires_grad_(False).to(device)
        self.device = device
        self.scaled = scaled

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        most = self.model.config.text_config.max_position_embeddings
        batch = self.processor(
            images=_arrays(images),
            text=list(prompts),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=most,
        ).to(self.device)
        out = self.model(**batch)
        cosine = (out.image_embeds * out.text_embeds).sum(-1)
        if self.scaled:
            return self.model.logit_scale.exp() * cosine
        return 100 * cosine.clamp_min(0)

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) image embeddings of length 1."""
        pixels = self.processor.image_processor(images=_arrays(images), return_tensors="pt")
        pooled = self.model.vision_model(pixels["pixel_values"].to(self.device)).pooler_output
        return torch.nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)


class Aesthetic:
    """LAION's aesthetic predictor v2: linear layers without anything between them on CLIP's
    image embedding; about 1 to 10.

    Args:
        head: the state dict, weights `layers.<n>.weight` and `.bias`.
    """

    def __init__(self, clip: Clip, head: Path):
        self.clip = clip
        weights = torch.load(head, map_location=clip.device, weights_only=True)
        numbers = sorted({int(key.split(".")[1]) for key in weights})
        self.layers = [
            (weights[f"layers.{n}.weight"].float(), weights[f"layers.{n}.bias"].float())
            for n in numbers
        ]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        x = self.clip.embed(images).float()
        for weight, bias in self.layers:
            x = torch.nn.functional.linear(x, weight, bias)
        return x[:, 0]


class HPSv2:
    """Human Preference Score v2.1, arXiv 2306.09341: cosine of an open_clip ViT-H-14."""

    architecture = "ViT-H-14"

    def __init__(self, checkpoint: Path, device: str | torch.device = "cpu"):
        open_clip = need("open_clip", "HPSv2")
        with offline():
            made = open_clip.create_model_and_transforms(self.architecture, pretrained=None)
            self.tokenizer = open_clip.get_tokenizer(self.architecture)
        self.model, self.prepare = made[0], made[2]
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(weights.get("state_dict", weights))
        self.model.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        from PIL import Image

        pixels = torch.stack([self.prepare(Image.fromarray(array)) for array in _arrays(images)])
        seen = self.model.encode_image(pixels.to(self.device), normalize=True)
        read = self.model.encode_text(self.tokenizer(list(prompts)).to(self.device), normalize=True)
        return (seen * read).sum(-1)


class ImageReward:
    """ImageReward, arXiv 2304.05977, through its own package, which needs transformers 4.

    Args:
        folder: holds ImageReward.pt and med_config.json.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu"):
        package = need("ImageReward", "ImageReward")
        files = (str(folder / "ImageReward.pt"), str(folder / "med_config.json"))
        with offline():
            self.model = package.load(files[0], device=str(device), med_config=files[1])

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        from PIL import Image

        pairs = zip(_arrays(images), prompts, strict=True)
        scores = [self.model.score(text, Image.fromarray(array)) for array, text in pairs]
        return torch.tensor(scores, dtype=torch.float32)


def default_folder(folder: Path | str | None) -> Path | None:
    """The folder of models: the given one, else that of the environment, else none."""
    found = folder or os.environ.get(FOLDER_VARIABLE)
    return Path(found) if found else None


def load_scorer(
    metric: str, folder: Path | None = None, device: str | torch.device = "cpu"
) -> Scorer:
    """A published scorer by its name in SOURCES, from the folder of models.

    Raises:
        MissingModel: a file is missing; says which and where it is from.
        MissingPackage: a package is missing, with the pip line.
    """
    source = SOURCES[metric]
    folder = default_folder(folder)
    if folder is None:
        raise MissingModel(
            f"{metric} needs weights: say in which folder models lie (--models, or "
            f"{FOLDER_VARIABLE} in the environment); there it wants {source.path} from "
            f"{source.origin}"
        )
    path = folder / source.path
    if metric == "HPSv2":
        return HPSv2(_file(path, metric, source.origin), device)
    if metric == "ImageReward":
        for name in ("ImageReward.pt", "med_config.json"):
            _file(path / name, metric, source.origin)
        return ImageReward(path, device)
    if metric == "Aesthetic":
        head = _file(path, metric, source.origin)
        origin = SOURCES["CLIP score"].origin
        return Aesthetic(Clip(_clip_folder(folder / CLIP_FOLDER, metric, origin), device), head)
    found = _clip_folder(path, metric, source.origin)
    return Clip(found, device, scaled=metric == "PickScore")
