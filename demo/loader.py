"""Load the demo model as ComfyUI's own MODEL, CLIP and VAE.

Everything that ComfyUI knows about memory, devices and dtypes applies: the three objects are the
host's classes around the host's networks, so stock nodes, LoRA loaders and previews work on them.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import comfy.model_management as mm
import comfy.model_patcher
import comfy.sd
import comfy.utils
from torch import Tensor

from .text import clip_target
from .unet import DemoLatentFormat, DemoSDXL
from .vae import make_local, pad_state_dict

FOLDER = Path(__file__).resolve().parent
FILES = ("text_encoder.safetensors", "vae.safetensors", "config.json")
UNETS = {"base": ("unet.safetensors",), "refiner": ("unet.safetensors", "refiner.safetensors")}
"""Files of each variant; later ones hold only the weights that differ."""


def missing_files(folder: str | Path | None = None, variant: str = "base") -> list[str]:
    """Names of the demo model's files that are not in `folder` (default: this package's)."""
    folder = Path(folder) if folder else FOLDER
    return [name for name in (*UNETS[variant], *FILES) if not (folder / name).is_file()]


def _load_unet(state: dict[str, Tensor], config: dict):
    """The UNet as a model patcher, with the host's choice of dtype and devices."""
    meta = config["vae"]
    latent_format = DemoLatentFormat(meta["latent_rgb_factors"], meta["latent_rgb_factors_bias"])
    model_config = DemoSDXL(config["unet"], latent_format, config.get("channels_per_group"))
    model_config.native_size = config["native_size"]
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    dtype = mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=list(model_config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    model_config.set_inference_dtype(
        dtype, mm.unet_manual_cast(dtype, load_device, model_config.supported_inference_dtypes)
    )
    model = model_config.get_model(state, "")
    # newer hosts have a patcher that streams weights, and hand it the tensors as they are
    patcher_class = getattr(
        comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher
    )
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    dynamic = getattr(patcher, "is_dynamic", bool)()
    if not dynamic:
        model.to(offload_device)
    model.load_model_weights(state, "", **({"assign": True} if dynamic else {}))
    return patcher


def _load_clip(state: dict[str, Tensor], config: dict, folder: Path) -> comfy.sd.CLIP:
    """The tokenizer and text encoder."""
    clip = comfy.sd.CLIP(
        clip_target(config["text"], folder),
        parameters=comfy.utils.calculate_parameters(state),
    )
    missing, unexpected = clip.load_sd(state, full_model=True)
    if missing or unexpected:
        logging.warning("demo text encoder: missing %s, unexpected %s", missing, unexpected)
    return clip


def _load_vae(state: dict[str, Tensor], config: dict) -> comfy.sd.VAE:
    """The VAE, with its image-wide layers taken out."""
    params = config["vae"]["params"]
    vae = comfy.sd.VAE(sd=pad_state_dict(state, params), config={"params": params})
    make_local(vae.first_stage_model)
    return vae


def load_demo_model(folder: str | Path | None = None, variant: str = "base"):
    """Load the demo model.

    Args:
        folder: where the weights lie; the folder of this module by default. The tokenizer is
            looked for there first, then beside this module.
        variant: "base", or "refiner" for the UNet of the last steps; the rest is the same.

    Returns:
        `(MODEL, CLIP, VAE)`: a `ModelPatcher`, a `comfy.sd.CLIP` and a `comfy.sd.VAE`.

    Raises:
        FileNotFoundError: a file is missing; the message says how to get it.
    """
    folder = Path(folder) if folder else FOLDER
    if missing := missing_files(folder, variant):
        raise FileNotFoundError(
            f"The demo model is not complete: {', '.join(missing)} not found in {folder}. "
            "Install HiRes Fusion from a release or a full clone, which hold the weights, or "
            "train them with `make train` (about two hours on two CPU cores)."
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = {"unet": UNETS[variant], "text_encoder": FILES[:1], "vae": FILES[1:2]}
    state: dict[str, dict[str, Tensor]] = {name: {} for name in files}
    for name, parts in files.items():
        for file in parts:
            state[name] |= comfy.utils.load_torch_file(str(folder / file), safe_load=True)
    tokenizer = folder / "tokenizer"
    if not (tokenizer / "vocab.json").is_file():
        tokenizer = FOLDER / "tokenizer"
    return (
        _load_unet(state["unet"], config),
        _load_clip(state["text_encoder"], config, tokenizer),
        _load_vae(state["vae"], config),
    )
