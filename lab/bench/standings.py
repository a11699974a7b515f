"""The tournament's table: each row's headline figures, and in words what can be told apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from .figures import unpack
from .measures import chance
from .paired import NONE, SAME, Estimate, distance_pairs, of_pairs, of_values
from .registered import Plan
from .results import REFERENCE, Rows
from .rows import FLOOR, TRUE

SEAM = 0.05  # chance below which a line is told apart
HEADLINE = 2  # of the rows in `against` that stand in the table
COLUMNS = ("excess objects", "PSNR, dB", "ST-LPIPS", "worst line", "spectrum, dB")


@dataclass(frozen=True)
class Standing:
    """One row at one scale.

    Attributes:
        kid: distance of crops from true renders.
        against: by row, this row's distance minus that one's on the seeds of both.
        nearer: the same of the PSNR against the native picture.
        excess: objects that the native picture does not have.
        one: share of pictures with exactly the object that was asked for.
        psnr, lpips: against the native picture.
        seam, line, seam_chance: gradient ratio of the worst line, which one it is, and how often
            lines without seams are as far from 1; NaN where there are too few pictures.
        spectrum: decibels off the true renders.
        seconds, evaluations: of a picture.
    """

    name: str
    scale: int
    seeds: list[int]
    kid: Estimate
    against: dict[str, Estimate]
    nearer: dict[str, Estimate]
    excess: Estimate
    one: float
    psnr: Estimate
    lpips: Estimate
    seam: float
    line: int
    seam_chance: float
    spectrum: float
    seconds: float
    evaluations: float

    @property
    def follows(self) -> bool:
        """Whether it shows the native picture's scene."""
        return self.psnr.exists


class Table:
    """Standings of one scale; pairs of seeds are computed once for each set of seeds."""

    def __init__(self, rows: Rows, plan: Plan, scale: int):
        self.rows, self.plan, self.scale = rows, plan, scale
        self._pairs: dict[tuple, np.ndarray] = {}

    def pairs(self, name: str, seeds: list[int]) -> np.ndarray:
        """See `paired.distance_pairs`."""
        key = name, *seeds
        if key not in self._pairs:
            sets = (unpack(self.stacked(each, "features", seeds)) for each in (name, REFERENCE))
            self._pairs[key] = distance_pairs(*sets)
        return self._pairs[key]

    def stacked(self, name: str, figure: str, seeds: list[int]) -> np.ndarray:
        """A figure of a row's pictures of some seeds."""
        return self.rows.stacked((self.scale, name), figure, seeds)

    def seeds(self, *names: str) -> list[int]:
        """Seeds that all of these rows have."""
        return self.rows.seeds(*((self.scale, name) for name in (*names, REFERENCE)))

    def difference(self, name: str, other: str) -> Estimate:
        """Distance of crops of a row minus that of another one, on the seeds of both."""
        seeds = self.seeds(name, other)
        if name == other or len(seeds) < 3:
            return NONE
        return of_pairs(self.pairs(name, seeds) - self.pairs(other, seeds), self.plan.draws)

    def gain(self, name: str, other: str) -> Estimate:
        """How much nearer to the native picture a row is, in decibels of PSNR."""
        seeds = self.seeds(name, other)
        if name == other or len(seeds) < 3:
            return NONE
        both = [self.stacked(each, "psnr", seeds).astype(np.float64) for each in (name, other)]
        return of_values(both[0] - both[1], self.plan.draws)

    def standing(self, name: str) -> Standing:
        """All figures of a row."""
        from evaluation.spectrum import spectrum_distance

        seeds, draws = self.seeds(name), self.plan.draws
        mean = {f: float(self.stacked(name, f, seeds).mean()) for f in ("seconds", "evaluations")}
        objects = self.stacked(name, "objects", seeds) - self.stacked(name, "native_objects", seeds)
        lines = torch.from_numpy(self.stacked(name, "seams", seeds)).double()
        worst = lines.mean(0).argmax().item()
        spectra = [
            torch.from_numpy(self.stacked(each, "spectrum", seeds)) for each in (name, REFERENCE)
        ]
        others = [other for other in self.plan.against if (self.scale, other) in self.rows.pictures]
        return Standing(
            name,
            self.scale,
            seeds,
            of_pairs(self.pairs(name, seeds), draws),
            {other: self.difference(name, other) for other in others},
            {other: self.gain(name, other) for other in others},
            NONE if name in (TRUE, FLOOR) else of_values(objects, draws),
            float(self.stacked(name, "right", seeds).mean()),
            of_values(self.stacked(name, "psnr", seeds), draws),
            of_values(self.stacked(name, "lpips", seeds), draws),
            lines.mean(0)[worst].exp().item(),
            worst + 1,
            chance(lines.float()) if len(seeds) > 2 else np.nan,
            spectrum_distance(*spectra),
            **mean,
        )

    def standings(self) -> list[Standing]:
        """Every row that has pictures, in the plan's order."""
        order = self.plan.rows_of(self.scale)
        names = sorted(
            (name for name in self.rows.names(self.scale) if self.seeds(name)),
            key=lambda name: (order.index(name) if name in order else len(order), name),
        )
        return [self.standing(name) for name in names]


def number(estimate: Estimate, digits: int, sign: str = "") -> str:
    """A figure with its interval."""
    if not estimate.exists:
        return ""
    return (
        f"{estimate.value:{sign}.{digits}f} ({estimate.low:.{digits}f}..{estimate.high:.{digits}f})"
    )


def words(
    difference: Estimate, digits: int = 3, below: str = "better", above: str = "worse"
) -> str:
    """A difference in words, with its size where it is told apart."""
    if not difference.exists:
        return ""
    verdict = difference.verdict(below, above)
    return verdict if verdict == SAME else f"{verdict} ({difference.value:+.{digits}f})"


def excess(standing: Standing) -> str:
    """Excess objects, in words where they are told apart."""
    if not standing.excess.exists:
        return ""
    verdict = standing.excess.verdict("fewer", "more")
    value = f"{standing.excess.value:+.2f}"
    return value if verdict == SAME else f"{value} {verdict}"


def seam(standing: Standing) -> str:
    """The worst line; with its number where it is told apart."""
    told = standing.seam_chance < SEAM
    return f"{standing.seam:.2f}" + (f" on {standing.line}, told apart" if told else "")


def cells(standing: Standing, against: Iterable[str]) -> list[str]:
    """A row of the table."""
    drawn = standing.evaluations > 0 or standing.seconds > 0
    return [
        standing.name,
        str(len(standing.seeds)),
        number(standing.kid, 3),
        *(words(standing.against[other]) if other in standing.against else "" for other in against),
        excess(standing),
        f"{standing.psnr.value:.1f}" if standing.follows else "",
        f"{standing.lpips.value:.3f}" if standing.follows else "",
        seam(standing),
        f"{standing.spectrum:.1f}",
        f"{standing.evaluations:.0f}" if drawn else "",
        f"{standing.seconds:.1f}" if drawn else "",
    ]


def heads(against: Iterable[str]) -> list[str]:
    """The table's columns."""
    compared = (f"crops against {other}" for other in against)
    return ["row", "seeds", "KID of crops", *compared, *COLUMNS, "evaluations", "s"]


def markdown(standings: list[Standing], plan: Plan) -> str:
    """The table of one scale."""
    against = plan.against[:HEADLINE]
    lines = [heads(against), ["---"] * len(heads(against))]
    lines += [cells(standing, against) for standing in standings]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
