"""Shapes of the demo model: a small SDXL for 256 x 256 px (32 x 32 latent cells).

`config.json` beside the weights repeats these, and is what the loader goes by.
"""

from __future__ import annotations

NATIVE_SIZE = 256
TEXT_WIDTH = 256
SIZE_EMBEDDING = 6 * 256  # SDXL: original size, crop, target size; two numbers each

TEXT_CONFIG = {
    "vocab_size": 0,  # set from the tokenizer's files
    "max_position_embeddings": 32,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 1,
}

CHANNELS_PER_GROUP = 4
"""The host always makes 32 groups in a norm. With 32 channels, that normalises each channel by
itself, which wipes out the mean of the predicted noise, and with it the picture's overall light
and colour; so the loader sets coarser groups (the weights are the same)."""

UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "conv_resample": False,
    "context_dim": TEXT_WIDTH,
    "adm_in_channels": TEXT_WIDTH + SIZE_EMBEDDING,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "legacy": False,
}
