"""The demo UNet: ComfyUI's own SDXL model class with a small config."""

from __future__ import annotations

from comfy import latent_formats, supported_models
from torch import Tensor, nn


class DemoLatentFormat(latent_formats.SDXL):
    """SDXL's latent scale with preview colours fitted to our own VAE."""

    def __init__(self, rgb_factors: list | None = None, rgb_bias: list | None = None) -> None:
        super().__init__()
        self.latent_rgb_factors = rgb_factors
        self.latent_rgb_factors_bias = rgb_bias
        self.taesd_decoder_name = None  # the TAESD of SDXL cannot read these latents


class DemoSDXL(supported_models.SDXL):
    """The host's model config of SDXL for another `unet_config`."""

    def __init__(self, unet_config: dict, latent_format: DemoLatentFormat | None = None,
                 channels_per_group: int | None = None) -> None:  # fmt: skip
        super().__init__(unet_config)
        self.latent_format = latent_format or DemoLatentFormat()
        self.channels_per_group = channels_per_group

    def get_model(self, state_dict, prefix="", device=None):
        """The host's SDXL model, its norms with at least `channels_per_group` to a group."""
        model = super().get_model(state_dict, prefix, device)
        if self.channels_per_group:
            for layer in model.diffusion_model.modules():
                if isinstance(layer, nn.GroupNorm):
                    layer.num_groups = min(32, layer.num_channels // self.channels_per_group)
        return model


def size_embedding(model, sizes: Tensor) -> Tensor:
    """SDXL's micro-conditioning for a batch.

    `sizes` (B, 6) in px: original height and width, crop top and left, target height and width,
    in the order of the host's `SDXL.encode_adm`. Returns (B, 6 * 256).
    """
    return model.embedder(sizes.flatten()).reshape(len(sizes), -1)
