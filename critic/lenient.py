"""Documents that are nearly JSON: single or curly quotes, bare names, commas too many, cut off.

One pass over the text, at most 32 deep; text only, never evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

DEEPEST = 32
MOST_TRIES = 16  # of the strict reader, which counts lines from the start for each failure
_STRICT = json.JSONDecoder(strict=False)
_OPENING = re.compile(r"[{\[]")
_SPACE = re.compile(r"\s*")
_COMMAS = re.compile(r"[\s,]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_NUMBER = re.compile(r"[-+]?\d{1,20}(?:\.\d{1,20})?(?=[\s,:\]}]|\Z)")
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’"}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": " ", "f": " "}
_CODE = re.compile(r"u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})")


class _Wrong(Exception):
    """No document: `at` is where it ends to be one."""

    def __init__(self, at: int):
        self.at = at


def documents(text: str) -> Iterator[Any]:
    """JSON objects and arrays in a text, repaired where they have to be; in order."""
    at, tries = 0, 0
    while opening := _OPENING.search(text, at):
        start = opening.start()
        found = None
        if tries < MOST_TRIES:
            tries += 1
            try:
                found, at = _STRICT.raw_decode(text, start)
            except (ValueError, RecursionError):
                found = None
        if found is None:
            try:
                found, at = _value(text, start, 0)
            except _Wrong as wrong:
                at = max(wrong.at, start + 1)
                continue
        yield found


def _skip(pattern: re.Pattern, text: str, at: int) -> int:
    return pattern.match(text, at).end()


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The value at `at`, and the index behind it."""
    c = text[at : at + 1]
    if c in ("[", "{") and depth < DEEPEST:
        return (_array if c == "[" else _object)(text, at + 1, depth + 1)
    if c in _QUOTES:
        return _string(text, at)
    if number := _NUMBER.match(text, at):
        return float(number[0]), number.end()
    if (word := _WORD.match(text, at)) and word[0].lower() in _CONSTANTS:
        return _CONSTANTS[word[0].lower()], word.end()
    raise _Wrong(at)


def _array(text: str, at: int, depth: int) -> tuple[list, int]:
    found = []
    while (at := _skip(_COMMAS, text, at)) < len(text):
        if text[at] == "]":
            return found, at + 1
        if text[at] == "}":  # cut off inside, and closed outside
            return found, at
        value, at = _value(text, at, depth)
        found.append(value)
    return found, at


def _object(text: str, at: int, depth: int) -> tuple[dict, int]:
    found = {}
    while (at := _skip(_COMMAS, text, at)) < len(text):
        if text[at] == "}":
            return found, at + 1
        if text[at] == "]":
            return found, at
        if word := _WORD.match(text, at):
            name, at = word[0], word.end()
        elif text[at] in _QUOTES:
            name, at = _string(text, at)
        else:
            raise _Wrong(at)
        at = _skip(_SPACE, text, at)
        if at == len(text):
            break
        if text[at] != ":":
            raise _Wrong(at)
        at = _skip(_SPACE, text, at + 1)
        if at == len(text):
            break
        found[name], at = _value(text, at, depth)
    return found, at


def _string(text: str, at: int) -> tuple[str, int]:
    """A quoted text. A quote closes it where a document goes on behind; others are part of it."""
    close = _QUOTES[text[at]]
    stop = re.compile(rf"[{close}\\]")
    parts, start = [], at + 1
    while found := stop.search(text, start):
        parts.append(text[start : found.start()])
        start = found.end()
        if found[0] == "\\":
            if code := _CODE.match(text, start):
                parts.append(chr(int(code[1] or code[2], 16)))
                start = code.end()
            else:
                parts.append(_ESCAPED.get(text[start : start + 1], text[start : start + 1]))
                start += 1
            continue
        behind = _skip(_SPACE, text, start)
        following = text[behind : behind + 1]
        apart = behind > start and following in _QUOTES
        if not following or following in ",:]}" or apart:
            return _joined(parts), start
        parts.append(close)
    return _joined([*parts, text[start:]]), len(text)


def _joined(parts: list[str]) -> str:
    # Two escapes may be halves of one character.
    text = "".join(parts)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
