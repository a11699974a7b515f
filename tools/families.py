"""What ready graphs need to know of each model family: files, sizes, sampling, and who says so."""

from __future__ import annotations

from typing import NamedTuple

HUB = "https://huggingface.co"


class File(NamedTuple):
    """A model file that the page offers to download.

    Attributes:
        widget: of the loader, which names the file.
        folder: below `models/`.
        path: on the hub, from the owner on; the file's name is its end.
    """

    widget: str
    folder: str
    path: str

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def entry(self) -> dict[str, str]:
        return {"name": self.name, "url": f"{HUB}/{self.path}", "directory": self.folder}


class Loader(NamedTuple):
    """A loader node, its other widgets, and its files."""

    kind: str
    title: str
    files: tuple[File, ...]
    widgets: tuple[tuple[str, str], ...] = ()


class Family(NamedTuple):
    """One row of the table.

    Attributes:
        loaders: one, of a checkpoint, or three: network, text encoder, VAE.
        size: native side in pixels.
        scale: that makes about 4096 pixels of it.
        latent: class of the empty latent.
        steps, cfg, sampler, scheduler: of the native picture.
        upscale_cfg: of Progressive Upscale; 0 for the preset's own.
        guidance: of FluxGuidance; 0 without it.
        shift: of ModelSamplingAuraFlow; 0 without it.
        source: who says so, in Markdown.
    """

    title: str
    loaders: tuple[Loader, ...]
    size: int
    scale: float
    latent: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    upscale_cfg: float
    source: str
    guidance: float = 0.0
    shift: float = 0.0


def checkpoint(path: str, title: str = "Checkpoint") -> Loader:
    return Loader("CheckpointLoaderSimple", title, (File("ckpt_name", "checkpoints", path),))


def three(network: str, text: tuple[str, ...], kind: str, vae: str) -> tuple[Loader, ...]:
    """Loaders of a network, of one or two text encoders of a kind, of a VAE."""
    names = ("clip_name",) if len(text) == 1 else ("clip_name1", "clip_name2")
    encoders = tuple(File(n, "text_encoders", p) for n, p in zip(names, text, strict=True))
    network_file = File("unet_name", "diffusion_models", network)
    both = "CLIPLoader" if len(text) == 1 else "DualCLIPLoader"
    return (
        Loader("UNETLoader", "Network", (network_file,), (("weight_dtype", "default"),)),
        Loader(both, "Text encoder", encoders, (("type", kind), ("device", "default"))),
        Loader("VAELoader", "VAE", (File("vae_name", "vae", vae),)),
    )


SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
SDXL_REFINER = (
    "stabilityai/stable-diffusion-xl-refiner-1.0/resolve/main/sd_xl_refiner_1.0.safetensors"
)
SD15 = "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors"
TILE = File(
    "control_net_name",
    "controlnet",
    "TTPlanet/TTPLanet_SDXL_Controlnet_Tile_Realistic/resolve/main/"
    "TTPLANET_Controlnet_Tile_realistic_v2_fp16.safetensors",
)
_FLUX_TEXT = "comfyanonymous/flux_text_encoders/resolve/main"
_LUMINA = "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae"
_KLEIN = "Comfy-Org/Flux-2-Klein-4B/resolve/main/split_files"
_Z_IMAGE = "Comfy-Org/z_image_turbo/resolve/main/split_files"
_QWEN = "Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"

FAMILIES = {
    "sdxl": Family(
        *("SDXL", (checkpoint(SDXL_BASE),), 1024, 4.0, "EmptyLatentImage"),
        *(30, 5.0, "euler", "normal", 0.0),
        "[diffusers' SDXL pipeline](https://huggingface.co/docs/diffusers/api/pipelines/"
        "stable_diffusion/stable_diffusion_xl): 1024 pixels, cfg 5; 30 of its 50 steps",
    ),
    "sd15": Family(
        *("SD 1.5", (checkpoint(SD15),), 512, 8.0, "EmptyLatentImage"),
        *(30, 7.5, "euler", "normal", 0.0),
        "[the model card](https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5): "
        "512 pixels, cfg 7.5; 30 of its 50 steps",
    ),
    "flux": Family(
        "Flux.1",
        three(
            "Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors",
            (f"{_FLUX_TEXT}/clip_l.safetensors", f"{_FLUX_TEXT}/t5xxl_fp16.safetensors"),
            "flux",
            f"{_LUMINA}/ae.safetensors",
        ),
        *(1024, 4.0, "EmptySD3LatentImage", 20, 1.0, "euler", "simple", 1.0),
        "ComfyUI's template *Flux Dev*: 20 steps, cfg 1, guidance 3.5",
        guidance=3.5,
    ),
    "klein": Family(
        "Flux 2 Klein",
        three(
            f"{_KLEIN}/diffusion_models/flux-2-klein-4b.safetensors",
            (f"{_KLEIN}/text_encoders/qwen_3_4b.safetensors",),
            "flux2",
            f"{_KLEIN}/vae/flux2-vae.safetensors",
        ),
        *(1024, 4.0, "EmptyFlux2LatentImage", 4, 1.0, "euler", "simple", 1.0),
        "[the model card](https://huggingface.co/black-forest-labs/FLUX.2-klein-4B): distilled "
        "to 4 steps without cfg. It needs a ComfyUI of 2026, which knows its text encoder",
    ),
    "z_image": Family(
        "Z-Image-Turbo",
        three(
            f"{_Z_IMAGE}/diffusion_models/z_image_turbo_bf16.safetensors",
            (f"{_Z_IMAGE}/text_encoders/qwen_3_4b.safetensors",),
            "lumina2",
            f"{_Z_IMAGE}/vae/ae.safetensors",
        ),
        *(1024, 4.0, "EmptySD3LatentImage", 9, 1.0, "res_multistep", "simple", 1.0),
        "ComfyUI's template *Z-Image-Turbo*: 9 steps, cfg 1, shift 3",
        shift=3.0,
    ),
    "qwen": Family(
        "Qwen-Image",
        three(
            f"{_QWEN}/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
            (f"{_QWEN}/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",),
            "qwen_image",
            f"{_QWEN}/vae/qwen_image_vae.safetensors",
        ),
        *(1328, 3.0, "EmptySD3LatentImage", 20, 2.5, "euler", "simple", 2.5),
        "ComfyUI's template *Qwen-Image*: 1328 pixels, 20 steps, cfg 2.5, shift 3.1",
        shift=3.1,
    ),
}
