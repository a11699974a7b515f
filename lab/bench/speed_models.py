"""SDXL's architecture with random weights: time needs no trained ones."""

from __future__ import annotations

from typing import Any

import torch

from ..pack import Session, enter, setup_host

# The published UNet, as the host reads it from a checkpoint.
FULL = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "num_head_channels": 64,
    "use_checkpoint": False,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
TINY = FULL | {
    "model_channels": 32,
    "transformer_depth": [0, 0, 1, 1, 1, 1],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 64,
    "num_head_channels": 32,
}
# The published autoencoder, which the host knows from the names of its weights.
AUTOENCODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
TOKENS = 77
SPREAD = 0.02  # of the random weights: small enough for fp16 to stay finite


class RandomSDXL(Session):
    """SDXL with its VAE, or its tiny image with the demo model's and a native size of 256 pixels.

    Prompts are not read: their text is random numbers too.

    Args:
        steps, cfg: of every stage.
        tiny: the tiny image, anywhere.
        dtype: of the UNet's weights and computations.
    """

    def __init__(
        self,
        steps: int,
        cfg: float = 7.5,
        tiny: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        setup_host()
        enter()
        import comfy.model_management as mm
        import comfy.model_patcher
        import comfy.supported_models

        self.steps, self.cfg = steps, cfg
        self.native = 32 if tiny else 128
        self.config = TINY if tiny else FULL
        config = comfy.supported_models.SDXL({**self.config, "dtype": dtype})
        config.native_size = 8 * self.native
        model = config.get_model({}, "", device=mm.get_torch_device()).eval()
        _randomise(model.diffusion_model)
        device = mm.get_torch_device()
        self.model = comfy.model_patcher.ModelPatcher(model, device, mm.unet_offload_device())
        self.vae = _demo_vae() if tiny else _random_vae()
        self.negative = self.encode("")

    def encode(self, prompt: str) -> list:
        """CONDITIONING of random numbers."""
        generator = torch.Generator().manual_seed(len(prompt))
        text = torch.randn(1, TOKENS, self.config["context_dim"], generator=generator)
        return [[text, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]


def _demo_vae() -> Any:
    from hires_fusion.demo.loader import load_demo_model

    return load_demo_model()[2]


def _random_vae() -> Any:
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    network = AutoencoderKL(ddconfig=AUTOENCODER, embed_dim=4)
    _randomise(network)
    return comfy.sd.VAE(sd=network.state_dict())


def _randomise(network: torch.nn.Module) -> None:
    """The host's layers start with whatever lay in memory."""
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1:
            torch.nn.init.normal_(tensor, std=SPREAD)
        else:
            torch.nn.init.constant_(tensor, 0.0 if name.endswith("bias") else 1.0)
