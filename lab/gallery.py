"""Pictures of all methods for the same prompts and seeds, kept in a folder between calls.

    native/1000.safetensors      the native latent that methods start from, and its cost
    2x/DemoFusion/1000.png       a picture, with its cost in its text
    2x/references/1000_0.png     true renders of the same caption

What is there is not drawn again, so a run can be interrupted and goes on where it stopped. The
folder remembers the weights and settings of its pictures and refuses others.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .methods import CELL, METHODS, NATIVE, Task, draw_native
from .models import ROOT, write_json
from .pack import Session
from .scenes import COLOURS, SETTINGS_OF_KIND, TIMES, prompt, random_scene, render

KINDS = ("balloon", "boat", "lighthouse")  # what the demo model was taught


@dataclass(frozen=True)
class Wish:
    """What a seed asks for: one object of a kind and colour, where and when."""

    kind: str
    colour: str
    setting: str
    time: str

    @property
    def prompt(self) -> str:
        """The caption."""
        return prompt(self.kind, self.colour, self.setting, self.time)


def wish(seed: int) -> Wish:
    """The wish of a seed: kinds and colours take turns, the rest is drawn."""
    rng = np.random.default_rng(seed)
    kind, colour = KINDS[seed % len(KINDS)], COLOURS[seed % len(COLOURS)]
    setting, hour = rng.choice(SETTINGS_OF_KIND[kind]), rng.choice(TIMES)
    return Wish(kind, colour, str(setting), str(hour))


@dataclass(frozen=True)
class Cost:
    """What a picture took.

    Attributes:
        seconds: of processor time on a CPU, of the clock with an accelerator; decoding included.
        calls: latents that the model was given; each guidance branch and each view is one.
        evaluations: the same in latents of native size, so one of twice the side counts four.
    """

    seconds: float = 0.0
    calls: int = 0
    evaluations: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, int, float]:
        """The three figures."""
        return self.seconds, self.calls, self.evaluations


class Meter:
    """Measures the cost of what runs inside a `with`."""

    def __init__(self, session: Session):
        self.session = session
        self.clock = time.perf_counter if torch.cuda.is_available() else time.process_time

    def __enter__(self) -> Meter:
        self.started = self.clock(), self.session.calls, self.session.cells
        return self

    def __exit__(self, *problem: object) -> None:
        seconds, calls, cells = self.started
        self.cost = Cost(
            self.clock() - seconds,
            self.session.calls - calls,
            (self.session.cells - cells) / NATIVE**2,
        )


def to_image(picture: Tensor) -> Image.Image:
    """(1, 3, H, W) in 0..1 as a picture of 8 bits."""
    pixels = picture[0].movedim(0, -1).clamp(0, 1).cpu().numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in 0..1."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
    return pixels.movedim(-1, 0)[None]


def _save(picture: Image.Image, path: Path, cost: Cost) -> None:
    text = PngInfo()
    text.add_text("cost", json.dumps(asdict(cost)))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    picture.save(partial, format="png", pnginfo=text)
    partial.replace(path)


PARTS = ("text_encoder", "unet", "vae")  # of the model that draws


def _weights(folder: Path | None) -> str:
    sha = hashlib.sha256()
    for name in PARTS:
        file = (folder or ROOT / "demo") / f"{name}.safetensors"
        sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


class Gallery:
    """A folder of pictures that draws those that it lacks.

    Args:
        folder: made if it is not there.
        steps: sampling steps of every stage.
        cfg: guidance scale.
        weights: folder of other weights than those in `demo/`.

    Raises:
        ValueError: the folder's pictures are of other weights or settings.
    """

    def __init__(
        self, folder: Path, steps: int = 25, cfg: float = 5.0, weights: Path | None = None
    ):
        self.folder = folder
        self.recipe = {"steps": steps, "cfg": cfg, "weights": _weights(weights)}
        self._weights = weights
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "recipe.json"
        if not file.exists():
            write_json(self.recipe, file)
        elif (other := json.loads(file.read_text())) != self.recipe:
            raise ValueError(
                f"{folder} holds pictures of {other}, not of {self.recipe}: "
                "give another folder, or remove it"
            )

    @cached_property
    def session(self) -> Session:
        """The demo model, loaded when the first picture is drawn, and warm."""
        session = Session(self.recipe["steps"], self.recipe["cfg"], self._weights)
        with torch.inference_mode():
            session.decode(session.sample("", torch.zeros(1, 4, NATIVE, NATIVE), 0, steps=1))
        return session

    def native(self, seed: int) -> tuple[Tensor, Cost]:
        """The native latent of a seed and what it took."""
        path = self.folder / "native" / f"{seed}.safetensors"
        if not path.exists():
            with torch.inference_mode(), Meter(self.session) as meter:
                latent = draw_native(self.session, wish(seed).prompt, seed)
            path.parent.mkdir(exist_ok=True)
            cost = {"cost": json.dumps(asdict(meter.cost))}
            save_file({"latent": latent.clone().contiguous()}, path.with_suffix(".part"), cost)
            path.with_suffix(".part").replace(path)
        with safe_open(path, "pt") as file:
            return file.get_tensor("latent"), Cost(**json.loads(file.metadata()["cost"]))

    def native_picture(self, seed: int) -> Path:
        """The decoded native latent."""
        path = self.folder / "native" / f"{seed}.png"
        if not path.exists():
            latent, cost = self.native(seed)
            with torch.inference_mode():
                _save(to_image(self.session.decode(latent)), path, cost)
        return path

    def place(self, name: str, seed: int, scale: int) -> Path:
        """Where a method's picture is or will be."""
        return self.folder / f"{scale}x" / name / f"{seed}.png"

    def picture(self, name: str, seed: int, scale: int) -> Path:
        """A method's picture of a seed."""
        path = self.place(name, seed, scale)
        if not path.exists():
            method = METHODS[name]
            latent, cost = self.native(seed)
            task = Task(self.session, wish(seed).prompt, seed, scale, latent)
            with torch.inference_mode(), Meter(self.session) as meter:
                picture = method.draw(task)
            cost = meter.cost + cost if method.from_native else meter.cost
            _save(to_image(picture), path, cost)
        return path

    def render(self, seed: int, number: int, scale: int) -> Path:
        """A true render of a seed's caption; each number is another scene."""
        path = self.folder / f"{scale}x" / "references" / f"{seed}_{number}.png"
        if not path.exists():
            asked = wish(seed)
            # Scenes of the training data have seeds up to 10^7 each; these are far above.
            scene = random_scene(
                9_000_000_000 + seed * 1000 + number,
                kind=asked.kind,
                colour=asked.colour,
                setting=asked.setting,
                time=asked.time,
            )
            side = NATIVE * CELL * scale
            image = render(scene, side, side).image
            _save(to_image(torch.from_numpy(image).movedim(-1, 0)[None]), path, Cost())
        return path


def cost_of(path: Path) -> Cost:
    """What a kept picture took."""
    with Image.open(path) as image:
        return Cost(**json.loads(image.text["cost"]))


def load(paths: Iterable[Path]) -> list[Tensor]:
    """Kept pictures, each (1, 3, H, W) in 0..1."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(to_tensor(image))
    return pictures


def sheet(rows: dict[str, list[Image.Image]], side: int) -> Image.Image:
    """One row of pictures per method, labelled."""
    columns = max(map(len, rows.values()))
    out = Image.new("RGB", (columns * side, len(rows) * (side + 18)), "white")
    pen = ImageDraw.Draw(out)
    for r, (name, images) in enumerate(rows.items()):
        pen.text((4, r * (side + 18) + 3), name, fill="black")
        for c, image in enumerate(images):
            small = image.resize((side, side), Image.Resampling.LANCZOS)
            out.paste(small, (c * side, r * (side + 18) + 18))
    return out
