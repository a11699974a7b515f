"""How long a text is for a CLIP's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

CLIP_WINDOW = 77  # of CLIP-L and CLIP-G, where the tokenizer sets no bound of its own
ENDS = 2  # start and end mark
# More words than any encoder with a fixed window takes in one piece.
PROBE = "a " * 600


class TokenCounter(NamedTuple):
    """`count(text)`: tokens with start and end mark; `limit`: what one window holds."""

    count: Callable[[str], int]
    limit: int


def token_counter(clip: Any) -> TokenCounter:
    """Count as the wired CLIP does, weights, brackets and embeddings included.

    Of several encoders (SDXL has two) the one that needs most tokens counts, and the shortest
    window. A tokenizer that splits no text into windows, such as T5's, sets no limit; 77 then.
    """

    def tokens(text: str) -> list[list[list[tuple]]]:
        """Windows of (token, weight, word number) for each encoder."""
        return list(clip.tokenize(text, return_word_ids=True).values())

    def count(text: str) -> int:
        return max(
            sum(1 for window in windows for token in window if token[2]) + ENDS
            for windows in tokens(text)
        )

    windows = [found for found in tokens(PROBE) if len(found) > 1]
    return TokenCounter(count, min((len(found[0]) for found in windows), default=CLIP_WINDOW))
