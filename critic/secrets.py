"""Errors that say the fix, and the removal of keys and addresses from what others wrote."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from .words import ROUNDS, TAG, decoded, seen, unescaped

SHARED = 8  # a run of this many characters of a key is taken for a leak of it
APART = 12  # and of this many, where there is space between them
LONGEST = 300
_ADDRESS = re.compile(r"\b(?:https?|wss?)://\S+", re.I)
# Codes that nothing of ours reads, but a person might: quoted-printable, U+0041, 0x41, %u0041.
_CODE = re.compile(r"(?:=|\b0x|%u00|\bu\+00)([2-7][0-9a-f])[ ,;]?", re.I)
# Letters of other scripts that look like these.
_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u043a\u043c\u0442\u043d\u0432\u0456\u0455\u0458"
    "\u04bb\u0501\u051b\u051d\u03bf\u03b1\u03bd\u03c1\u03ba\u03c4\u03c7\u03b9\u03b5\u0131\u0251",
    "aeopcxykmthbisjhdqwoavpktxieia",
)
CREDENTIAL = re.compile(r"\b(?:sk|pk|rk|gsk|tgp|xai|Bearer|Basic)[-_ ][\w.~+/=*-]{6,}")


class CriticError(ValueError):
    """A failure with what to do about it. Its text holds neither a key nor an address."""


def without_key(text: str, key: str) -> str:
    """`text` without `key` and without any run of 8 or more of its letters and digits.

    Whatever their case and width, and what is between them; also backwards, as base64, base32 and
    hexadecimal. Keys shorter than 8 characters, as local servers accept, are no secrets and stay.
    """
    if len(key) < SHARED:
        return text
    for form in {key, quote(key, safe="")}:
        text = text.replace(form, "[key]")
    letters, places = _letters(text)
    spans = sorted(_runs(letters, places, text, key))
    if not spans:
        return text
    parts, at = [], 0
    for start, end in spans:
        if start >= at:
            parts += [text[at:start], "[key]"]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _letters(text: str) -> tuple[str, list[int]]:
    """Letters and digits of a text in their plain form, and where each stands in it."""
    letters: list[str] = []
    places: list[int] = []
    for place, c in enumerate(text):
        # The longest decompositions are whole words.
        for letter in c if c.isascii() else unicodedata.normalize("NFKD", c)[:4]:
            if letter.isalnum():
                letters.append(letter.lower()[0].translate(_ALIKE))
                places.append(place)
    return "".join(letters), places


def _forms(key: str) -> Iterator[tuple[str, int]]:
    """What a key may be written as, and from how many characters on that is a leak."""
    raw = key.encode()
    yield key, SHARED
    yield key[::-1], SHARED
    yield raw.hex(), 2 * SHARED
    # The same bytes look different behind other bytes; those at the ends mix with them.
    for encode, bits, least, offsets in (
        (base64.b64encode, 6, 10, range(3)),
        (base64.b32encode, 5, 12, range(5)),
    ):
        for offset in offsets:
            form = encode(bytes(offset) + raw).decode()
            yield form[-(-8 * offset // bits) : 8 * (offset + len(raw)) // bits], least


def _runs(letters: str, places: list[int], text: str, key: str) -> Iterator[tuple[int, int]]:
    """Spans of the text that hold a run of a form of the key."""
    grams: dict[int, set[str]] = {}
    apart: set[str] = set()
    for form, least in _forms(key):
        plain = _letters(form)[0]
        grams.setdefault(least, set()).update(_grams(plain, least))
        apart.update(_grams(plain, max(least, APART)))
    for least, known in grams.items():
        for i in range(len(letters) - least + 1):
            if letters[i : i + least] in known:
                span = places[i], places[i + least - 1] + 1
                # Words of the text may add up to a few letters of a key by chance.
                spaced = any(c.isspace() for c in text[slice(*span)])
                longest = letters[i : i + max(least, APART)]
                if not spaced or longest in apart:
                    yield span if not spaced else (span[0], places[i + len(longest) - 1] + 1)


def _grams(text: str, length: int) -> Iterator[str]:
    return (text[i : i + length] for i in range(len(text) - length + 1))


def revealed(text: str, key: str) -> str:
    """`text` without the key, however often it is escaped; decoded where it held it so."""
    kept = form = text
    for _ in range(ROUNDS + 1):
        cut = without_key(form, key)
        if cut == form:
            read = _CODE.sub(lambda found: chr(int(found[1], 16)), form)
            cut = without_key(read, key)
            cut = form if cut == read else cut
        if cut != form:
            kept = form = cut
        further = unquote(unescaped(form), errors="ignore")
        if further == form:
            break
        form = further
    return kept


def scrubbed(value: Any, key: str) -> Any:
    """A value of texts, lists and tuples of them, without the key in any of them or across."""
    if isinstance(value, str):
        return revealed(value, key)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        # Joined, so that a key in pieces is seen as one.
        lines = "\n".join(" ".join(item.split()) for item in value)
        return [line for line in revealed(lines, key).split("\n") if line]
    if isinstance(value, tuple):
        parts = [scrubbed(part, key) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def clean_message(text: str, key: str = "", base_url: str = "") -> str:
    """A server's message as one short line without keys, addresses or control characters."""
    text = revealed(TAG.sub(" ", decoded(text[: 20 * LONGEST])), key)
    text = CREDENTIAL.sub("[key]", _ADDRESS.sub("[address]", text))
    host = urlsplit(base_url).hostname
    if host and host not in ("localhost", "127.0.0.1"):
        text = re.sub(re.escape(host), "[address]", text, flags=re.I)
    text = " ".join(seen(text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
