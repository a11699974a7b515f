"""The same network with the same weights in diffusers' SDXL pipeline, where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from .speed_models import RandomSDXL
from .speed_others import Absent

LABEL = "diffusers StableDiffusionXLPipeline"


def pipeline(session: RandomSDXL):
    """The pipeline around the session's UNet, on its device and in its dtype.

    Raises:
        Absent: diffusers is not installed.
    """
    if importlib.util.find_spec("diffusers") is None:
        raise Absent("diffusers is not installed")
    diffusers = importlib.import_module("diffusers")
    import comfy.utils

    config = session.config
    channels = [config["model_channels"] * factor for factor in config["channel_mult"]]
    unet = diffusers.UNet2DConditionModel(
        sample_size=session.native,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=config["num_res_blocks"][0],
        # The host counts them per block, diffusers per level, of which the first has none.
        transformer_layers_per_block=[1, *config["transformer_depth"][2::2]],
        attention_head_dim=[width // config["num_head_channels"] for width in channels],
        cross_attention_dim=config["context_dim"],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=config["adm_in_channels"],
    )
    network = session.model.model.diffusion_model
    weights = network.state_dict()
    names = comfy.utils.unet_to_diffusers(config)
    wanted = unet.state_dict().keys()
    unet.load_state_dict({name: weights[names[name]] for name in wanted})
    dtype = next(network.parameters()).dtype
    made = diffusers.StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet.eval(),
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    ).to(session.model.load_device, dtype)
    made.set_progress_bar_config(disable=True)
    return made


def work(note: Callable[..., Callable]) -> Callable[[RandomSDXL, str, int, int], Tensor]:
    """Direct sampling through the pipeline; `note` is the meter's wrapper around a call."""
    made = None

    def sample(session: RandomSDXL, prompt: str, seed: int, scale: int) -> Tensor:
        nonlocal made
        if made is None:
            made = pipeline(session)
            made.unet.forward = note(made.unet.forward)
        side = session.native * scale * 8
        text, options = session.encode(prompt)[0]
        empty, empty_options = session.negative[0]
        device, dtype = made.unet.device, made.unet.dtype
        noise = torch.randn(
            1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(seed)
        )
        given = {
            "prompt_embeds": text,
            "negative_prompt_embeds": empty,
            "pooled_prompt_embeds": options["pooled_output"],
            "negative_pooled_prompt_embeds": empty_options["pooled_output"],
            "latents": noise,
        }
        return made(
            height=side,
            width=side,
            num_inference_steps=session.steps,
            guidance_scale=session.cfg,
            output_type="latent",
            **{name: tensor.to(device, dtype) for name, tensor in given.items()},
        ).images

    return sample
