"""Networks of the host's own classes, small: what their checkpoints would tell of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model


def known(params: type, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the fields that only newer hosts have."""
    names = {field.name for field in dataclasses.fields(params)}
    return {name: value for name, value in config.items() if name in names}


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
    "adm_in_channels": None,
    "context_dim": 24,
}
SDXL = UNET | {"adm_in_channels": 1280 + 6 * 256, "num_classes": "sequential"}
REFINER = SDXL | {"adm_in_channels": 1280 + 5 * 256}
_FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 12,
    "context_in_dim": 24,
    "hidden_size": 48,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 8, 8],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
FLUX = known(comfy.ldm.flux.model.FluxParams, _FLUX)
FLUX2 = FLUX | {
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "patch_size": 1,
    "axes_dim": [8, 8, 4, 4],
    "qkv_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
}
LUMINA = {
    "patch_size": 2,
    "in_channels": 16,
    "dim": 48,
    "cap_feat_dim": 24,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 2,
    "axes_dims": [8, 8, 8],
    "axes_lens": [300, 512, 512],
}
Z_IMAGE = LUMINA | {
    "dim": 256,
    "n_heads": 4,
    "n_kv_heads": 4,
    "axes_dims": [16, 24, 24],
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
_HUNYUAN = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 12,
    "context_in_dim": 24,
    "hidden_size": 48,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 8, 8],
    "theta": 256,
    "patch_size": [1, 2, 2],
    "qkv_bias": True,
    "guidance_embed": False,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}
HUNYUAN = known(comfy.ldm.hunyuan_video.model.HunyuanVideoParams, _HUNYUAN)
HUNYUAN_IMAGE = HUNYUAN | {
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": [1, 1],
    "axes_dim": [12, 12],
    "vec_in_dim": None,
}
WAN = {
    "model_type": "t2v",
    "dim": 48,
    "out_dim": 16,
    "in_dim": 16,
    "ffn_dim": 64,
    "text_dim": 24,
    "num_heads": 2,
    "num_layers": 1,
    "patch_size": (1, 2, 2),
    "freq_dim": 32,
    "text_len": 8,
}
WAN_I2V = WAN | {"model_type": "i2v", "in_dim": 36}
WAN22 = WAN | {"out_dim": 48, "in_dim": 48}
MMDIT = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": 1,
    "input_size": None,
    "adm_in_channels": 12,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 24, "out_features": 64},
    },
    "num_patches": 64 * 64,
    "pos_embed_max_size": 64,
    "pos_embed_scaling_factor": None,
}
AURA = {
    "dim": 48,
    "n_layers": 2,
    "n_double_layers": 1,
    "n_heads": 2,
    "global_conddim": 48,
    "cond_seq_dim": 24,
    "max_seq": 64 * 64,
}
PIXART = {
    "input_size": 128,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 48,
    "depth": 1,
    "num_heads": 2,
    "caption_channels": 24,
    "model_max_length": 8,
    "pe_interpolation": 2,
    "micro_condition": False,
}
_CHROMA = {
    "in_channels": 64,
    "out_channels": 64,
    "context_in_dim": 24,
    "hidden_size": 48,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 8, 8],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "in_dim": 64,
    "out_dim": 48,
    "hidden_dim": 32,
    "n_layers": 1,
    "txt_ids_dims": [],
    "vec_in_dim": None,
}
CHROMA = known(comfy.ldm.chroma.model.ChromaParams, _CHROMA)
QWEN = {
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 1,
    "attention_head_dim": 24,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (8, 8, 8),
}
COSMOS = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "concat_padding_mask": True,
    "model_channels": 48,
    "num_blocks": 1,
    "num_heads": 2,
    "crossattn_emb_channels": 24,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
    "rope_enable_fps_modulation": False,
}
LTX = {
    "cross_attention_dim": 48,
    "attention_head_dim": 24,
    "num_attention_heads": 2,
    "caption_channels": 24,
    "num_layers": 1,
}
