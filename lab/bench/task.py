"""What a method is given and what it gives: the words that the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..pack import Session

NATIVE = Session.native
CELL = 8  # pixels


@dataclass(frozen=True)
class Task:
    """One picture to draw.

    Attributes:
        session: the model.
        prompt: what to draw.
        seed: of noise and window shifts.
        scale: size against the native one, > 1.
        native: finished latent of the same prompt and seed, (1, 4, 32, 32); None for methods that
            start from noise.
        enlarged: the native picture through Real-ESRGAN x4plus, (1, 3, 1024, 1024) in 0..1, where
            the method says `from_enlarged` and a gallery keeps it; None otherwise.
    """

    session: Session
    prompt: str
    seed: int
    scale: float
    native: Tensor | None = None
    enlarged: Tensor | None = None

    @property
    def cells(self) -> int:
        """Side of the large latent."""
        return round(self.session.native * self.scale)

    def empty(self) -> Tensor:
        """The large latent for drawing from pure noise."""
        return torch.zeros(1, 4, self.cells, self.cells)


@dataclass(frozen=True)
class Method:
    """A way to a large picture.

    Attributes:
        draw: task -> picture (1, 3, H, W) in 0..1.
        from_native: it starts from the native picture, whose cost is then part of its own.
        kind: "baseline", "preset", "fusion" or "ablation".
        from_enlarged: it starts from the native picture through Real-ESRGAN.
    """

    draw: Callable[[Task], Tensor]
    from_native: bool = True
    kind: str = "baseline"
    from_enlarged: bool = False


def draw_native(session: Session, prompt: str, seed: int) -> Tensor:
    """The latent at the model's own size, (1, 4, 32, 32)."""
    return session.sample(prompt, torch.zeros(1, 4, session.native, session.native), seed)
