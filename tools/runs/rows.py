"""The runs that a table or a grid asks for, one at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client import Prompt
from .settings import Info, SettingError, applied, places

NAME = "name"  # the column that names a row's pictures; it sets nothing
LONGEST = 60  # bytes: a system takes names of 255, and letters of many languages take three each


class TableError(ValueError):
    """A table cannot be read; the message says where."""


@dataclass(frozen=True, eq=False)
class Row:
    """One run. `problem` says why it cannot be queued."""

    number: int  # from 1
    key: str  # the same for the same workflow with the same settings
    name: str  # of its files
    settings: Mapping[str, str]
    prompt: Prompt | None
    problem: str | None = None


def table(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a CSV file by column. Comma, semicolon or tab, whichever its header has most."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            separator = max(",;\t", key=header.count)
            file.seek(0)
            lines = csv.DictReader(file, delimiter=separator)
            names = [name.strip() for name in lines.fieldnames or []]
            if not any(names):
                raise TableError(f"{path} has no header: its first line names the inputs to set")
            if doubled := [name for name, times in Counter(names).items() if times > 1]:
                raise TableError(f"{path} has two columns named {doubled[0]!r}")
            lines.fieldnames = names
            yield from lines
    except OSError as problem:
        raise TableError(f"{path}: {problem.strerror}") from problem
    except (UnicodeDecodeError, csv.Error) as problem:
        raise TableError(f"{path} is no CSV file in UTF-8 ({problem})") from problem


def columns(path: Path) -> list[str]:
    """What a table sets; TableError if it has no line."""
    first = next(table(path), None)
    if first is None:
        raise TableError(f"{path} has a header, but no line below it")
    return [name for name in first if name and name != NAME]


def check(prompt: Prompt, info: Info, keys: Iterable[str]) -> None:
    """SettingError if a column fits nothing, or two fit one input: that is wrong in every row."""
    taken: dict[tuple[str, str], str] = {}
    for key in keys:
        for place in places(prompt, info, key):
            if place in taken:
                raise SettingError(f"{key} and {taken[place]} are the same input")
            taken[place] = key


def rows(
    prompt: Prompt, info: Info, lines: Iterable[Mapping[str, Any]], common: Mapping[str, str]
) -> Iterator[Row]:
    """A run of each line, settings of `common` first. An empty cell leaves the workflow's value."""
    seen: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        cells = {key: cell for key, cell in line.items() if key and cell not in (None, "")}
        settings = {**common, **cells}
        name = settings.pop(NAME, "")
        try:
            if None in line:
                raise SettingError("it has more cells than the header has columns")
            changed = applied(prompt, info, settings)
        except SettingError as problem:
            key = digest([sorted(settings.items()), number])
            yield Row(number, key, "", settings, None, f"{problem}")
            continue
        key = digest(changed)
        seen[key] += 1
        if seen[key] > 1:  # a line that is there twice is drawn twice
            key = f"{key[:-4]}{seen[key]:04d}"
        slug = safe(name) or "_".join(safe(f"{short(k)}={v}") for k, v in settings.items())
        parts = (f"{number:05d}", clipped(slug, LONGEST).strip("._ -"), key[:8])
        yield Row(number, key, "_".join(filter(None, parts)), settings, changed)


def digest(value: Any) -> str:
    """Forty hexadecimal digits that stand for a value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:40]


def short(key: str) -> str:
    """The input's name in NODE.INPUT."""
    return key.rpartition(".")[2]


def safe(text: str) -> str:
    """`text` as part of a file's name on any system."""
    return re.sub(r"[^\w=.+-]+", "-", text).strip("-")


def clipped(text: str, most: int) -> str:
    """The beginning of `text` that takes so many bytes in UTF-8."""
    return text.encode()[:most].decode(errors="ignore")
