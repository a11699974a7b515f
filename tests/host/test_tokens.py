"""Tokens are counted by the wired CLIP itself: the demo model's, SDXL's, and a T5."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def clips() -> dict[str, Any]:
    """The demo model's CLIP, and the tokenizers of SDXL and of a T5 model without weights."""
    import comfy.sdxl_clip
    import comfy.text_encoders.sd3_clip

    from hires_fusion.demo.loader import load_demo_model

    class Tokens:
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

        def tokenize(self, text, return_word_ids=False):
            found = self.tokenizer.tokenize_with_weights(text, return_word_ids)
            return found if isinstance(found, dict) else {"t5xxl": found}

    return {
        "demo": load_demo_model()[1],
        "sdxl": Tokens(comfy.sdxl_clip.SDXLTokenizer()),
        "t5": Tokens(comfy.text_encoders.sd3_clip.T5XXLTokenizer()),
    }


@pytest.mark.parametrize(("name", "limit"), [("demo", 32), ("sdxl", 77), ("t5", 77)])
def test_a_clip_counts_its_own_tokens(clips, name, limit):
    from hires_fusion.sampling.tokens import token_counter

    count, found = token_counter(clips[name])
    assert found == limit and count("") == 2
    assert count("a (red:1.2) balloon") >= 5
    if name == "sdxl":
        assert count("a photo of a cat") == 7 and count("a, b") == 5
        # The budget's end is the host's own: one token more and there are two windows.
        fits, over = "cat " * 75, "cat " * 76
        assert (count(fits), count(over)) == (77, 78)
        windows = [len(clips[name].tokenize(text)["l"]) for text in (fits, over)]
        assert windows == [1, 2]


def test_a_merged_prompt_fits_one_window(clips):
    from hires_fusion.critic import budget
    from hires_fusion.sampling.tokens import token_counter

    listed = ", ".join(f"number {i} of the sea birds" for i in range(40))
    for name in ("demo", "sdxl"):
        count, limit = token_counter(clips[name])
        merged = budget.merge(
            "a lighthouse", "a lighthouse on a cliff, dusk", listed + ", 8k", count, limit
        )
        assert merged.tokens <= limit and merged.trimmed
        assert merged.prompt.startswith("a lighthouse on a cliff") and merged.prompt.endswith("8k")
        windows = clips[name].tokenize(merged.prompt)
        assert all(len(found) == 1 for found in windows.values())
