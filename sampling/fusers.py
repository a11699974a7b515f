"""LATENT operations that fuse a base with a refined latent: formats, weight files, dictionaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import folder_paths
import safetensors
import torch
from torch import Tensor

from ..fusion_ops import latent_fusion, spectrum
from ..fusion_ops.rows import short
from .latents import with_samples
from .lift import check_latent
from .masks import kept, mask_of

MODES = ("published", "weights", "blend")
FOLDER = "latent_fusion"  # of the host's models folder
OWN = Path(__file__).resolve().parents[1] / "demo" / FOLDER


def formats() -> dict[str, type]:
    """The host's latent formats of pictures and video by their names, SDXL's first."""
    base = comfy.latent_formats.LatentFormat
    kinds = [k for k in vars(comfy.latent_formats).values() if isinstance(k, type)]
    found = [k for k in kinds if issubclass(k, base) and k.latent_dimensions > 1 and k is not base]
    first = comfy.latent_formats.SDXL
    return {kind.__name__: kind for kind in (first, *found)}


def find_format(name: str, model: Any = None) -> Any:
    """The latent format of a MODEL, or without one the host's of that name.

    Raises:
        ValueError: the host has none of that name.
    """
    if model:
        return model.model.latent_format
    known = formats()
    if name not in known:
        raise ValueError(f"no latent format is called {short(name)}: choose {', '.join(known)}")
    return known[name]()


def _in_format(latent_format: Any, change: str, x: Tensor) -> Tensor:
    """`process_in` or `process_out` of a format, checked; (B, C, ..., H, W)."""
    name, channels = type(latent_format).__name__, latent_format.latent_channels
    fix = "connect the model that the latents come from, or choose its latent_format"
    if x.shape[1] != channels:
        raise ValueError(f"{name} latents have {channels} channels, these {x.shape[1]}: {fix}")
    lone = latent_format.latent_dimensions == 3 and x.ndim == 4  # a picture of a video format
    out = getattr(latent_format, change)(x.unsqueeze(2) if lone else x)
    out = out.squeeze(2) if lone else out
    if out.shape != x.shape:
        raise ValueError(f"{name} latents have another shape inside their model: {fix}")
    return out


def check_pair(base: dict, refined: dict) -> tuple[Tensor, Tensor]:
    """The samples of two LATENTs that can be fused, on the device of the refined ones.

    Raises:
        ValueError: they differ in size, channels or axes, or in number (other than one base).
    """
    check_latent(base)
    check_latent(refined)
    one, two = base["samples"], refined["samples"]
    if one.shape[1:] != two.shape[1:]:
        sizes = ["x".join(map(str, x.shape[1:])) for x in (one, two)]
        raise ValueError(
            f"the base is {sizes[0]} (channels, height, width) and the refined latent {sizes[1]}: "
            "fuse two latents of one size from one kind of model, enlarging the smaller one with "
            "Upsample Latent if need be"
        )
    if one.shape[0] not in (1, two.shape[0]):
        raise ValueError(
            f"{one.shape[0]} base latents for {two.shape[0]} refined ones: give one base, or as "
            "many as there are refined latents"
        )
    return one.to(two.device).expand_as(two), two


def _carrier(base: dict, refined: dict) -> dict:
    """Whose picture stays where a noise mask keeps it: the base's, if it has one."""
    return base if "noise_mask" in base else refined


def _joined(base: dict, refined: dict) -> dict:
    """The keys of both LATENTs, the refined one's first, with the samples that a mask keeps."""
    one, two = check_pair(base, refined)
    samples = one if _carrier(base, refined) is base else two
    return base | refined | {"samples": samples}


def fuser_files() -> list[str]:
    """Weight files of fusers: of the host's models/latent_fusion/ and those that we ship."""
    for place in (Path(folder_paths.models_dir) / FOLDER, OWN):
        folder_paths.add_model_folder_path(FOLDER, str(place))
    names = folder_paths.get_filename_list(FOLDER)
    return [name for name in names if name.endswith(".safetensors")]


def fuser_path(name: str) -> str:
    """Where a weight file lies.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in fuser_files():
        raise ValueError(
            f"no fuser '{name}': put a .safetensors file into ComfyUI's models/{FOLDER}/"
        )
    return folder_paths.get_full_path_or_raise(FOLDER, name)


def load_fuser(kind: str, name: str, latent_format: Any) -> latent_fusion.Weights:
    """Trained weights of a fuser, checked against the latents that they are to work on.

    Raises:
        ValueError: no such file, weights of something else, or of another latent format.
    """
    path = fuser_path(name)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{name} can't be read as a .safetensors file: {error}") from error
    try:
        latent_fusion.check_weights(kind, latent_format.latent_channels, weights)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    wanted, given = metadata.get("latent_format"), type(latent_format).__name__
    if wanted and wanted != given:
        raise ValueError(
            f"{name} was trained on latents of the format {wanted}, and these are {given}: connect "
            "the model that made them, choose the right latent_format, or another file"
        )
    return weights


def fuse(
    kind: str,
    base: dict,
    refined: dict,
    *,
    mode: str,
    ratio: float,
    seed: int,
    weights: str,
    latent_format: Any,
) -> tuple[dict, Tensor]:
    """Fuse two LATENTs by AGF or DSF, or by one ratio.

    Args:
        kind: "agf" or "dsf".
        base, refined: LATENTs of one size.
        mode: one of MODES.
        ratio: share of the refined latent for "blend".
        seed: of the initial weights for "published".
        weights: file for "weights".
        latent_format: of the latents, a `comfy.latent_formats.LatentFormat`.

    Returns:
        the fused LATENT with the other keys of both, the refined one's first, and the share of
        the refined latent as MASK (B, H, W) in cells; a video gives a mask for each frame.
    """
    if mode not in MODES:
        raise ValueError(f"no mode is called {short(mode)}: choose {', '.join(MODES)}")
    one, two = check_pair(base, refined)
    if mode == "blend":
        share = torch.full((len(two), 1, *two.shape[2:]), ratio)
    else:
        if mode == "weights":
            loaded = load_fuser(kind, weights, latent_format)
        else:
            channels = latent_format.latent_channels
            loaded = latent_fusion.published_weights(kind, channels, seed)
        scaled = [_in_format(latent_format, "process_in", x.float()) for x in (one, two)]
        frames = [x.movedim(1, -3).flatten(0, -4) for x in scaled]
        share = latent_fusion.refined_share(kind, *frames, loaded)
        share = share.view(len(two), *two.shape[2:-2], 1, *two.shape[-2:]).movedim(-3, 1)
    # The map belongs to scaled latents; what it mixes may stay as it is, which rounds nothing.
    fused = with_samples(_joined(base, refined), latent_fusion.blend(one, two, share))
    if (mask := mask_of(fused)) is not None:
        end = torch.full_like(share, float(_carrier(base, refined) is refined))
        share = kept(end, share, mask[:, :1])
    return fused, share.float().flatten(0, -3).cpu()


def spec_fuse(
    base: dict,
    refined: dict,
    band: spectrum.Band,
    *,
    noise: float,
    seed: int,
    latent_format: Any,
) -> tuple[dict, Tensor]:
    """Fuse two LATENTs by frequency.

    Args:
        noise: deviation of the noise that is added, in the model's scaled latent space.
        latent_format: of the latents; only the noise's scale depends on it.

    Returns:
        the fused LATENT and an IMAGE of the log spectra of base, refined and fused latent.
    """
    one, two = check_pair(base, refined)
    out = spectrum.frequency_fusion(one, two, band)
    if noise:
        drawn = _noise(two, seed) * noise
        # Formats shift as well as scale; the noise must only be scaled.
        zero = _in_format(latent_format, "process_out", torch.zeros_like(drawn))
        drawn = _in_format(latent_format, "process_out", drawn) - zero
        out = (out.float() + drawn.to(out.device)).to(two.dtype)
    fused = with_samples(_joined(base, refined), out)
    return fused, spectrum.spectrum_panels([one, two, fused["samples"]])


def _noise(like: Tensor, seed: int) -> Tensor:
    """Standard normal, picture by picture, so that it is the same in a batch of any size."""
    generator = torch.Generator().manual_seed(seed)
    shape = like.shape[1:]
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(len(like))])
