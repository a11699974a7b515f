"""How many floating point operations a network takes: counted on the meta device, with no number
computed and no weight in memory.

The networks are the host's own classes with the published configurations, and attention in windows
is the pack's own. A multiplication with its addition counts as two, as torch counts them.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..pack import enter
from .speed_models import AUTOENCODER, FULL, TINY

META = torch.device("meta")
SD15_UNET = FULL | {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "adm_in_channels": None,
    "num_classes": None,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
}
FLUX_DIT = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A published model, and how a native picture of it is drawn.

    Attributes:
        kind: name of the host's `comfy.supported_models` class.
        config: of its network.
        small: what of it is smaller where nothing but shapes and schedule count.
        tokens: of the prompt.
        vector: length of the pooled vector, 0 for none.
        native: side of a native picture in cells of 8 pixels.
        steps, halves: of a native picture; 2 halves are the positive and the negative prompt.
    """

    kind: str
    config: dict[str, Any]
    small: dict[str, Any]
    tokens: int
    vector: int
    native: int
    steps: int
    halves: int


_NARROW = {"model_channels": 32, "context_dim": 64}
FAMILIES = {
    "SDXL": Family("SDXL", FULL, TINY, 77, 2816, 128, 50, 2),
    "SD 1.5": Family("SD15", SD15_UNET, _NARROW, 77, 0, 64, 50, 2),
    # Told its guidance by an embedding; prompts at the full length of its text encoder.
    "Flux": Family(
        "Flux",
        FLUX_DIT,
        {"hidden_size": 256, "num_heads": 2, "depth": 1, "depth_single_blocks": 1}
        | {"context_in_dim": 64},
        *(512, 768, 128, 30, 1),
    ),
}


def base_model(family: Family, small: bool = False, device: torch.device = META) -> Any:
    """A BaseModel of a family, its weights undefined; `small` with a network of few channels."""
    enter()
    import comfy.ldm.flux.model
    import comfy.supported_models

    config = {**family.config, **(family.small if small else {}), "dtype": torch.float32}
    if family.kind == "Flux":
        # Newer hosts know fields that older ones don't.
        known = {f.name for f in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
        config = {name: value for name, value in config.items() if name in {*known, "dtype"}}
    kind = getattr(comfy.supported_models, family.kind)
    return kind(config).get_model({}, "", device=device).eval()


class Work(NamedTuple):
    """Floating point operations.

    Attributes:
        all: of everything.
        attention: the products of queries with keys and of what comes out with values.
    """

    all: int
    attention: int


class Network:
    """A family's network on the meta device."""

    def __init__(self, family: Family):
        self.family = family
        self.model = base_model(family)
        self.work = functools.lru_cache(maxsize=None)(self._work)

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.diffusion_model.parameters())

    def _work(self, height: int, width: int, attention: Any = None) -> Work:
        """Of one evaluation of one latent of so many cells.

        Args:
            height, width: in cells.
            attention: `sampling.attention.WindowedAttention`, None for the whole.
        """
        from comfy.ldm.modules.attention import attention_pytorch

        from hires_fusion.sampling import attention as windowed
        from hires_fusion.sampling.attention import KEY, OVERRIDE, prepare_call

        network, family = self.model.diffusion_model, self.family
        channels = self.model.latent_format.latent_channels
        x = torch.empty(1, channels, height, width, device=META)
        deep = family.config.get("context_dim") or family.config["context_in_dim"]
        text = torch.empty(1, family.tokens, deep, device=META)
        given: dict[str, Any] = {}
        if family.vector:
            given["y"] = torch.empty(1, family.vector, device=META)
        if family.config.get("guidance_embed"):
            given["guidance"] = torch.empty(1, device=META)

        def call(x, t, c_concat=None, context=None, control=None, options=None):
            # Its own place on the schedule, which windows are asked by, is a number of the host's.
            return network(x, t.to(META), context, transformer_options=options, **given)

        def plain(attend, *args, **kwargs):
            # What the host chose for this machine may ask how much memory the device has.
            return attention_pytorch(*args, **kwargs)

        call.class_obj = self.model
        counter = FlopCounterMode(display=False)
        windows = mock.patch.object(windowed, "optimized_attention", attention_pytorch)
        with torch.inference_mode(), windows, counter:
            if attention:
                # A level that every span of a schedule holds that begins at its start.
                level = self.model.model_sampling.sigma_max.reshape(1)
                prepare_call(call, x, level, None, text, None, {KEY: attention, OVERRIDE: plain})
            else:
                call(x, torch.ones(1), None, text, None, {OVERRIDE: plain})
        counts = counter.get_flop_counts()["Global"]
        products = sum(n for op, n in counts.items() if "bmm" in str(op) or "attention" in str(op))
        return Work(sum(counts.values()), products)


@functools.cache
def vae_work(channels: int, tile: int = 1024) -> tuple[int, int]:
    """Operations of the families' VAE on one square tile: (of decoding, of encoding).

    Its middle attends to the whole tile, so a whole picture takes more than its tiles.

    Args:
        channels: of the latent.
        tile: side in pixels.
    """
    enter()
    from comfy.ldm.modules.diffusionmodules.model import Decoder, Encoder

    config = AUTOENCODER | {"z_channels": channels}
    cells = torch.empty(1, channels, tile // 8, tile // 8, device=META)
    pixels = torch.empty(1, 3, tile, tile, device=META)
    counts = []
    for kind, x in ((Decoder, cells), (Encoder, pixels)):
        with META:
            network = kind(**config)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(x)
        counts.append(counter.get_total_flops())
    return counts[0], counts[1]
