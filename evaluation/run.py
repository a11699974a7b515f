"""One comparison in progress: reading images once each, figures and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from . import distances
from .features import Extractor, Features, extract
from .images import Images
from .metrics import SETS, Score
from .spectrum import radial_spectrum, spectrum_distance

Watch = Callable[[int, int], object]


class Run:
    """Computes figures of two sets.

    Args:
        made, seen: generated and reference images.
        crops, crop_size: see `compare`.
        rounds: of the bootstrap.
        watch: called with (images read, images to read), and between rounds of the bootstrap.
    """

    def __init__(
        self,
        made: Images,
        seen: Images,
        crops: int,
        crop_size: int,
        seed: int,
        rounds: int,
        progress: bool,
        watch: Watch | None = None,
    ):
        self.made, self.seen = made, seen
        self.crops, self.crop_size = crops, crop_size
        self.seed, self.rounds, self.progress = seed, rounds, progress
        self.watch = watch
        self._total = self._read = 0
        self._bar = tqdm(total=0, desc="images", unit="image", disable=not progress)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *problem: object) -> None:
        self._bar.close()

    def expect(self, images: int) -> None:
        """So many images more will be read."""
        self._total += images
        self._bar.total = self._total

    def _tick(self, images: int = 0) -> None:
        self._read += images
        self._bar.update(images)
        if self.watch:
            self.watch(self._read, self._total)

    def set_metric(self, name: str, extractor: Extractor) -> dict[str, Score]:
        """A metric of features, of whole images and of crops."""
        metric = SETS[name]
        found = {}
        for crops in dict.fromkeys((0, self.crops)):
            made, seen = (
                getattr(self._features(extractor, images, crops), metric.part)
                for images in (self.made, self.seen)
            )
            value = metric.of(made, seen)
            each = crops or 1

            def statistic(chosen, made=made, seen=seen, each=each):
                rows = [torch.from_numpy(_rows(images, each)) for images in chosen]
                return [metric.of(made[rows[0]], seen[rows[1]])]

            halves = [(len(images) + 1) // 2 for images in (self.made, self.seen)]
            enough = (
                min(halves) * each >= metric.least and min(map(len, (self.made, self.seen))) > 1
            )
            away = self._deviations(name, statistic) if enough else np.empty((0, 1))
            low, high = distances.interval(value, away[:, 0], metric.bounds)
            label = f"{name}{'-crop' if crops else ''}{extractor.suffix}"
            found[label] = Score(value, low, high, min(len(made), len(seen)))
        return found

    def _features(self, extractor: Extractor, images: Images, crops: int) -> Features:
        size = self.crop_size if crops else 0
        return extract(extractor, images, crops, size, self.seed, self._tick)

    def _deviations(self, name: str, statistic) -> np.ndarray:
        counts = [len(self.made), len(self.seen)]
        if not self.rounds:
            return np.empty((0, 1))
        # A bar only where there is something to wait for.
        bar = tqdm(total=self.rounds, desc=f"{name} interval", leave=False, delay=2)
        bar.disable = bar.disable or not self.progress

        def tick() -> None:
            bar.update()
            self._tick()

        with bar:
            return distances.half_samples(statistic, counts, self.rounds, self.seed, tick)

    def spectrum(self) -> Score:
        """Distance of the mean radial power spectra, decibels."""
        sets = []
        for images in (self.made, self.seen):
            spectra = []
            for image in images:
                spectra.append(radial_spectrum(image))
                self._tick(1)
            sets.append(torch.stack(spectra))
        made, seen = sets
        value = spectrum_distance(made, seen)
        count = min(len(made), len(seen))

        def statistic(chosen):
            return [spectrum_distance(made[chosen[0]], seen[chosen[1]])]

        away = self._deviations("spectrum", statistic) if count > 1 else np.empty((0, 1))
        return Score(value, *distances.interval(value, away[:, 0], (0, np.inf)), count)

    def pairs(self, metric: Callable[[Tensor, Tensor], Tensor]) -> Score:
        """Mean distance of image i of one set and image i of the other."""
        values = []
        for made, seen in zip(self.made, self.seen, strict=True):
            values.append(float(metric(made[None], seen[None])))
            self._tick(1)
        return self._mean(values)

    def scores(self, scorer: Callable, prompts: Sequence[str] | None) -> Score:
        """Mean score of the generated images."""
        values = []
        for made, prompt in zip(self.made, prompts or [""] * len(self.made), strict=True):
            values.append(float(scorer(made[None], [prompt])))
            self._tick(1)
        return self._mean(values)

    def _mean(self, values: list[float]) -> Score:
        found = np.asarray(values, np.float64)
        low, high = distances.mean_interval(found, self.rounds, self.seed)
        return Score(float(found.mean()), low, high, len(found))


def _rows(images: np.ndarray, each: int) -> np.ndarray:
    """Rows of features that belong to images: `each` in turn."""
    return (images[:, None] * each + np.arange(each)).ravel()
