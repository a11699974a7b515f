"""Teach the counter what the demo model's own pictures look like.

True renders are noised part of the way and sampled back by the demo model: the objects stay where
the masks say, but are drawn in the model's hand, soft edges, torn stripes and all. The counter goes
on training on these and on clean renders: `python -m lab.counter adapt`.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .counter import STRIDE, load_counter
from .counter_train import SIZE, loss_of, save, soften, targets, training_scene
from .pack import Session
from .scenes import Scene, prompt, random_scene, render

SEED = 700_000_000  # far from those of lab.dataset, the counter's training and its measurement
KINDS = ("balloon", "boat", "lighthouse")  # what the demo model draws
BATCH = 8
DENOISE = (0.3, 0.65)  # share of the schedule; above, objects leave their masks


def scene_of(seed: int) -> Scene:
    """One object of usual size in two of three scenes, up to five smaller ones in the others."""
    rng = np.random.default_rng([seed, 7])
    count = 1 if rng.random() < 0.65 else int(rng.integers(2, 6))
    scale = (1.0, 1.0) if count == 1 else (0.4, 1.0)
    return random_scene(seed, n_objects=count, object_scale=scale, kind=str(rng.choice(KINDS)))


def as_tensor(picture: np.ndarray) -> Tensor:
    """Float (H, W, 3) in 0..1 to uint8 (3, H, W)."""
    return torch.from_numpy((picture * 255 + 0.5).astype(np.uint8)).movedim(-1, 0)


@torch.inference_mode()
def redraw(session: Session, images: Tensor, texts: list[str], seed: int) -> Tensor:
    """uint8 (B, 3, H, W), drawn again by the demo model from part of the noise schedule."""
    import comfy.samplers

    rng = np.random.default_rng(seed)
    latent = session.vae.encode(images.movedim(1, -1).float() / 255)
    conds = [session.encode(text)[0] for text in texts]
    pooled = torch.cat([c[1]["pooled_output"] for c in conds])
    positive = [[torch.cat([c[0] for c in conds]), {"pooled_output": pooled}]]
    guider = comfy.samplers.CFGGuider(session.model)
    guider.set_conds(positive, session.negative)
    guider.set_cfg(session.cfg)
    sampling = session.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", session.steps)
    start = round(session.steps * (1 - rng.uniform(*DENOISE)))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    euler = comfy.samplers.sampler_object("euler")
    out = guider.sample(noise, latent, euler, sigmas[start:], seed=seed, disable_pbar=True)
    return (session.decode(out).clamp(0, 1) * 255).round().to(torch.uint8)


def make_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Redrawn and clean pictures uint8 (2 N, 3, 256, 256) and targets uint8 (2 N, 3, 64, 64)."""
    session = Session(steps=14, cfg=5.0)
    images = torch.empty(2 * count, 3, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.empty(2 * count, 3, SIZE // STRIDE, SIZE // STRIDE, dtype=torch.uint8)
    for first in tqdm(range(0, count, BATCH), desc="redrawing", mininterval=5):
        texts = []
        for i in range(first, first + BATCH):
            scene = scene_of(SEED + i)
            drawn = render(scene, SIZE, SIZE)
            images[i], labels[i] = (
                as_tensor(drawn.image),
                torch.from_numpy(targets(scene, drawn.masks)),
            )
            focal = scene.objects[0]
            texts.append(prompt(focal.kind, focal.colour, scene.setting, scene.time))
            scene, view = training_scene(SEED + i)
            drawn = render(scene, SIZE, SIZE, view)
            images[count + i] = as_tensor(drawn.image)
            labels[count + i] = torch.from_numpy(targets(scene, drawn.masks))
        here = slice(first, first + BATCH)
        images[here] = redraw(session, images[here], texts, SEED + first)
    return images, labels


def adapt(count: int, seconds: float, batch: int = 16) -> None:
    """Train the counter's weights further for `seconds` on `count` redrawn and as many clean."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    count = count // BATCH * BATCH
    images, labels = make_pairs(count)
    net = load_counter().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    begun, step = time.monotonic(), 0
    while (spent := time.monotonic() - begun) < seconds:
        rate = 1e-3 * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * spent / seconds))
        optimiser.param_groups[0]["lr"] = float(rate) + 1e-6
        pick = torch.randint(len(images), (batch,), generator=rng)
        image, label = images[pick].float() / 255, labels[pick]
        if torch.rand(1, generator=rng) < 0.5:
            image, label = image.flip(-1), label.flip(-1)
        image = soften(image, rng).contiguous(memory_format=torch.channels_last)
        loss = loss_of(net(image), label)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, loss {loss.item():.4f}", flush=True)
    save(net, {"adapted_steps": str(step), "redrawn": str(count)})
