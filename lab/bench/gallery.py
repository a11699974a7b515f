"""Pictures of all methods for the same prompts and seeds, kept in a folder between calls.

    native/1000.safetensors      the native latent that methods start from, and its cost
    native/1000_enlarged.png     the native picture through Real-ESRGAN, and its cost
    2x/DemoFusion/1000.png       a picture, with its cost in its text
    2x/references/1000_0.png     true renders of the same caption

What is there is not drawn again, so a run can be interrupted and goes on where it stopped. The
folder remembers the weights and settings of its pictures and refuses others.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import ROOT, write_json
from ..pack import Session
from ..pictures import to_image, to_tensor
from ..scenes.wishes import true_render, wish
from .methods import METHODS
from .task import CELL, NATIVE, Method, Task, draw_native
from .upscaler import enlarge_4x


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


def _save(picture: Image.Image, path: Path, cost: Cost) -> None:
    text = PngInfo()
    text.add_text("cost", json.dumps(asdict(cost)))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    picture.save(partial, format="png", pnginfo=text)
    partial.replace(path)


PARTS = ("text_encoder", "unet", "vae")  # of the model that draws


def fingerprint(folder: Path | None = None) -> str:
    """Sixteen digits of the hash of a model's weights, those in `demo/` without a folder."""
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
        methods: those that `picture` knows by name.

    Raises:
        ValueError: the folder's pictures are of other weights or settings.
    """

    def __init__(
        self,
        folder: Path,
        steps: int = 25,
        cfg: float = 5.0,
        weights: Path | None = None,
        methods: Mapping[str, Method] = METHODS,
    ):
        self.folder = folder
        self.methods = methods
        self.recipe = {"steps": steps, "cfg": cfg, "weights": fingerprint(weights)}
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

    def enlarged(self, seed: int) -> tuple[Tensor, Cost]:
        """The native picture through Real-ESRGAN, four times its side, and what that took."""
        path = self.folder / "native" / f"{seed}_enlarged.png"
        if not path.exists():
            (native,) = load([self.native_picture(seed)])
            with torch.inference_mode(), Meter(self.session) as meter:
                large = enlarge_4x(native)
            _save(to_image(large), path, meter.cost)
        return load([path])[0], cost_of(path)

    def place(self, name: str, seed: int, scale: int) -> Path:
        """Where a method's picture is or will be."""
        return self.folder / f"{scale}x" / name / f"{seed}.png"

    def picture(self, name: str, seed: int, scale: int) -> Path:
        """A method's picture of a seed."""
        path = self.place(name, seed, scale)
        if not path.exists():
            method = self.methods[name]
            latent, before = self.native(seed) if method.from_native else (None, Cost())
            enlarged = None
            if method.from_enlarged:
                enlarged, further = self.enlarged(seed)
                before += further
            task = Task(self.session, wish(seed).prompt, seed, scale, latent, enlarged)
            with torch.inference_mode(), Meter(self.session) as meter:
                picture = method.draw(task)
            cost = meter.cost + before
            _save(to_image(picture), path, cost)
        return path

    def render(self, seed: int, number: int, scale: int) -> Path:
        """A true render of a seed's caption; each number is another scene."""
        path = self.folder / f"{scale}x" / "references" / f"{seed}_{number}.png"
        if not path.exists():
            image = true_render(seed, number, NATIVE * CELL * scale)
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
