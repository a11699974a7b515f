"""The demo model as it is trained: the host's own classes, in float32."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import diffusion, models


class DemoModel(nn.Module):
    """The host's SDXL model and CLIP text model, ready for training in float32."""

    def __init__(self) -> None:
        super().__init__()
        from demo.architecture import CHANNELS_PER_GROUP, TEXT_CONFIG, UNET_CONFIG
        from demo.text import clip_target, tokenizer_facts
        from demo.unet import DemoSDXL

        self.text_config = {**TEXT_CONFIG, **tokenizer_facts()}
        config = DemoSDXL(UNET_CONFIG, channels_per_group=CHANNELS_PER_GROUP)
        config.set_inference_dtype(torch.float32, None)
        self.sdxl = config.get_model({}, "")
        target = clip_target(self.text_config)
        self.tokenizer = target.tokenizer()
        self.clip = target.clip(dtype=torch.float32)
        models.init_weights(self.sdxl.diffusion_model)
        models.init_weights(self.clip)
        self.zero_outputs()
        models.trainable(self.sdxl.diffusion_model)
        models.trainable(self.clip)
        self.clip.clip_l.logit_scale.requires_grad_(False)
        self.length = self.text_config["max_position_embeddings"]
        self.register_buffer("empty", torch.tensor([self.tokens("")]), persistent=False)

    def zero_outputs(self) -> None:
        """Residual branches and the last convolution start at zero."""
        unet = self.sdxl.diffusion_model
        for name, layer in unet.named_modules():
            if name.endswith(("out_layers.3", "proj_out")):
                nn.init.zeros_(layer.weight)
        nn.init.zeros_(unet.out[2].weight)

    def load(self, folder: Path) -> None:
        """Weights of `folder`; attention that they lack stays as it begins, adding nothing."""
        state = {k: v.float() for k, v in load_file(folder / "unet.safetensors").items()}
        unet = self.sdxl.diffusion_model
        own = unet.state_dict()
        for name in [k for k in state if k not in own]:
            # an upsampling layer moves up by one where attention comes before it
            parts = name.split(".")
            parts[2] = str(int(parts[2]) + 1)
            state[".".join(parts)] = state.pop(name)
        missing, unexpected = unet.load_state_dict(state, strict=False)
        odd = [k for k in missing if "transformer_blocks" not in k and ".norm." not in k
               and ".proj_" not in k]  # fmt: skip
        if odd or unexpected:
            raise ValueError(f"{folder} holds another network: {odd[:3]} {unexpected[:3]}")
        self.clip.load_state_dict(load_file(folder / "text_encoder.safetensors"), strict=False)

    def tokens(self, text: str) -> list[int]:
        """Token ids of one prompt, padded; a longer one is cut."""
        return [t for t, _ in self.tokenizer.tokenize_with_weights(text)["l"][0]]

    def text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Context and pooled output of token ids (B, T)."""
        return diffusion.encode_text(self.clip.clip_l, tokens)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, sizes: Tensor,
                drop_pooled: float = 0.0) -> Tensor:  # fmt: skip
        """Noise prediction for scaled latents `x` (B, 4, h, w) at timesteps `t`.

        A share `drop_pooled` of the batch gets the empty prompt's pooled output, so that the tokens
        are read: the pooled output alone would tell nearly everything, and the network would leave
        its cross-attention unused.
        """
        from demo.unet import size_embedding

        context, pooled = self.text(tokens)
        if drop_pooled:
            drop = torch.rand(len(tokens), 1, device=tokens.device) < drop_pooled
            pooled = torch.where(drop, self.text(self.empty)[1], pooled)
        y = torch.cat([pooled.float(), size_embedding(self.sdxl, sizes)], dim=1)
        return self.sdxl.diffusion_model(x, t.float(), context=context, y=y)

    def weights(self) -> nn.ModuleDict:
        """The two modules with trained weights."""
        return nn.ModuleDict({"unet": self.sdxl.diffusion_model, "text": self.clip})
