"""Lists that a user writes into a text box: JSON rows and shares, bounded before they are read."""

from __future__ import annotations

import json
from typing import Any

MOST_CHARACTERS = 40_000
MOST_ROWS = 15
MOST_DIGITS = 30
MOST_DEPTH = 8  # of brackets in each other; a list of stages has two
EXAMPLE = 'write a JSON list such as [{"scale": 2}, {"scale": 3}]'


def read_rows(text: str) -> list[dict[str, Any]]:
    """A JSON list of at most MOST_ROWS objects, each with every name once.

    Linear in the length of the text, which is refused above MOST_CHARACTERS.

    Raises:
        ValueError: anything else; the message says what to write.
    """
    rows = _read(text, "stages", EXAMPLE)
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise ValueError(f"stages is no list of objects: {EXAMPLE}")
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{len(rows)} stages: list at most {MOST_ROWS}")
    return rows


def read_fields(text: str) -> dict[str, Any]:
    """A JSON object, bounded as `read_rows` is.

    Raises:
        ValueError: anything else; the message says what to write.
    """
    fix = 'write a JSON object such as {"lfm": 0.125}'
    found = _read(text, "more", fix)
    if not isinstance(found, dict):
        raise ValueError(f"more is no JSON object: {fix}")
    return found


def _read(text: str, name: str, fix: str) -> Any:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"{name} has {len(text)} characters: write at most {MOST_CHARACTERS}, and at most "
            f"{MOST_ROWS} stages"
        )
    if _depth(text) > MOST_DEPTH:  # where json gives up depends on the Python
        raise ValueError(f"{name} is nested too deep: {fix}")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_whole, parse_float=_real)
    except json.JSONDecodeError as e:
        raise ValueError(f"{name} is no JSON ({e.msg}, line {e.lineno}): {fix}") from e


def _depth(text: str) -> int:
    """How many brackets of a JSON text lie in each other."""
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
        else:
            quoted = character == '"'
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"stages says {short(name)} twice in one stage: leave one of them")
        found[name] = value
    return found


def _digits(text: str) -> str:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"stages has a number of {len(text)} characters: write a shorter one")
    return text


def _whole(text: str) -> int:
    return int(_digits(text))


def _real(text: str) -> float:
    return float(_digits(text))


def read_shares(text: str, name: str, most: float) -> list[float]:
    """Numbers from 0 to `most` with commas between them, in brackets or not; at most MOST_ROWS.

    Raises:
        ValueError: anything else; `name` says of which input.
    """
    fix = f"write shares from 0 to {most:g}, one for each stage, such as 0.9, 0.8"
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{name} has {len(text)} characters: {fix}")
    parts = [p.strip() for p in text.replace("[", "").replace("]", "").split(",") if p.strip()]
    if len(parts) > MOST_ROWS:
        raise ValueError(f"{name} has {len(parts)} shares, for at most {MOST_ROWS} stages: {fix}")
    return [_share(part, f"{name} has {short(part)}: {fix}", most) for part in parts]


def _share(part: str, problem: str, most: float) -> float:
    try:
        share = float(part)
    except ValueError:
        raise ValueError(problem) from None
    if not 0 <= share <= most:  # NaN too
        raise ValueError(problem)
    return share


def short(text: str, most: int = 40) -> str:
    """A user's own words as a message may repeat them."""
    return f"'{text[:most]}'" + ("…" if len(text) > most else "")
