"""The tournament as it was written down before it was drawn: `tournament.toml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FILE = Path(__file__).with_name("tournament.toml")
EVERY_PRESET = "presets"
EXPLORING = 7000  # first seed of those that no verdict rests on


class Job(NamedTuple):
    """A picture to draw."""

    name: str
    seed: int
    scale: int


@dataclass(frozen=True)
class Part:
    """Rows that are drawn together.

    Attributes:
        scale: size against the native one.
        seeds: how many.
        methods: names of rows.
    """

    scale: int
    seeds: int
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is drawn and how it is compared; fields as in the file, which says what each is."""

    first_seed: int
    steps: int
    cfg: float
    crops: int
    draws: int
    against: tuple[str, ...]
    parts: tuple[Part, ...]
    shown: dict[int, int]

    @property
    def recipe(self) -> dict[str, Any]:
        """What pictures and figures depend on, besides the weights and the rows."""
        return {"steps": self.steps, "cfg": self.cfg, "crops": self.crops}

    def jobs(self, skipped: Iterable[str] = ()) -> list[Job]:
        """Every picture, seed by seed, parts interleaved by the share of them that is drawn.

        Whatever part of the list was drawn, the rows of a part have the same seeds, but for the
        last one.
        """
        places = sorted(
            ((index + 1) / part.seeds, number, index)
            for number, part in enumerate(self.parts)
            for index in range(part.seeds)
        )
        skipped = set(skipped)
        return [
            Job(name, self.first_seed + index, self.parts[number].scale)
            for _, number, index in places
            for name in self.parts[number].methods
            if name not in skipped
        ]

    def rows_of(self, scale: int) -> list[str]:
        """Rows of all parts of a scale, in the file's order."""
        found = [name for part in self.parts if part.scale == scale for name in part.methods]
        return list(dict.fromkeys(found))

    @property
    def scales(self) -> list[int]:
        """Scales of all parts."""
        return sorted({part.scale for part in self.parts})


def read_plan(rows: Iterable[str], presets: Iterable[str], file: Path = FILE) -> Plan:
    """The plan in a file.

    Args:
        rows: names of all rows.
        presets: those of them that "presets" stands for.

    Raises:
        ValueError: a row that is not known, or twice in one scale.
    """
    said = tomllib.loads(file.read_text(encoding="utf-8"))
    rows, presets = list(rows), list(presets)
    parts = tuple(_part(part, rows, presets) for part in said.pop("part"))
    for scale in {part.scale for part in parts}:
        names = [name for part in parts if part.scale == scale for name in part.methods]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{file.name}, {scale}x: {', '.join(twice)} is in two parts")
    against = tuple(said.pop("against"))
    _check(against, rows, "against")
    shown = {int(scale): count for scale, count in said.pop("shown", {}).items()}
    return Plan(parts=parts, against=against, shown=shown, **said)


def _part(said: dict[str, Any], rows: list[str], presets: list[str]) -> Part:
    names: list[str] = []
    for name in said["methods"]:
        names += presets if name == EVERY_PRESET else [name]
    but = said.get("but", [])
    _check([*names, *but], rows, f"{said['scale']}x")
    kept = dict.fromkeys(name for name in names if name not in but)
    return Part(said["scale"], said["seeds"], tuple(kept))


def _check(names: Iterable[str], rows: list[str], where: str) -> None:
    if unknown := [name for name in names if name not in rows]:
        raise ValueError(
            f"{FILE.name}, {where}: no row is called {', '.join(unknown)}: "
            f"use {', '.join(rows)}, or {EVERY_PRESET}"
        )
