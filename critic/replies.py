"""What models answer, read with repair: JSON, tagged text, comma lists.

A reply is text and stays text: it is searched, cut and cleaned, never evaluated. Functions return
None where nothing usable is in it; they raise for no input.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

LONGEST_REPLY = 40_000
LONGEST_TEXT = 2000
LONGEST_ITEM = 160
MOST_COMPONENTS = 6
MOST_ISSUES = 5
MOST_TAGS = 48

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.S | re.I)
_THOUGHT = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.S | re.I)
_FENCE = re.compile(r"^\s*(?:```|~~~)[\w-]*\s*$", re.M)
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+")
_LABEL = re.compile(r"^\W*(positive|negative)(?:\s+(?:tags|prompt))?\W*[:：]\W*", re.I | re.M)
_OPENINGS = 40


class Tags(NamedTuple):
    """A model's tags."""

    positive: list[str]
    negative: list[str]


class Critique(NamedTuple):
    """A critic's verdict: faults, and the prompt it would use; "" where it gave none."""

    issues: list[str]
    refined: str


def plain(text: str) -> str:
    """A reply without thinking, code fences and control characters."""
    text = text[:LONGEST_REPLY]
    text = _THOUGHT.sub("", _THINKING.sub("", text))
    text = _FENCE.sub("", text)
    return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()


def tidy(text: str, longest: int = LONGEST_ITEM) -> str:
    """One line without bullets, quotes around it or markup; cut at a word."""
    text = _BULLET.sub("", " ".join(text.split())).strip(" \t\"'`*_,;“”")
    # A model's word must not load a file from the host's embeddings folder.
    text = re.sub(r"\bembedding:\s*", "", text, flags=re.I)
    if len(text) > longest:
        text = text[:longest].rsplit(" ", 1)[0]
    return text


def _end_of(text: str, start: int) -> int:
    """Index behind the bracket that closes the one at `start`; the text's length if none does."""
    depth, quote, skip = 0, "", False
    for i in range(start, len(text)):
        c = text[i]
        if skip:
            skip = False
        elif quote:
            skip = c == "\\"
            quote = "" if c == quote else quote
        elif c == '"':
            quote = c
        elif c in "[{":
            depth += 1
        elif c in "]}":
            depth -= 1
            if not depth:
                return i + 1
    return len(text)


def _closed(text: str) -> str:
    """A cut-off document with its open texts and brackets closed."""
    stack, quote, skip = [], False, False
    for c in text:
        if skip:
            skip = False
        elif quote and c == "\\":
            skip = True
        elif c == '"':
            quote = not quote
        elif not quote and c in "[{":
            stack.append("]" if c == "[" else "}")
        elif not quote and c in "]}" and stack:
            stack.pop()
    text = text.rstrip("\\") + ('"' if quote else "")
    return re.sub(r"[,:\s]+$", "", text) + "".join(reversed(stack))


def _parsed(text: str) -> Any:
    """A document read as JSON, or as JSON with the usual faults; None."""
    repaired = re.sub(r",\s*([}\]])", r"\1", text)
    repaired = repaired.translate({0x201C: '"', 0x201D: '"'})
    for candidate in dict.fromkeys((text, repaired, _closed(repaired))):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    try:
        # Single quotes, as Python writes them. Reads constants only.
        return ast.literal_eval(repaired)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def documents(text: str) -> Iterator[Any]:
    """JSON objects and arrays in a reply, repaired where they have to be; in order."""
    text, at = plain(text), 0
    for _ in range(_OPENINGS):
        opening = re.search(r"[{\[]", text[at:])
        if not opening:
            return
        start = at + opening.start()
        end = _end_of(text, start)
        found = _parsed(text[start:end])
        if isinstance(found, (dict, list)):
            yield found
            at = end
        else:
            at = start + 1


def _texts(value: Any, longest: int = LONGEST_ITEM) -> list[str]:
    """Texts of a list, of a text with commas or lines, or of objects that hold one text each."""
    if isinstance(value, str):
        return [tidy(v, longest) for v in re.split(r"[,\n;]", value)]
    found = []
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            item = next((v for v in item.values() if isinstance(v, str)), None)
        if isinstance(item, (str, int, float)) and not isinstance(item, bool):
            found.append(tidy(str(item), longest))
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
    for document in documents(text):
        value = _field(document, "components", "parts", "items")
        value = document if value is None and isinstance(document, list) else value
        if found := _worded(_texts(value), 3, MOST_COMPONENTS):
            return found
    lines = plain(text).splitlines()
    lines = [tidy(line) for line in lines if _BULLET.match(line)]
    listed = _worded(lines, 3, MOST_COMPONENTS)
    return listed if len(listed) > 1 else None


def _worded(texts: list[str], shortest: int, most: int) -> list[str]:
    """`unique`, without the stray letters that small models fill a list with."""
    return unique([t for t in texts if len(t) >= shortest or not t.isascii()], most)


def read_tags(text: str) -> Tags | None:
    """Tags of `{"positive": […], "negative": […]}`, of labelled lines, or of one comma list."""
    for document in documents(text):
        value = _field(document, "positive", "positives", "tags", "positive_tags", "prompt")
        value = document if value is None and isinstance(document, list) else value
        if positive := _worded(_texts(value), 2, MOST_TAGS):
            negative = _texts(_field(document, "negative", "negatives", "negative_tags"))
            return Tags(positive, _worded(negative, 2, MOST_TAGS))
    text = plain(text)
    if "{" in text or "[" in text:
        return None
    parts = {"positive": "", "negative": ""}
    labels = list(_LABEL.finditer(text))
    for i, label in enumerate(labels):
        end = labels[i + 1].start() if i + 1 < len(labels) else len(text)
        parts[label[1].lower()] = text[label.end() : end]
    if not labels:
        # The list is the line with the most commas; what stands around it is talk.
        parts["positive"] = max(text.splitlines() or [""], key=lambda line: line.count(","))
    positive = [t.rstrip(".") for t in _texts(parts["positive"])]
    if len(positive) < 3:
        return None
    negative = [t.rstrip(".") for t in _texts(parts["negative"])]
    return Tags(unique(positive, MOST_TAGS), unique(negative, MOST_TAGS))


def _tagged(text: str, name: str) -> str | None:
    """Text inside the last `<name>…</name>`; to the next tag or the end where it is not closed."""
    pattern = rf"<\s*{name}\s*>(.*?)(?:<\s*/\s*{name}\s*>|<\s*(?:issues|refined)\s*>|\Z)"
    found = re.findall(pattern, text, re.S | re.I)
    return found[-1] if found else None


def read_critique(text: str) -> Critique | None:
    """Faults and refined prompt of the two tags, of escaped tags, or of JSON with these names."""
    text = plain(text)
    for form in (text, html.unescape(text)):
        refined, issues = _tagged(form, "refined"), _tagged(form, "issues")
        if refined is not None or issues is not None:
            return _critique(issues, refined)
    for document in documents(text):
        refined = _field(document, "refined", "refined_prompt", "prompt")
        issues = _field(document, "issues", "problems", "faults")
        if isinstance(refined, str) or issues:
            if isinstance(issues, list):
                issues = "\n".join(_texts(issues, LONGEST_TEXT))
            issues = issues if isinstance(issues, str) else None
            return _critique(issues, refined if isinstance(refined, str) else None)
    return None


def _critique(issues: str | None, refined: str | None) -> Critique | None:
    points = [tidy(point, LONGEST_TEXT // 5) for point in re.split(r"[\n;]", issues or "")]
    refined = tidy(re.sub(r"<[^<>]{0,40}>", " ", refined or ""), LONGEST_TEXT)
    found = Critique(unique(points, MOST_ISSUES), refined)
    return found if found.refined or found.issues else None
