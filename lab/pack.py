"""The pack inside a ComfyUI process without a server: for measurements."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.host import find_host

from .files import ROOT

NAME = "hires_fusion"


def setup_host() -> Path:
    """Put ComfyUI on `sys.path`, on the CPU when there is no accelerator; returns its folder.

    The host goes first on the path: our own package `nodes` would otherwise shadow the host's
    module of that name.
    """
    host = find_host()
    path = str(host)
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)
    from comfy.cli_args import args

    args.use_pytorch_cross_attention = True
    if not torch.cuda.is_available():
        args.cpu = True
    return host


def enter() -> None:
    """Make ComfyUI and this checkout (as `hires_fusion`) importable."""
    setup_host()
    pack = types.ModuleType(NAME)
    pack.__path__ = [str(ROOT)]
    sys.modules.setdefault(NAME, pack)


def run_guider(
    guider: Any,
    noise: Tensor,
    latent: Tensor,
    sampler: Any,
    sigmas: Tensor,
    seed: int | None = None,
) -> Tensor:
    """The latent of one sampling run, on the device where the host's nodes hand it on."""
    import comfy.model_management as mm

    out = guider.sample(noise, latent, sampler, sigmas, seed=seed, disable_pbar=True)
    return out.to(mm.intermediate_device())


class Session:
    """The demo model and one prompt's worth of sampling on it, as the host's nodes would do it.

    Args:
        steps: sampling steps of every stage.
        cfg: guidance scale.
        folder: of other weights than those in `demo/`.

    Attributes:
        calls: latents that the model was given so far; each guidance branch and each view is one.
        cells: cells of all of them.
    """

    native = 32  # cells

    def __init__(self, steps: int = 25, cfg: float = 5.0, folder: Path | None = None):
        enter()
        from hires_fusion.demo.loader import load_demo_model

        self.model, self.clip, self.vae = load_demo_model(folder)
        from comfy.patcher_extension import WrappersMP

        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "lab", self._count)
        self._given: list[tuple[int, int]] = []  # latents of each call, cells of each latent
        self.steps = steps
        self.cfg = cfg
        self.negative = self.encode("")

    @property
    def calls(self) -> int:
        return sum(latents for latents, _ in self._given)

    @property
    def cells(self) -> int:
        return sum(latents * cells for latents, cells in self._given)

    def encode(self, prompt: str) -> list:
        """CONDITIONING of a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    def _count(self, executor, x: Tensor, *args, **kwargs) -> Tensor:
        self._given.append((len(x), x.shape[-2] * x.shape[-1]))
        return executor(x, *args, **kwargs)

    def sample(
        self,
        prompt: str,
        latent: Tensor,
        seed: int,
        model=None,
        sampler=None,
        *,
        start: float = 0.0,
        steps: int | None = None,
        cfg: float | None = None,
        positive: list | None = None,
    ) -> Tensor:
        """Sample from `latent` (B, 4, H, W), zeros for text to image.

        Args:
            prompt: what to draw.
            latent: the picture to start from.
            seed: of the noise.
            model: a patched MODEL instead of the session's.
            sampler: SAMPLER, Euler without.
            start: share of the schedule to skip, 0..1; at least one step is left.
            steps: of the whole schedule, instead of the session's.
            cfg: instead of the session's.
            positive: CONDITIONING in place of the prompt's.
        """
        import comfy.samplers

        from hires_fusion.fusion_ops.schedule import end_of_schedule

        guider = comfy.samplers.CFGGuider(model or self.model)
        guider.set_conds(positive or self.encode(prompt), self.negative)
        guider.set_cfg(self.cfg if cfg is None else cfg)
        sampling = self.model.get_model_object("model_sampling")
        whole = steps or self.steps
        sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", whole)
        sigmas = end_of_schedule(sigmas, whole, start)
        sampler = sampler or comfy.samplers.sampler_object("euler")
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        return run_guider(guider, noise, latent, sampler, sigmas, seed)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1."""
        return self.vae.decode(latent).movedim(-1, 1).float()
