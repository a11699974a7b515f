"""The methods that the benchmarks compare. A new one is a line in METHODS.

Every method gets the same task: a prompt, a seed and the finished native latent of both, which
those that enlarge a picture start from, and the others ignore.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .relay import run_stages, stages_of
from .task import CELL, Method, Task
from .upscaler import enlarge_4x

PUBLISHED_GAMMA = 0.004  # of RepLDM's evaluation


def from_noise(task: Task, model: Any = None) -> Tensor:
    """The large latent at once; with the session's own model, as the stock sampler does it."""
    return task.session.sample(task.prompt, task.empty(), task.seed, model)


def multidiffusion(task: Task) -> Tensor:
    """Windows alone, from noise (arXiv 2302.08113)."""
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import LocalViews

    return from_noise(task, add_views(task.session.model, local=LocalViews(**STILL)))


def dilated_only(task: Task) -> Tensor:
    """Dilated views and the canvas as a whole, from noise, without windows."""
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import DilatedViews

    return from_noise(task, add_views(task.session.model, dilated=DilatedViews()))


def upsample_guidance(task: Task) -> Tensor:
    """The canvas shrunk corrects the whole, from noise (arXiv 2404.01709)."""
    from hires_fusion.sampling.denoiser import add_views
    from hires_fusion.sampling.plan import UpsampleViews
    from hires_fusion.sampling.span import span

    views = UpsampleViews(span=span(0.0, 0.6))
    return from_noise(task, add_views(task.session.model, upsample=views))


def deep_shrink(task: Task) -> Tensor:
    """The host's PatchModelAddDownscale with its defaults, by the factor of the scale."""
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    model = PatchModelAddDownscale.execute(
        task.session.model, 3, float(task.scale), 0.0, 0.35, True, "bicubic", "bicubic"
    ).result[0]
    return from_noise(task, model)


def bicubic(task: Task) -> Tensor:
    """The decoded native picture, enlarged."""
    from hires_fusion.fusion_ops.upsample import resize

    side = task.cells * CELL
    return resize(task.session.decode(task.native), (side, side)).clamp(0, 1)


def real_esrgan(task: Task) -> Tensor:
    """The decoded native picture through Real-ESRGAN x4plus, then reduced to the size."""
    side = task.cells * CELL
    large = task.enlarged
    if large is None:
        large = enlarge_4x(task.session.decode(task.native))
    return torch.nn.functional.interpolate(
        large, (side, side), mode="bicubic", antialias=True
    ).clamp(0, 1)


def progressive(task: Task, preset: str = "DemoFusion", **changes: Any) -> Tensor:
    """The latent of a preset's stages, as Progressive Upscale expands them.

    Args:
        task: what to draw.
        preset: a key of `fusion_ops.presets.PRESETS`.
        changes: fields of `Stage` to change in all stages; `strength` of the node.
    """
    stages = stages_of(task.session, preset, task.scale, **changes)
    return run_stages(task.session, stages, task.prompt, task.native, task.seed)


def guided_sampler(steps: int, scale: float = PUBLISHED_GAMMA, guidance: Any = None) -> Any:
    """Euler with attentive guidance as RepLDM's evaluation runs it, for a run of `steps`.

    `guidance` makes the transform of a plan in place of the pack's own.
    """
    import comfy.samplers

    from hires_fusion.fusion_ops.guidance import Guidance
    from hires_fusion.sampling.steps import between_steps
    from hires_fusion.sampling.transforms import attentive_guidance

    skip = round(steps * 3 / 50)
    plan = Guidance(scale, skip_first=skip, decay="cosine", decay_factor=3.0)
    return between_steps(
        comfy.samplers.sampler_object("euler"), (guidance or attentive_guidance)(plan)
    )


def repldm(task: Task) -> Tensor:
    """Both of RepLDM's stages: a native picture of its own, with attentive guidance."""
    session = task.session
    empty = torch.zeros(1, 4, session.native, session.native)
    sampler = guided_sampler(session.steps)
    native = session.sample(task.prompt, empty, task.seed, sampler=sampler)
    return progressive(dataclasses.replace(task, native=native), "RepLDM")


def fused(task: Task, kind: str) -> Tensor:
    """The enlarged native latent (base) and RepLDM's stages (refined), fused.

    Args:
        kind: "agf" or "dsf" with the trained demo weights, "spec" as published, "blend" at 0.5.
    """
    from hires_fusion.fusion_ops import spectrum
    from hires_fusion.fusion_ops.latent_fusion import blend
    from hires_fusion.sampling.fusers import fuse
    from hires_fusion.sampling.lift import upsample

    size = (task.cells, task.cells)
    base = upsample({"samples": task.native}, size, "pixel bicubic", task.session.vae)
    refined = {"samples": progressive(task, "RepLDM")}
    if kind == "blend":
        return blend(base["samples"], refined["samples"], 0.5)
    if kind == "spec":
        band = spectrum.published_band(0.85, 0.5)
        return spectrum.frequency_fusion(base["samples"], refined["samples"], band)
    latent_format = task.session.model.model.latent_format
    options = {"mode": "weights", "weights": f"demo_{kind}.safetensors", "ratio": 0.5, "seed": 0}
    return fuse(kind, base, refined, latent_format=latent_format, **options)[0]["samples"]


def decoded(draw: Callable[..., Tensor], *args: Any, **changes: Any) -> Callable[[Task], Tensor]:
    """The picture of what a function of a task draws as a latent."""
    return lambda task: task.session.decode(draw(task, *args, **changes))


def from_scratch(draw: Callable[[Task], Tensor]) -> Method:
    """The row of a method that starts from noise."""
    return Method(decoded(draw), from_native=False)


def preset(name: str) -> Method:
    """The row of a preset."""
    return Method(decoded(progressive, name), kind="preset")


def ablation(**changes: Any) -> Method:
    """The row of DemoFusion with fields of its stages changed."""
    return Method(decoded(progressive, **changes), kind="ablation")


# Windows as MultiDiffusion has them.
STILL = {"jitter": False, "weights": "uniform"}

# What breaks one part of DemoFusion. A blur of a hundredth of a cell is none.
ABLATIONS: dict[str, dict[str, Any]] = {
    "without skip residual": {"skip_residual": False},
    "without dilation": {"dilated": False},
    "without blur": {"blur_sigma": 0.01},
    "without statistics match": {"match": False},
    "without moving and feathered windows": STILL,
    "with published windows": {"border": "zero", "weights": "uniform"},
}

# Presets whose rows have their own names.
LATER = (
    *("DemoFusion, pixel lift", "DemoFusion lean", "RectifiedHR", "RectifiedHR (released)"),
    *("FreCaS", "ScaleDiff", "DiffuseHigh", "Rush", "HiRes Fusion fast", "HiRes Fusion best"),
)

METHODS: dict[str, Method] = {
    "bicubic": Method(bicubic),
    "Real-ESRGAN": Method(real_esrgan, from_enlarged=True),
    "direct": from_scratch(from_noise),
    "MultiDiffusion": from_scratch(multidiffusion),
    "Deep Shrink": from_scratch(deep_shrink),
    "Upsample Guidance": from_scratch(upsample_guidance),
    "dilated only": from_scratch(dilated_only),
    "DemoFusion": preset("DemoFusion"),
    "DemoFusion-Turbo": preset("DemoFusion-Turbo"),
    # From the plain native picture: attentive guidance acts before these stages.
    "RepLDM stages": preset("RepLDM"),
    "AP-LDM stages": preset("AP-LDM"),
    **{name: preset(name) for name in LATER},
    "FreeScale-style restart": preset("FreeScale-style restart"),
    "RepLDM": Method(decoded(repldm), from_native=False, kind="preset"),
    "RepLDM stages + blend": Method(decoded(fused, "blend"), kind="fusion"),
    "RepLDM stages + AGF": Method(decoded(fused, "agf"), kind="fusion"),
    "RepLDM stages + DSF": Method(decoded(fused, "dsf"), kind="fusion"),
    "RepLDM stages + SpecFusion": Method(decoded(fused, "spec"), kind="fusion"),
    **{name: ablation(**changes) for name, changes in ABLATIONS.items()},
}
