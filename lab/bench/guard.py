"""A small fixed part of the quality benchmark, with bands: `python -m lab.bench.guard --first 2000`

Four captions at twice the native size, few steps. Each figure shows that one part of DemoFusion is
at work, and leaves its band when that part is broken; without arguments the command prints what
the bands were chosen from.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..pack import Session
from ..scenes.wishes import wish
from .counter import count_objects
from .measures import line_ratios, reduce, roughness
from .methods import METHODS, STILL, progressive
from .task import Task, draw_native

SCALE, STEPS, FIRST, COUNT = 2, 8, 2000, 4

# Of one caption; for the seams the logarithms of all lines, (1, lines).
Figure = float | Tensor


@dataclass(frozen=True)
class Band:
    """Where the mean of a figure over the captions lies for a whole DemoFusion.

    Attributes:
        low, high: its ends.
        part: what is broken where the figure leaves the band.
        changes: fields of `Stage` that break it.
    """

    low: float
    high: float
    part: str
    changes: dict[str, Any]

    def holds(self, values: list[Figure]) -> bool:
        """Whether what they come to is inside."""
        return self.low <= together(values) <= self.high


BANDS = {
    "drift": Band(0.0, 0.70, "skip residual", {"skip_residual": False}),
    "objects": Band(0.75, 1.75, "dilation", {"dilated": False}),
    "roughness": Band(4.0, 14.0, "blur", {"blur_sigma": 0.01}),
    "seams": Band(0.0, 1.45, "moving and feathered windows", STILL),
    "contrast": Band(0.98, 1.02, "statistics match", {"match": False}),
}


def together(values: list[Figure]) -> float:
    """The mean over captions; of lines the largest of their geometric means."""
    if torch.is_tensor(values[0]):
        return torch.cat(values).mean(0).max().exp().item()
    return statistics.mean(values)


def tasks(session: Session, first: int = FIRST, count: int = COUNT) -> list[Task]:
    """The captions with their native pictures."""
    found = []
    for seed in range(first, first + count):
        text = wish(seed).prompt
        found.append(Task(session, text, seed, SCALE, draw_native(session, text, seed)))
    return found


def drift(latent: Tensor, native: Tensor) -> float:
    """How far the large latent, reduced, is from the native one, in deviations of that.

    The skip residual ties the two together.
    """
    error = reduce(latent, native.shape[-2:]) - native
    return (error.square().mean().sqrt() / native.std()).item()


def noise(latent: Tensor, native: Tensor) -> float:
    """Roughness of the large latent in variances of the native one.

    Dilated views of a blurred picture get back what the blur took away: in few steps some of its
    noise is left, and less of it is without the blur.
    """
    return roughness(latent) / native.var().item()


def contrast(latent: Tensor, native: Tensor) -> float:
    """Deviation of the large latent against that of the native one."""
    return (latent.std() / native.std()).item()


def objects(picture: Tensor) -> float:
    """Focal objects in a picture whose caption asks for one: windows alone repeat it."""
    return float(len(count_objects(picture)[0]))


def seams(task: Task, **changes: Any) -> Tensor:
    """Gradient ratios of every line, of what the windows alone predict in all steps, (1, lines).

    Seams are strongest there. The finished picture's are those that one sees, and take 16 pictures
    to be told from outlines (`lab.studies.seams`).
    """
    seen: list[Tensor] = []

    def keep(step: dict) -> Tensor:
        seen.append(step["denoised"].clone())
        return step["denoised"]

    model = task.session.model.clone()
    model.set_model_sampler_post_cfg_function(keep)
    session = _with_model(task.session, model)
    progressive(dataclasses.replace(task, session=session), dilated=False, **changes)
    return line_ratios(torch.cat(seen), cell=1).mean(0, keepdim=True)


def _with_model(session: Session, model: Any) -> Session:
    other = object.__new__(Session)
    other.__dict__ |= session.__dict__ | {"model": model}
    return other


def figures(
    task: Task, wanted: tuple[str, ...] = tuple(BANDS), **changes: Any
) -> dict[str, Figure]:
    """The wanted figures of one caption, with fields of the stages changed."""
    found = {}
    if "seams" in wanted:
        found["seams"] = seams(task, **changes)
    if set(wanted) == {"seams"}:
        return found
    latent = progressive(task, **changes)
    of_latents = {"drift": drift, "roughness": noise, "contrast": contrast}
    found |= {k: f(latent, task.native) for k, f in of_latents.items() if k in wanted}
    if "objects" in wanted:
        found["objects"] = objects(task.session.decode(latent))
    return found


def baseline_objects(task: Task, method: str) -> float:
    """Objects in a baseline's picture."""
    return objects(METHODS[method].draw(task))


def show(name: str, values: list[Figure]) -> str:
    """What they come to, and their range, as a cell."""
    each = [together([value]) for value in values]
    return f"{name} {together(values):.3f} ({min(each):.3f}..{max(each):.3f})"


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--first", type=int, default=FIRST, help="first seed")
    p.add_argument("--count", type=int, default=COUNT, help="captions")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    asked = tasks(Session(STEPS), args.first, args.count)
    whole = [figures(task) for task in asked]
    print("| figure | band | whole | broken part | broken |\n|---|---|---|---|---|")
    for name, band in BANDS.items():
        broken = [figures(task, (name,), **band.changes)[name] for task in asked]
        cells = [name, f"{band.low:g}..{band.high:g}", show("", [row[name] for row in whole])]
        print(f"| {' | '.join([*cells, band.part, show('', broken)])} |", flush=True)
    for method in ("direct", "MultiDiffusion"):
        print(show(f"objects, {method}:", [baseline_objects(task, method) for task in asked]))


if __name__ == "__main__":
    main()
