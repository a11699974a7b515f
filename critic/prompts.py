"""Texts of the roles and presets of seed words, from the files in data/."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from .providers import DATA, tomllib
from .secrets import CriticError

MOST_HINTS = 2


@dataclass(frozen=True)
class Role:
    """How a role is asked: its texts, sampling temperature, and longest answer in tokens."""

    system: str
    user: str
    temperature: float
    max_tokens: int

    def filled(self, **values: str) -> str:
        """The user's part. Marks of the data's bounds are taken out of the values."""
        text = self.user
        # Runs shrink to one sign: what is only taken out may leave a mark behind.
        clean = {n: re.sub(r"([<>])\1+", r"\1", v) for n, v in values.items()}
        # In one pass: braces in a value are data.
        return re.sub(r"\{(\w+)\}", lambda m: clean.get(m[1], m[0]), text).strip()


@dataclass(frozen=True)
class Preset:
    """Seed words: to build on, to avoid, to keep (`floor`), and hints by the prompt's style."""

    name: str
    about: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    floor: tuple[str, ...]
    hints: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def seeds(self, prompt: str) -> list[str]:
        """Words for the models to build on, with up to two hints that fit the prompt."""
        fitting = [
            tag
            for pattern, tags in self.hints
            if re.search(rf"\b(?:{pattern})\b", prompt, re.I)
            for tag in tags[:1]
        ]
        return [*self.positive, *fitting[:MOST_HINTS], *self.floor]


@functools.cache
def roles() -> dict[str, Role]:
    """Every role by name."""
    tables = tomllib.loads((DATA / "roles.toml").read_text(encoding="utf-8"))
    return {
        name: Role(
            table.get("system", "").strip(),
            table["user"],
            table.get("temperature", 0.2),
            table.get("max_tokens", 256),
        )
        for name, table in tables.items()
    }


@functools.cache
def presets() -> dict[str, Preset]:
    """Every preset by name; a new file in data/presets is a new preset."""
    found = {}
    for path in sorted((DATA / "presets").glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        hints = tuple((h["pattern"], tuple(h["tags"])) for h in table.get("hints", []))
        lists = {n: tuple(table[n]) for n in ("positive", "negative", "floor")}
        found[path.stem] = Preset(path.stem, table["about"], **lists, hints=hints)
    return found


def preset(name: str) -> Preset:
    """The preset of that name; CriticError with the known ones."""
    if name not in presets():
        known = ", ".join(presets())
        raise CriticError(f"no preset is called {name[:40]!r}: choose one of {known}")
    return presets()[name]
