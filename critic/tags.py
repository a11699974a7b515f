"""Comma tags: split, sorted into groups with the subject first, joined without repeats."""

from __future__ import annotations

import functools
import re
from collections import Counter

from .providers import DATA, tomllib

QUALITY = "quality"
ORDER = ("style", "composition", "lighting", "colour", "detail", "other", QUALITY)
MOST_STYLE = 2


@functools.cache
def _buckets() -> dict[str, frozenset[str]]:
    tables = tomllib.loads((DATA / "buckets.toml").read_text(encoding="utf-8"))
    return {name: frozenset(words) for name, words in tables.items()}


def split(text: str) -> list[str]:
    """Tags of a prompt: parted at commas and line breaks, but not inside ( ) or [ ]."""
    parts, depth, current = [], 0, ""
    for c in text:
        depth = max(0, depth + (c in "([") - (c in ")]"))
        if c == "\n" or (c == "," and not depth):
            parts.append(current)
            current, depth = "", 0
        else:
            current += c
    return [tag for part in [*parts, current] if (tag := part.strip(" \t\r,;"))]


def join(tags: list[str]) -> str:
    """One comma list."""
    return ", ".join(tags)


def identity(tag: str) -> str:
    """What makes two tags the same: their words, without case, weight and brackets."""
    text = re.sub(r":-?[\d.]+(?=\)|$)", "", tag.casefold())
    return " ".join(re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text)) or tag.casefold()


def unique(tags: list[str]) -> list[str]:
    """Each tag once, the first form of it."""
    seen: dict[str, str] = {}
    for tag in tags:
        seen.setdefault(identity(tag), tag)
    return list(seen.values())


def bucket(tag: str) -> str:
    """The group of a tag: that of its last whole word that belongs to one."""
    words = identity(tag).split()
    if " ".join(words) == "highly detailed" or words == ["high", "detail"]:
        return QUALITY
    for word in reversed(words):
        for name, known in _buckets().items():
            if word in known:
                return name
    return "other"


def ordered(subject: str, tags: list[str], most_style: int | None = MOST_STYLE) -> list[str]:
    """`subject`, then the tags group by group, none twice, `most_style` of style at most."""
    groups: dict[str, list[str]] = {name: [] for name in ORDER}
    for tag in unique([subject, *tags])[1:]:
        groups[bucket(tag)].append(tag)
    groups["style"] = groups["style"][:most_style]
    return [subject, *(tag for name in ORDER for tag in groups[name])]


def holds(tags: list[str], prompt: str) -> bool:
    """Does a tag say what the prompt says, word for word?"""
    wanted = f" {identity(prompt)} "
    return any(wanted in f" {identity(tag)} " for tag in tags)


def with_subject(prompt: str, tags: list[str]) -> list[str]:
    """The tags in order, led by the user's own prompt where no tag holds it."""
    if not holds(tags, prompt):
        return ordered(prompt.strip().rstrip("."), tags)
    subject = next(tag for tag in tags if holds([tag], prompt))
    return ordered(subject, [tag for tag in tags if tag != subject])


def vote(lists: list[list[str]], most: int = 26) -> list[str]:
    """Several lists joined without a model: what more of them hold first, then by place."""
    counts = Counter(identity(tag) for tags in lists for tag in unique(tags))
    places: dict[str, tuple[int, str]] = {}
    for tags in lists:
        for place, tag in enumerate(unique(tags)):
            known = places.get(identity(tag))
            if known is None or place < known[0]:
                places[identity(tag)] = (place, tag)
    ranked = sorted(places, key=lambda name: (-counts[name], places[name][0]))
    return [places[name][1] for name in ranked][:most]
