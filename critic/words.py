"""A reply's final values: decoded, and then words and nothing else.

What the host, or a pack beside this one, would take for an order is removed from them: weights,
embeddings, LoRAs, wildcards, schedules, tokens of text encoders, and characters that nobody sees.
"""

from __future__ import annotations

import html
import re
import unicodedata

from .thinking import without_thinking

ROUNDS = 4  # how often a text may be escaped
MOST_MARKS = 3  # accents on one letter
_LONG_CODE = re.compile(r"&#(?:0*x[0-9a-f]{7,}|x0*[0-9a-f]{7,}|[0-9]{8,});?", re.I)
_ESCAPE = re.compile(
    r"(?<!\\)\\+(?:u\{?([0-9a-fA-F]{4,6})\}?|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))"
)
TAG = re.compile(r"</?[A-Za-z|!][^<>]{0,300}>|\[/?[A-Z_]{3,30}\]")
_WEIGHT = re.compile(r"\s?:\s?[-+.\deE]{1,12}\s?(?=[)\]}>|])")
_EMBEDDING = re.compile(r"\bembedding\s?:\s?", re.I)
# "[key]" stands where a key was.
_SYNTAX = re.compile(r"[(){}<>|\\:`*^~]|\[(?!key\])|(?<!\[key)\]|\+{2,}|-{2,}|\$\$|__+")
_CAPITALS = re.compile(r"\b(?:BREAK|AND|ADDCOMM|ADDBASE|ADDCOL|ADDROW|AND_PERP|AND_SALT)\b")
# Seen by nobody though Python prints them: fillers, selectors, joiners, blanks.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc\ufffd"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def unescaped(text: str) -> str:
    """`text` with its HTML entities and backslash escapes of characters read, once."""
    if "&" in text:
        text = html.unescape(_LONG_CODE.sub("", text))
    if "\\" in text:
        text = _ESCAPE.sub(_character, text)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _character(found: re.Match) -> str:
    octal = found[4]
    code = int(octal, 8) if octal else int(found[1] or found[2] or found[3], 16)
    return chr(code) if code < 0x110000 else ""


def seen(text: str) -> str:
    """`text` without controls, lone surrogates, direction marks and what else nobody sees."""
    kept, marks = [], 0
    for c in _INVISIBLE.sub("", text):
        if c < "\u0300":  # no accents below
            marks = 0
        else:
            # A long row of them takes time squared to be normalised.
            marks = marks + 1 if unicodedata.category(c)[0] == "M" else 0
            if marks > MOST_MARKS:
                continue
        kept.append(c if c.isprintable() else " " if c.isspace() else "")
    return "".join(kept)


def decoded(text: str) -> str:
    """`text` with every escape of it undone, in the usual form of its characters (NFKC)."""
    for _ in range(ROUNDS):
        before = text
        text = unicodedata.normalize("NFKC", seen(unescaped(text)))
        if text == before:
            break
    return seen(text)


def words(text: str) -> str:
    """One line of words: decoded, without thinking, tags and any syntax of prompts."""
    text = " ".join(decoded(text).split())
    text = TAG.sub(" ", without_thinking(text))
    text = _EMBEDDING.sub(" ", _WEIGHT.sub(" ", text))
    text = _SYNTAX.sub(" ", text)
    text = _CAPITALS.sub(lambda found: found[0].lower(), text)
    text = re.sub(r"_{2,}", " ", text)
    return re.sub(r" ([,.;!?])", r"\1", " ".join(text.split()))
