"""The demo VAE: ComfyUI's AutoencoderKL with its image-wide layers taken out.

The host's encoder and decoder hold two kinds of layer that look at the whole picture:
GroupNorm (statistics over the canvas) and the attention of the middle block. Both make the
decode of a tile differ from the same place in the whole canvas, and both would see other
statistics on a 2048 px canvas than on the crops that the model was trained on. Without them
the VAE is purely local: a decode in tiles equals the decode at once, away from tile borders.
"""

from __future__ import annotations

import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor, nn

DDCONFIG = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2, 4],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def vae_params(ddconfig: dict | None = None) -> dict:
    """The `params` of the host's VAE config: `{"ddconfig", "embed_dim"}`."""
    ddconfig = dict(DDCONFIG if ddconfig is None else ddconfig)
    return {"ddconfig": ddconfig, "embed_dim": ddconfig["z_channels"]}


def make_local(module: nn.Module) -> nn.Module:
    """Take every GroupNorm and attention block below `module` out, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.GroupNorm) or type(child).__name__ == "AttnBlock":
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.SiLU):
            # the host's works in place: without a norm before it, it would overwrite the skip
            setattr(module, name, nn.SiLU())
        else:
            make_local(child)
    return module


def build_autoencoder(params: dict | None = None) -> nn.Module:
    """A local AutoencoderKL whose weights are not initialised (float32, CPU)."""
    return make_local(AutoencoderKL(**(params or vae_params())))


def pad_state_dict(state: dict[str, Tensor], params: dict) -> dict[str, Tensor]:
    """Add zeros for the weights of the layers that `make_local` removes.

    `comfy.sd.VAE` loads the weights before we can reach its model, and warns of missing keys.
    """
    reference = AutoencoderKL(**params).state_dict()
    dtype = next(iter(state.values())).dtype
    missing = {k: torch.zeros(v.shape, dtype=dtype) for k, v in reference.items() if k not in state}
    return {**missing, **state}
