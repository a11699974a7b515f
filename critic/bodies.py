"""The body of an answer: read to a bound, without compression, and what it says."""

from __future__ import annotations

import zlib
from typing import Any

import requests

from .line import Line
from .secrets import CriticError

MOST_BYTES = 1 << 20
MOST_WIRE = 2 * MOST_BYTES  # with chunk sizes and trailers
MOST_CODINGS = 2


def body_of(response: requests.Response, line: Line) -> bytes:
    """The whole body, in the pieces that arrive, and decoded."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 200 and kind.lower().startswith("text/event-stream"):
        raise CriticError(
            "the server sends its answer as a stream of events, which nobody asked for: turn "
            "streaming off there, or choose another provider"
        )
    pieces, size = [], 0
    while piece := response.raw.read1(65536):
        size += len(piece)
        if size > MOST_BYTES:
            raise _too_long()
        line.take(0)
        pieces.append(piece)
    return _decoded(b"".join(pieces), response.headers.get("Content-Encoding", ""))


def _too_long() -> CriticError:
    return CriticError(f"the server sent more than {MOST_BYTES >> 20} MB: given up")


def _decoded(raw: bytes, codings: str) -> bytes:
    """A body without its compression, which some servers use unasked."""
    named = [part.strip() for part in codings.lower().split(",")]
    named = [coding for coding in named if coding not in ("", "identity")]
    if not named and raw[:2] == b"\x1f\x8b":
        named = ["gzip"]
    for coding in reversed(named):
        if coding not in ("gzip", "x-gzip", "deflate") or len(named) > MOST_CODINGS:
            raise CriticError(
                "the server compressed its answer in a way that was not asked for: turn "
                "compression off there, or in the proxy before it"
            )
        # 47: zlib and gzip by their heads. Some servers send deflate without one.
        bare = coding == "deflate" and (raw[:1] or b"\0")[0] & 15 != 8
        stream = zlib.decompressobj(-15 if bare else 47)
        try:
            raw = stream.decompress(raw, MOST_BYTES + 1)
        except zlib.error:
            raise CriticError(
                f"the server's answer says that it is {coding}, and is not: turn compression off "
                "there, or in the proxy before it"
            ) from None
        if len(raw) > MOST_BYTES:
            raise _too_long()
        if not stream.eof:
            raise OSError("cut off")
    return raw


def content_of(document: dict[str, Any]) -> tuple[str, int, int]:
    """Text and token counts of an answer; CriticError where it is empty or of wrong types."""
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        # Parts of thinking have another type.
        said = ("text", "output_text", None)
        parts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") in said]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise CriticError("the server's answer holds no text")
    if not content.strip():
        cut = isinstance(first, dict) and first.get("finish_reason") == "length"
        hint = ": it used all tokens for thinking; raise thinking_tokens in critic.toml"
        raise CriticError("the model's answer is empty" + (hint if cut else ""))
    usage = document.get("usage")
    counts = [
        value if type(value := usage.get(name)) is int and 0 <= value < 2**40 else 0
        for name in ("prompt_tokens", "completion_tokens")
    ] if isinstance(usage, dict) else [0, 0]  # fmt: skip
    return content, counts[0], counts[1]
