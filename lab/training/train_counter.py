"""Train the counter of focal objects: `python -m lab.training.train_counter`.

Writes lab/bench/counter.safetensors; the net is `lab.bench.counter`'s.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..bench.counter import LONG_SIDE, STRIDE, WEIGHTS, CounterNet
from ..bench.counter_accuracy import soften
from ..scenes import COLOURS, KINDS, WHOLE, Scene, View, random_scene, render

IGNORE = 255
TRAIN_SEED = 500_000_000  # far from those of lab.scenes.dataset and of the test
CACHE = Path("lab/runs/counter_data.pt")


def training_scene(seed: int) -> tuple[Scene, View]:
    """Scenes with 0..8 objects of scale 0.25..1.2, some of them out of place, some views zoomed."""
    rng = np.random.default_rng([seed, 31])
    count = int(rng.choice(9, p=(0.06, 0.44, 0.12, 0.10, 0.08, 0.06, 0.06, 0.04, 0.04)))
    scale = (1.0, 1.0) if count == 1 and rng.random() < 0.6 else (0.25, 1.2)
    kind = str(rng.choice(KINDS)) if rng.random() < 0.5 else None
    colour = str(rng.choice(COLOURS)) if rng.random() < 0.4 else None
    scene = random_scene(seed, n_objects=count, object_scale=scale, kind=kind, colour=colour)
    if count > 1 and scene.setting == "sea" and rng.random() < 0.35:
        # A model that repeats its object does so anywhere: sails in the sky, towers in open water.
        moved = tuple(
            replace(f, y=float(np.clip(f.y + rng.normal(0, 0.2), 0.15, 0.85)))
            for f in scene.objects
        )
        scene = replace(scene, objects=moved)
    view = WHOLE
    if rng.random() < 0.15:
        side = float(rng.uniform(0.5, 0.95))
        x, y = (float(v) for v in rng.uniform(0, 1 - side, 2))
        view = (x, y, x + side, y + side)
    return scene, view


def targets(scene: Scene, masks: tuple[np.ndarray, ...]) -> np.ndarray:
    """uint8 (3, h, w): kind (0 background), colour, core; 255 where the loss should not look."""
    cells = LONG_SIDE // STRIDE
    out = np.zeros((3, cells, cells), np.uint8)
    out[1] = IGNORE
    covers = [m.reshape(cells, STRIDE, cells, STRIDE).mean((1, 3)) for m in masks]
    ys, xs = np.mgrid[:cells, :cells]
    for cover in covers:
        edge = (cover > 0.12) & (out[0] == 0)
        out[0][edge] = IGNORE
        out[2][edge & (out[2] == 0)] = IGNORE
    for focal, cover in zip(scene.objects, covers, strict=True):
        solid = cover > 0.38
        out[0][solid] = 1 + KINDS.index(focal.kind)
        out[1][cover > 0.3] = COLOURS.index(focal.colour)
        out[2][solid] = 0
    for cover in covers:
        rows, cols = np.nonzero(cover > 0.3)
        if len(rows) < 2:
            continue
        cy, cx = (rows.min() + rows.max()) / 2, (cols.min() + cols.max()) / 2
        ry = max(0.6, 0.25 * (rows.max() - rows.min() + 1))
        rx = max(0.6, 0.25 * (cols.max() - cols.min() + 1))
        out[2][((ys - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1] = 1
    return out


def make_data(count: int) -> tuple[Tensor, Tensor]:
    """`count` training pictures uint8 (N, 3, 256, 256) and their targets uint8 (N, 3, 64, 64).

    They are kept in a file; remove it after a change of the renderer.
    """
    if CACHE.exists():
        images, labels = torch.load(CACHE, weights_only=True)
        if len(images) == count:
            return images, labels
    images = torch.empty(count, 3, LONG_SIDE, LONG_SIDE, dtype=torch.uint8)
    labels = torch.empty(count, 3, LONG_SIDE // STRIDE, LONG_SIDE // STRIDE, dtype=torch.uint8)
    for index in tqdm(range(count), desc="rendering", unit="image", mininterval=5):
        scene, view = training_scene(TRAIN_SEED + index)
        drawn = render(scene, LONG_SIDE, LONG_SIDE, view)
        images[index] = torch.from_numpy((drawn.image * 255 + 0.5).astype(np.uint8)).movedim(-1, 0)
        labels[index] = torch.from_numpy(targets(scene, drawn.masks))
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    torch.save((images, labels), CACHE)
    return images, labels


def loss_of(maps: tuple[Tensor, Tensor, Tensor], labels: Tensor) -> Tensor:
    kind, colour, core = maps
    where = labels[:, 2] != IGNORE
    aim = (labels[:, 2] == 1).float()
    core_loss = F.binary_cross_entropy_with_logits(core[:, 0], aim, reduction="none")
    core_loss = (core_loss * where * (1 + 3 * aim)).mean()
    weight = torch.tensor([0.5] + [1.5] * len(KINDS))
    return (
        F.cross_entropy(kind, labels[:, 0].long(), weight, ignore_index=IGNORE)
        + 0.4 * F.cross_entropy(colour, labels[:, 1].long(), ignore_index=IGNORE)
        + 4 * core_loss
    )


def train(count: int, seconds: float, seed: int = 0, batch: int = 16) -> None:
    """Render `count` pictures, train for `seconds`, write the weights in half precision."""
    from safetensors.torch import save_file

    started = time.monotonic()
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    images, labels = make_data(count)
    net = CounterNet().to(memory_format=torch.channels_last).train()
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters")
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    begun, step, order = time.monotonic(), 0, torch.empty(0, dtype=torch.long)
    with tqdm(total=int(seconds), unit="s", mininterval=5) as bar:
        while (spent := time.monotonic() - begun) < seconds:
            cosine = 0.5 + 0.5 * np.cos(np.pi * spent / seconds)
            rate = 3e-3 * min(1.0, (step + 1) / 60) * cosine + 1e-5
            optimiser.param_groups[0]["lr"] = float(rate)
            if len(order) < batch:
                order = torch.randperm(count, generator=rng)
            pick, order = order[:batch], order[batch:]
            image, label = images[pick].float() / 255, labels[pick]
            if torch.rand(1, generator=rng) < 0.5:
                image, label = image.flip(-1), label.flip(-1)
            image = soften(image, rng).contiguous(memory_format=torch.channels_last)
            loss = loss_of(net(image), label)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            if step % 20 == 0:
                bar.set_postfix(step=step, loss=f"{loss.item():.4f}", refresh=False)
            bar.update(int(spent) - bar.n)
    state = {
        name: value.half().contiguous()
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(state, WEIGHTS, metadata={"steps": str(step), "pictures": str(count)})
    WEIGHTS.chmod(0o644)  # safetensors writes files that only their owner may read
    print(f"{step} steps, {time.monotonic() - started:.0f} s, {WEIGHTS.stat().st_size:,} bytes")


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--count", type=int, default=3000, help="training pictures to render")
    p.add_argument("--seconds", type=float, default=420, help="to train, once they are")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    train(args.count, args.seconds)


if __name__ == "__main__":
    main()
