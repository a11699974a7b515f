"""What models answer, read with repair: JSON, tagged text, comma lists.

A reply is text and stays text: it is searched, cut and cleaned, never evaluated. Functions return
None where nothing usable is in it; they raise for no input, and take time linear in its length.
What they return is decoded first and then cleaned (`words`), so no escape hides anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .lenient import documents as _documents
from .thinking import without_thinking
from .words import seen, words

LONGEST_REPLY = 40_000
LONGEST_TEXT = 2000
LONGEST_ITEM = 160
MOST_COMPONENTS = 6
MOST_ISSUES = 5
MOST_TAGS = 48
MOST_READ = 200  # items of one list that are looked at

_FENCE = re.compile(r"(?:```|~~~)[\w-]*\Z")
_BULLET = re.compile(r"\A\s{0,8}(?:[-*•–]|\d{1,2}[.)])\s+")
_LABEL = re.compile(r"\W{0,8}(positive|negative)(?:\s(?:tags|prompt))?\W{0,4}[:：]\W{0,8}", re.I)
_PART = re.compile(r"<\s{0,4}(/?)\s{0,4}(issues|refined)\s{0,4}>", re.I)


class Tags(NamedTuple):
    """A model's tags."""

    positive: list[str]
    negative: list[str]


class Critique(NamedTuple):
    """A critic's verdict: faults, and the prompt it would use; "" where it gave none."""

    issues: list[str]
    refined: str


def plain(text: str) -> str:
    """A reply without thinking, code fences and control characters; at most 40 000 characters."""
    text = without_thinking(text)[:LONGEST_REPLY]
    lines = [seen(line) for line in text.split("\n")]
    return "\n".join(line for line in lines if not _FENCE.match(line.strip())).strip()


def tidy(text: str, longest: int = LONGEST_ITEM) -> str:
    """One line of words without a bullet or quotes around it; cut at a word."""
    text = words(_BULLET.sub("", text, count=1)).strip(" \"'_,;“”")
    if len(text) > longest:
        text = text[:longest].rsplit(" ", 1)[0]
    return text


def says(text: str) -> bool:
    """Is there a word in it, or a sign of a script? Not the mark of a key, and not "..."."""
    return any(c.isalnum() or c > "\u2fff" for c in text.replace("[key]", ""))


def documents(text: str) -> Iterator[Any]:
    """JSON objects and arrays in a reply, repaired where they have to be; in order."""
    return _documents(plain(text))


def _texts(value: Any, longest: int = LONGEST_ITEM) -> list[str]:
    """Texts of a list, of a text with commas or lines, or of objects that hold one text each."""
    items = re.split(r"[,\n;]", value) if isinstance(value, str) else value
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            item = next((v for v in item.values() if isinstance(v, str)), None)
        # Numbers are no words; one of thousands of digits cannot even be written.
        if isinstance(item, str) and (text := tidy(item, longest)):
            found.append(text)
            if len(found) == MOST_READ:
                break
    return found


def unique(texts: list[str], most: int) -> list[str]:
    """The texts that are not empty, once each whatever their case, in order."""
    seen: dict[str, str] = {}
    for text in texts:
        if text:
            seen.setdefault(text.casefold(), text)
    return list(seen.values())[:most]


def _field(document: Any, *names: str) -> Any:
    if not isinstance(document, dict):
        return None
    lower = {str(name).strip().lower(): value for name, value in document.items()}
    return next((lower[name] for name in names if name in lower), None)


def read_components(text: str) -> list[str] | None:
    """Up to 6 components: of `{"components": […]}`, of a bare array, or of a bulleted list."""
    text = plain(text)
    for document in _documents(text):
        value = _field(document, "components", "parts", "items")
        value = document if value is None and isinstance(document, list) else value
        if found := _worded(_texts(value), 3, MOST_COMPONENTS):
            return found
    lines = [line for line in text.split("\n") if _BULLET.match(line)][:MOST_READ]
    listed = _worded([tidy(line) for line in lines], 3, MOST_COMPONENTS)
    return listed if len(listed) > 1 else None


def _worded(texts: list[str], shortest: int, most: int) -> list[str]:
    """`unique`, without the stray letters that small models fill a list with."""
    return unique([t for t in texts if len(t) >= shortest or not t.isascii()], most)


def read_tags(text: str) -> Tags | None:
    """Tags of `{"positive": […], "negative": […]}`, of labelled lines, or of one comma list."""
    text = plain(text)
    for document in _documents(text):
        value = _field(document, "positive", "positives", "tags", "positive_tags", "prompt")
        value = document if value is None and isinstance(document, list) else value
        if positive := _worded(_texts(value), 2, MOST_TAGS):
            negative = _texts(_field(document, "negative", "negatives", "negative_tags"))
            return Tags(positive, _worded(negative, 2, MOST_TAGS))
    if "{" in text or "[" in text:
        return None
    parts: dict[str, list[str]] = {}
    said: list[str] = []
    lines = text.split("\n")
    for line in lines:
        if label := _LABEL.match(line):
            said = parts[label[1].lower()] = [line[label.end() :]]
        else:
            said.append(line)
    if not parts:
        # The list is the line with the most commas; what stands around it is talk.
        parts["positive"] = [max(lines, key=lambda line: line.count(","))]
    positive, negative = (
        [tag.rstrip(".") for tag in _texts("\n".join(parts.get(name, [])))]
        for name in ("positive", "negative")
    )
    if len(positive) < 3:
        return None
    return Tags(unique(positive, MOST_TAGS), unique(negative, MOST_TAGS))


def _tagged(text: str) -> dict[str, str]:
    """What stands behind `<issues>` and `<refined>`, up to the next mark; the last not empty."""
    found: dict[str, str] = {}
    marks = list(_PART.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        name, said = mark[2].lower(), text[mark.end() : end]
        if not mark[1] and (said.strip() or name not in found):
            found[name] = said
    return found


def read_critique(text: str) -> Critique | None:
    """Faults and refined prompt of the two tags, escaped or not, or of JSON with these names."""
    text = plain(text)
    if found := _tagged(text):
        return _critique(found.get("issues"), found.get("refined"))
    for document in _documents(text):
        refined = _field(document, "refined", "refined_prompt", "prompt")
        issues = _field(document, "issues", "problems", "faults")
        if isinstance(refined, str) or issues:
            if isinstance(issues, list):
                issues = "\n".join(_texts(issues, LONGEST_TEXT))
            issues = issues if isinstance(issues, str) else None
            return _critique(issues, refined if isinstance(refined, str) else None)
    return None


def _critique(issues: str | None, refined: str | None) -> Critique | None:
    points = [point for point in re.split(r"[\n;]", issues or "") if point.strip()][:MOST_READ]
    points = [tidy(point, LONGEST_TEXT // 5) for point in points]
    refined = tidy(refined or "", LONGEST_TEXT)
    found = Critique(unique(points, MOST_ISSUES), refined if says(refined) else "")
    return found if found.refined or found.issues else None
