"""How long a text is for a CLIP's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

CLIP_WINDOW = 77  # of CLIP-L and CLIP-G, where the tokenizer sets no bound of its own
ENDS = 2  # start and end mark
UNBOUNDED = 4096  # tokenizers that split no text into windows say a length beyond this


class TokenCounter(NamedTuple):
    """`count(text)`: tokens with start and end mark; `limit`: what one window holds."""

    count: Callable[[str], int]
    limit: int


def token_counter(clip: Any) -> TokenCounter:
    """Count as the wired CLIP does, weights, brackets and embeddings included.

    Of several encoders (SDXL has two) the one that needs most tokens counts, and the shortest
    window. A tokenizer without windows, such as T5's, sets no limit; alone it leaves 77.
    """

    def count(text: str) -> int:
        encoders = clip.tokenize(text, return_word_ids=True).values()
        # (token, weight, number of the word); marks and padding have the number 0.
        return max(
            sum(1 for window in windows for token in window if token[2]) + ENDS
            for windows in encoders
        )

    parts = [clip.tokenizer, *vars(clip.tokenizer).values()]
    lengths = [part.max_length for part in parts if hasattr(part, "max_length")]
    limit = min((n for n in lengths if 0 < n <= UNBOUNDED), default=CLIP_WINDOW)
    return TokenCounter(count, limit)
