"""A prompt inside the text encoder's window, counted by a tokenizer that the caller brings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .tags import QUALITY, bucket, identity, join, ordered, split

LIMIT = 77  # CLIP's window with its start and end mark
PROTECTED = 4  # quality tags that are cut only after all others
Counter = Callable[[str], int]


class Fitted(NamedTuple):
    """A prompt, what was left out of it, and its length."""

    prompt: str
    trimmed: list[str]
    tokens: int
    limit: int

    def summary(self) -> str:
        """The length in words."""
        return f"{self.tokens} of {self.limit} tokens"

    def warnings(self) -> list[str]:
        """What the budget cost; nothing where all fits."""
        if self.trimmed:
            return [f"{self.summary()}; left out for the budget: {join(self.trimmed)}"]
        if self.tokens > self.limit:
            return [f"{self.summary()}: your prompt is longer than one window, and unchanged"]
        return []


def estimate(text: str) -> int:
    """Tokens of a text where no tokenizer is at hand: 1.3 per word, start and end mark."""
    return math.ceil(1.3 * len(text.split())) + 2


def longest_prefix(text: str, count: Counter, limit: int) -> str:
    """The most words from the start of `text` that fit; "" if none do."""
    words = text.split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if count(" ".join(words[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    return " ".join(words[:low]).rstrip(" ,;")


def fit(tags: list[str], count: Counter = estimate, limit: int = LIMIT) -> Fitted:
    """The tags that fit, in their order.

    The first tag is the subject: it always stays, and is cut word by word where it alone is too
    long. Room goes to the quality tags first, so that a floor of quality at the end is not what is
    lost, and then to the others from the front.

    Args:
        tags: subject first.
        count: tokens of a text, start and end mark included.
        limit: most tokens.
    """
    if not tags:
        return Fitted("", [], count(""), limit)
    quality = [i for i, tag in enumerate(tags) if i and bucket(tag) == QUALITY][:PROTECTED]
    others = [i for i in range(1, len(tags)) if i not in quality]
    here = {0}
    if count(tags[0]) <= limit:
        for i in [*quality, *others]:
            if count(join([tags[j] for j in sorted({*here, i})])) <= limit:
                here.add(i)
    chosen = [tags[i] for i in sorted(here)]
    trimmed = [tag for i, tag in enumerate(tags) if i not in here]
    text = join(chosen)
    if len(chosen) == 1 and count(text) > limit:
        text = longest_prefix(chosen[0], count, limit)
        trimmed = [chosen[0][len(text) :].strip(" ,;"), *trimmed]
    return Fitted(text, trimmed, count(text), limit)


def merge(
    prompt: str, refined: str, tags: str, count: Counter = estimate, limit: int = LIMIT
) -> Fitted:
    """One prompt of a critic's refined prompt and the tags, inside the budget.

    The refined prompt's first clause is the subject. Where neither text says more than the user's
    prompt, that prompt is returned as it is, whatever its length.
    """
    said = [text for text in (refined, tags) if text.strip() and identity(text) != identity(prompt)]
    if not said:
        return Fitted(prompt, [], count(prompt), limit)
    if identity(tags) == identity(prompt):
        tags = ""
    clauses = split(refined) or split(prompt) or split(tags)
    subject = clauses[0].rstrip(".")
    rest = [tag.rstrip(".") for tag in [*clauses[1:], *split(tags)]]
    return fit(ordered(subject, [tag for tag in rest if tag], None), count, limit)
