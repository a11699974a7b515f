"""What the speed benchmark times: our methods, of a session, a prompt, a seed and a scale."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..pack import Session
from .methods import from_noise, multidiffusion, progressive
from .task import Task, draw_native

Work = Callable[[Session, str, int, int], Tensor]


def native(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """The latent of the model's own size."""
    return draw_native(session, prompt, seed)


def from_native(draw: Callable[[Task], Tensor]) -> Work:
    """A method that starts from the native latent, which is drawn first."""

    def work(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
        return draw(Task(session, prompt, seed, scale, draw_native(session, prompt, seed)))

    return work


def from_scratch(draw: Callable[[Task], Tensor]) -> Work:
    """A method that starts from noise."""
    return lambda *task: draw(Task(*task))


def decode(session: Session, prompt: str, seed: int, scale: int) -> Tensor:
    """The picture of a large latent."""
    side = session.native * scale
    return session.decode(torch.zeros(1, 4, side, side))


def preset(name: str) -> Work:
    """A preset's stages, at the steps and the cfg of the bench."""
    return from_native(functools.partial(progressive, preset=name))


OURS: dict[str, Work] = {
    "VAE decode": decode,
    "direct": from_scratch(from_noise),
    "MultiDiffusion": from_scratch(multidiffusion),
    **{name: preset(name) for name in ("HiRes Fusion fast", "HiRes Fusion best", "RepLDM")},
    "DemoFusion": preset("DemoFusion"),
}
