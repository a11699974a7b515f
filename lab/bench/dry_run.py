"""What a preset asks of the network, and what that costs: its stages sampled with a model that
computes nothing.

The host and this pack run them; what the model is asked for is noted, evaluation by evaluation,
with its size, its views and its halves of cfg. Each kind of evaluation is then counted on the meta
device (`lab.bench.flops`). So a preset, a field or a guidance that is added later is counted as it
runs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pack import Session, enter
from .flops import FAMILIES, Family, Network, base_model, vae_work
from .relay import run_stages, stages_of

CELL = 8  # pixels
H100 = 989.4e12 * 0.6  # operations a second: dense bfloat16 of the SXM one, and what of it is used
PIXELS = 2**20  # of a tile
STAND_IN = 16  # cells


class Evaluation(NamedTuple):
    """One kind of evaluation of the network.

    Attributes:
        canvas: side of the picture in cells.
        views: "whole", "windows", "lattices" or "shrunk".
        size: (height, width) of the latent that the network gets.
        attention: settings of windowed attention, None for the whole.
    """

    canvas: int
    views: str
    size: tuple[int, int]
    attention: Any = None


class DryRun(Session):
    """A session whose model computes nothing, and is asked for what a real one would be.

    What is sampled is a stand-in of a few cells: the evaluations noted are those of the size that
    each stage has.

    Args:
        model: MODEL.
        native: side of a native picture in cells.
        width: of the prompt's text.

    Attributes:
        asked: how many latents of each kind; both halves of cfg count.
    """

    def __init__(self, model: Any, native: int, width: int):
        from comfy.patcher_extension import WrappersMP

        self.model = model.clone()
        # Outside all views: they are counted, and none is computed.
        self.model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "lab", self._note)
        self.steps, self.cfg = 0, 0.0  # each preset's own
        self.native, self.width, self.vae = native, width, None
        self.negative = self.encode("")
        self.asked: Counter[Evaluation] = Counter()
        self._canvas = (native, native)

    def encode(self, prompt: str) -> list:
        text = torch.zeros(1, 1, self.width)
        return [[text, {"pooled_output": torch.zeros(1, 1280)}]]

    def _note(self, executor, model, conds, x: Tensor, timestep: Tensor, options: dict) -> list:
        from hires_fusion.sampling.attention import KEY as ATTENTION
        from hires_fusion.sampling.denoiser import check_views
        from hires_fusion.sampling.plan import KEY, ViewPlan

        plan = options.get(KEY, ViewPlan())
        attention = options["transformer_options"].get(ATTENTION)
        local, dilated, pooled = check_views(plan, self._canvas, model)
        views = [("windows", local)] if local else [("whole", None)]
        views += [("lattices", dilated)] if dilated else []
        sigma = float(timestep.flatten()[0])
        if pooled and plan.upsample.span.holds(model.model_sampling, sigma):
            views.append(("shrunk", pooled))
        halves = sum(cond is not None for cond in conds)
        for name, found in views:
            size = found.size if found else self._canvas
            count = len(found.origins) if found else 1
            self.asked[Evaluation(max(self._canvas), name, size, attention)] += halves * count
        return [x / 2 for _ in conds]

    def sides(self, stages: list) -> list[int]:
        """Cells on a side of each stage's picture."""
        from hires_fusion.fusion_ops.stages import stage_size
        from hires_fusion.sampling.latents import patch_cells

        native, patch = (self.native, self.native), patch_cells(self.model.model)
        return [stage_size(native, stage.scale, patch)[0] for stage in stages]

    def stages(self, preset: str, scale: float, **changes: Any) -> list:
        """Sample a preset's stages from a picture; what they are. Lifts are left out: their VAE
        passes follow from the stages.

        `changes` are fields of `Stage` to change in all stages, or `strength`.
        """
        stages = stages_of(self, preset, scale, **changes)
        channels = self.model.model.latent_format.latent_channels
        native = torch.ones(1, channels, STAND_IN, STAND_IN)
        for stage, side in zip(stages, self.sides(stages), strict=True):
            self._canvas = (side, side)
            alone = {"scale": 1.0, "lift": "none", "unsharp": 0.0, "lfm": 0.0}
            with torch.inference_mode():
                run_stages(self, [dataclasses.replace(stage, **alone)], "", native, 0)
        return stages


def dry_run(family: Family) -> DryRun:
    """A session of a family, with a network of few channels for the host to hold."""
    enter()
    from comfy.model_patcher import ModelPatcher

    cpu = torch.device("cpu")
    width = family.small.get("context_dim") or family.small["context_in_dim"]
    model = ModelPatcher(base_model(family, small=True, device=cpu), cpu, cpu)
    return DryRun(model, family.native, width)


@dataclasses.dataclass(frozen=True)
class Cost:
    """A preset at a size, its native picture included.

    Attributes:
        preset, family, pixels: what, of which model, at which side.
        evaluations: of each kind by the stages, of the native picture not.
        native, stages: operations of the network.
        decoded, encoded: pixels through the VAE, the finished picture included.
        vae: operations of that, in tiles.
    """

    preset: str
    family: str
    pixels: int
    evaluations: dict[str, int]
    native: int
    stages: int
    decoded: int
    encoded: int
    vae: int

    @property
    def pflop(self) -> float:
        """Of the network."""
        return (self.native + self.stages) / 1e15

    @property
    def seconds(self) -> float:
        """On an H100, of the network."""
        return (self.native + self.stages) / H100


class Costs:
    """The costs of a family's presets; each kind of evaluation is counted once."""

    def __init__(self, name: str):
        self.name, self.family = name, FAMILIES[name]
        self.network = Network(self.family)
        self.session = dry_run(self.family)

    def cost(self, preset: str, pixels: int, **changes: Any) -> Cost:
        """Of a square picture of so many pixels a side.

        `changes` are fields of `Stage` to change in all stages, or `strength`.
        """
        family, session = self.family, self.session
        session.asked.clear()
        scale = pixels / (CELL * family.native)
        stages = session.stages(preset, scale, **changes)
        work = {
            kind: count * self.network.work(*kind.size, kind.attention).all
            for kind, count in session.asked.items()
        }
        counts: Counter[str] = Counter()
        for kind, count in session.asked.items():
            counts[f"{kind.canvas * CELL} {kind.views}"] += count
        sides = [CELL * side for side in (family.native, *session.sides(stages))]
        through = [i for i, stage in enumerate(stages) if stage.needs_vae]
        decoded = sum(sides[i] ** 2 for i in through) + sides[-1] ** 2
        encoded = sum(sides[i + 1] ** 2 for i in through)
        decode, encode = vae_work(session.model.model.latent_format.latent_channels)
        native = self.network.work(family.native, family.native).all
        return Cost(
            preset,
            self.name,
            pixels,
            dict(counts),
            family.steps * family.halves * native,
            sum(work.values()),
            decoded,
            encoded,
            round((decoded * decode + encoded * encode) / PIXELS),
        )
