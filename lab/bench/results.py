"""The tournament's figures as files: one a picture while it is drawn, then one for the repository.

`lab/results/tournament.npz` holds the figures of all pictures, `tournament.json` what they were
drawn with, and `pictures/` those that the report shows. They are of one set of weights and one
recipe, and a row that changed is dropped: nothing that can't be compared stands side by side.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import ROOT, write_json
from .figures import FIELDS, Figures

STORED = ROOT / "lab" / "results"
REFERENCE = "reference"  # the true renders that every row is measured against
Key = tuple[int, str]  # scale, row


@dataclass
class Rows:
    """Figures of pictures.

    Attributes:
        made: weights, recipe, machine, and what each row is made by.
        pictures: by scale and row, by seed.
    """

    made: dict[str, Any] = field(default_factory=dict)
    pictures: dict[Key, dict[int, Figures]] = field(default_factory=dict)

    def seeds(self, *keys: Key) -> list[int]:
        """Seeds that all of these rows have, in order."""
        found = [set(self.pictures.get(key, ())) for key in keys]
        return sorted(set.intersection(*found)) if found else []

    def stacked(self, key: Key, name: str, seeds: Iterable[int]) -> np.ndarray:
        """One figure of some seeds' pictures, (N, ...)."""
        return np.stack([self.pictures[key][seed][name] for seed in seeds])

    @property
    def scales(self) -> list[int]:
        """Scales that something was drawn at."""
        return sorted({scale for scale, _ in self.pictures})

    def names(self, scale: int) -> list[str]:
        """Rows of a scale, without the reference."""
        return [name for s, name in self.pictures if s == scale and name != REFERENCE]


def save_picture(path: Path, figures: Figures) -> None:
    """Write one picture's figures atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(file, **figures)
    partial.replace(path)


def read_folder(folder: Path, made: Mapping[str, Any]) -> Rows:
    """Rows of the files that `save_picture` wrote as folder/SCALEx/ROW/SEED.npz."""
    rows = Rows(dict(made))
    for path in sorted(folder.glob("*x/*/*.npz")):
        key = int(path.parts[-3][:-1]), path.parts[-2]
        with np.load(path) as found:
            rows.pictures.setdefault(key, {})[int(path.stem)] = dict(found)
    return rows


def save(rows: Rows, folder: Path = STORED) -> None:
    """Write the figures for the repository."""
    arrays = {}
    for (scale, name), pictures in sorted(rows.pictures.items()):
        place, seeds = f"{scale}/{name}", sorted(pictures)
        arrays[f"{place}/seeds"] = np.asarray(seeds)
        for figure in FIELDS:
            arrays[f"{place}/{figure}"] = rows.stacked((scale, name), figure, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "tournament.part"
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(folder / "tournament.npz")
    write_json(rows.made, folder / "tournament.json")


def load(folder: Path = STORED) -> Rows:
    """The figures in the repository.

    Raises:
        FileNotFoundError: there are none yet.
    """
    file = folder / "tournament.npz"
    if not file.exists():
        raise FileNotFoundError(
            f"no results in {folder}: draw some by `python -m lab.bench.tournament draw`"
        )
    rows = Rows(json.loads((folder / "tournament.json").read_text(encoding="utf-8")))
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    for place in [name.removesuffix("/seeds") for name in arrays if name.endswith("/seeds")]:
        scale, name = place.split("/", 1)
        columns = {figure: arrays[f"{place}/{figure}"] for figure in FIELDS}
        rows.pictures[int(scale), name] = {
            int(seed): {figure: column[index] for figure, column in columns.items()}
            for index, seed in enumerate(arrays[f"{place}/seeds"])
        }
    return rows


def load_if_there(folder: Path = STORED) -> Rows:
    """The figures in the repository; no rows where nothing is stored."""
    return load(folder) if (folder / "tournament.npz").exists() else Rows()


def agree(made: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether pictures may be compared: the same weights and recipe."""
    return all(made.get(name) == other.get(name) for name in ("weights", "recipe"))


def merged(stored: Rows, drawn: Rows) -> Rows:
    """Stored rows with those drawn since, on this machine or another; a changed row anew.

    Raises:
        ValueError: they are of other weights or settings.
    """
    if not agree(stored.made, drawn.made):
        raise ValueError(
            f"the stored results are of weights {stored.made.get('weights')} and "
            f"{stored.made.get('recipe')}, these of {drawn.made.get('weights')} and "
            f"{drawn.made.get('recipe')}: say --replace to store these instead"
        )
    rows = Rows(stored.made | drawn.made)
    before, now = stored.made.get("rows", {}), drawn.made.get("rows", {})
    rows.made["rows"] = before | now
    for key, pictures in stored.pictures.items():
        if key[1] not in now or before.get(key[1]) == now[key[1]]:
            rows.pictures[key] = dict(pictures)
    for key, pictures in drawn.pictures.items():
        rows.pictures.setdefault(key, {}).update(pictures)
    return rows


def clear(folder: Path = STORED) -> None:
    """Take the stored results away."""
    for name in ("tournament.npz", "tournament.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "pictures", ignore_errors=True)
