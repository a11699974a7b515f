"""Errors that say the fix, and the removal of keys and addresses from what others wrote."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

SHARED = 8  # a run of this many characters of a key is taken for a leak of it
LONGEST = 300
_ADDRESS = re.compile(r"\b(?:https?|wss?)://\S+", re.I)
CREDENTIAL = re.compile(r"\b(?:sk|pk|rk|gsk|tgp|xai|Bearer|Basic)[-_ ][\w.~+/=*-]{6,}")


class CriticError(ValueError):
    """A failure with what to do about it. Its text holds neither a key nor an address."""


def without_key(text: str, key: str) -> str:
    """`text` without `key` and without any run of 8 or more of its characters.

    Keys shorter than 8 characters, as local servers accept, are no secrets and stay.
    """
    if len(key) < SHARED:
        return text
    for form in {key, quote(key, safe="")}:
        text = text.replace(form, "[key]")
    if any(key[i : i + SHARED] in text for i in range(len(key) - SHARED + 1)):
        # Longest first: the rest of a longer run must not be left.
        for length in range(len(key), SHARED - 1, -1):
            for i in range(len(key) - length + 1):
                text = text.replace(key[i : i + length], "[key]")
    return text


def clean_message(text: str, key: str = "", base_url: str = "") -> str:
    """A server's message as one short line without keys, addresses or control characters."""
    text = CREDENTIAL.sub("[key]", _ADDRESS.sub("[address]", without_key(text, key)))
    host = urlsplit(base_url).hostname
    if host and host not in ("localhost", "127.0.0.1"):
        text = re.sub(re.escape(host), "[address]", text, flags=re.I)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
