"""The parts of diffusion training that are plain formulas: noise schedule, loss, text, sizes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

MOST_OFFSET = 1024  # px, of crop coordinates that mean nothing
SIZES = (192, 1280)  # px, of original and target sizes that mean nothing


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of two noise predictions."""
    return uncond + scale * (cond - uncond)


def alphas_cumprod(model) -> Tensor:
    """Signal power at each of the 1000 timesteps, from the host's own schedule."""
    return 1 / (1 + model.model_sampling.sigmas**2)


class Balance:
    """Weight of each timestep: the reciprocal of the error that is usual there."""

    def __init__(self, device: torch.device, bins: int = 25) -> None:
        self.bins, self.usual = bins, torch.ones(bins, device=device)
        self.met = torch.zeros(bins, device=device)

    def __call__(self, t: Tensor, errors: Tensor) -> Tensor:
        """Weights (B,) of the errors (B,) at timesteps (B,), of mean 1."""
        which = (t * self.bins // 1000).clamp(max=self.bins - 1)
        count = torch.zeros_like(self.met).index_add_(0, which, torch.ones_like(errors))
        total = torch.zeros_like(self.usual).index_add_(0, which, errors.detach().float())
        fresh = total / count.clamp(min=1)
        rate = torch.where(self.met == 0, 1.0, 0.02) * (count > 0)
        self.usual.lerp_(fresh, rate)
        self.met += count
        weight = 1 / (self.usual[which] + 1e-4)
        return weight / weight.mean()


def stratified_timesteps(batch: int, device: torch.device) -> Tensor:
    """One timestep in each of `batch` equal parts of 0..999, so that batches are alike."""
    u = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
    return (u * 1000).long().clamp_(max=999)


def random_sizes(crops: Tensor, rng: np.random.Generator, native: int = 256) -> Tensor:
    """Size conditioning (B, 6) in px for a batch whose true crop offsets are `crops` (B, 2).

    Order: original h, w, crop top, left, target h, w. Big sizes and big offsets come at random,
    unrelated to the picture, so that the model has met the values that tiled sampling feeds it.
    """
    batch = len(crops)
    sizes = np.full((batch, 6), native, np.float32)
    sizes[:, 2:4] = crops.numpy()
    odd = rng.random(batch) < 0.5
    sizes[odd, 0:2] = rng.integers(SIZES[0], SIZES[1] + 1, (int(odd.sum()), 2))
    odd = rng.random(batch) < 0.15
    sizes[odd, 4:6] = rng.integers(native, SIZES[1] + 1, (int(odd.sum()), 2))
    odd = (rng.random(batch) < 0.1) & (sizes[:, 2:4].sum(1) == 0)
    sizes[odd, 2:4] = rng.integers(0, MOST_OFFSET + 1, (int(odd.sum()), 2))
    return torch.from_numpy(sizes)


def encode_text(clip_model: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Context (B, T, C) and pooled (B, C) of token ids (B, T), differentiably.

    The same computation as the host's `SDClipModel.forward` over the same modules; the host's own
    adds in place to tensors that the backward pass needs.
    """
    transformer = clip_model.transformer
    text = transformer.text_model
    x = text.embeddings.token_embedding(tokens) + text.embeddings.position_embedding.weight
    heads = text.encoder.layers[0].self_attn.heads
    for layer in text.encoder.layers:
        attn, n = layer.self_attn, layer.layer_norm1(x)
        q, k, v = (
            proj(n).unflatten(-1, (heads, -1)).transpose(1, 2)
            for proj in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + attn.out_proj(out.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.layer_norm2(x))
    x = text.final_layer_norm(x)
    ends = (tokens == clip_model.special_tokens["end"]).int().argmax(dim=1)
    pooled = transformer.text_projection(x[torch.arange(len(x), device=x.device), ends])
    return x, pooled


def noise_words(tokens: list[int], length: int, rng: np.random.Generator,
                pieces: tuple[int, int]) -> list[int]:  # fmt: skip
    """Put an unknown word of 1 to 5 random byte pieces somewhere, so that such words do no harm."""
    word = [int(t) for t in rng.integers(*pieces, rng.integers(1, 6))]
    at = int(rng.integers(1, tokens.index(tokens[-1])))
    body = [t for t in tokens if t != tokens[-1]]
    out = body[:at] + word + body[at:]
    out = [*out[: length - 1], tokens[-1]]
    return out + [tokens[-1]] * (length - len(out))


@torch.no_grad()
def euler_sample(model, context: Tensor, pooled: Tensor, steps: int, guidance: float,
                 seed: int) -> Tensor:  # fmt: skip
    """Latents (B, 4, 32, 32) from noise, for progress pictures.

    `context` (B + 1, T, C) and `pooled` (B + 1, C) end with the empty prompt. Noise prediction in
    the variance-exploding form that the host's samplers use.
    """
    from demo.unet import size_embedding

    batch, device = len(context) - 1, context.device
    sampling = model.model_sampling
    index = torch.linspace(999, 0, steps).round().long()
    sigmas = torch.cat([sampling.sigmas[index.to(sampling.sigmas.device)].cpu(), torch.zeros(1)])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, 32, 32, generator=generator).to(device) * sigmas[0]
    context = torch.cat([context[:-1], context[-1:].expand(batch, -1, -1)])
    sizes = torch.tensor([[256.0, 256, 0, 0, 256, 256]], device=device).expand(2 * batch, 6)
    y = torch.cat([pooled[:-1], pooled[-1:].expand(batch, -1)])
    y = torch.cat([y, size_embedding(model, sizes)], dim=1)
    for i in range(steps):
        scaled = x / (sigmas[i] ** 2 + 1) ** 0.5
        t = torch.full((2 * batch,), float(index[i]), device=device)
        eps = model.diffusion_model(torch.cat([scaled, scaled]), t, context=context, y=y).float()
        eps = guide(*eps.chunk(2), guidance)
        x = x + eps * (sigmas[i + 1] - sigmas[i])
    return x
