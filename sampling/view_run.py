"""What the views of one sampling run share: seed, steps, progress, hints."""

from __future__ import annotations

import comfy.utils
from torch import Tensor

from .control import CanvasHints
from .run import Run


class ViewRun(Run):
    """State of one sampling run, gone when it ends."""

    def __init__(self, seed: int = 0, sigmas: Tensor | None = None):
        super().__init__(seed, sigmas)
        self.hints = CanvasHints()
        self.most_views: int | None = None  # set when the device ran out of memory
        self._bar: comfy.utils.ProgressBar | None = None
        self._views = 0
        self._step = 0
        self._done = 0

    def start_call(self, sigma: float, views: int) -> None:
        """A denoiser call of so many views begins."""
        if not self.sigmas:
            return
        if self._bar is None:
            self._views = views
            self._bar = comfy.utils.ProgressBar(len(self.sigmas) * views)
        step = self.nearest(sigma)
        if step > self._step:
            self._step, self._done = step, 0

    def advance(self, views: int) -> None:
        """Views are done: the host's progress bar counts them instead of steps."""
        if self._bar is None:
            return
        self._done = min(self._done + views, self._views)  # second-order samplers call twice
        self._bar.update_absolute(self._step * self._views + self._done)
