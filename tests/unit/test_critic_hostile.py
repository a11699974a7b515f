"""Replies made to harm: escapes, thinking, prompt syntax, keys, texts that take long to read."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
import warnings

import pytest

from hires_fusion.critic import ensemble, roles
from hires_fusion.critic.client import Reply
from hires_fusion.critic.lenient import documents
from hires_fusion.critic.providers import Provider
from hires_fusion.critic.replies import read_components, read_critique, read_tags
from hires_fusion.critic.secrets import clean_message, revealed
from hires_fusion.critic.thinking import without_thinking
from hires_fusion.critic.words import words

KEY = "sk-4f9a8b7c6d5e4f3a2b1c"
FRAGMENTS = [
    *(
        "\n",
        "!\n",
        "[",
        "[[,",
        "{",
        '{"a":',
        "<",
        "<a",
        "<think>",
        "</think>",
        "[THINK]",
        "&",
        "&#9",
    ),
    *("&#9", "&amp;", "\\", "\\u", "\\u0041", "%", "%25", "%41", '"', "'", ",", '",', "a,", ";"),
    *("-", "- \n", "1. ", "(", "(a:1.1)", ":1", "1", ".", "__", "*", "```\n", " ", "\t", "a b "),
    *("\u0300\u0315", "\u200b", "\ufdfa", "\U0001d42c", "embedding:", "<refined>", "< refined"),
    *("Positive: a\n", "negative", "◁think▷", "<|channel|>", "analysis", "assistantfinal", "s k "),
    *("4f9a8b7c ", "c3It", "\ud800", "\x00", "{'a':'", "['a' ", '"a" ', "[]", "“", "&#x", "<|"),
    "here is my thought process:",
]
# Readers, and a length at which quadratic time would show.
READERS = {
    "components": (read_components, 12_000),
    "tags": (read_tags, 12_000),
    "critique": (read_critique, 12_000),
    "external": (lambda text: roles.external(text, "p"), 12_000),
    "documents": (lambda text: list(documents(text)), 12_000),
    "words": (words, 12_000),
    "thinking": (without_thinking, 200_000),
    "key": (lambda text: revealed(text, KEY), 12_000),
    "message": (lambda text: clean_message(text, KEY, "https://a.example"), 200_000),
}


def seconds(reader, text: str) -> float:
    start = time.thread_time()
    reader(text)
    return time.thread_time() - start


@pytest.mark.parametrize("name", READERS)
def test_time_is_linear_in_the_length(name):
    """Of each fragment repeated, and of mixtures; what is quadratic takes a hundred times this."""
    reader, length = READERS[name]
    chance = random.Random(4)
    mixed = ["".join(chance.choices(FRAGMENTS, k=3)) for _ in range(20)]
    for fragment in (*FRAGMENTS, *mixed):
        text = (fragment * (length // len(fragment) + 1))[:length] + "x, y, z"
        assert seconds(reader, text) < 1e-4 * length + 0.5, fragment


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (read_critique, "x" + "\n" * 10_000 + "x"),
        (read_critique, "[" * 40 + "," * 2500),
        (read_tags, "!\n" * 5000 + "x, y, z"),
        (read_components, "\n" * 1_000_000),
        (read_tags, "[" * 1_000_000),
        (read_critique, "<think>" + "a<" * 500_000),
        (without_thinking, "\\" * 1_000_000),
        (words, "a" + "\u0315\u0300" * 100_000),
    ],
)
def test_what_once_took_long_takes_moments(reader, text):
    assert seconds(reader, text) < 4


@pytest.mark.parametrize(
    "reply",
    [
        "{'components': [0x" + "f" * 9000 + "]}",
        "{'components': [" + "9" * 9000 + "]}",
        '{"components": [1e999, NaN, -0, 12345678901234567890]}',
        "{'a': " * 3000,
        "[" * 100_000,
        "-" * 50_000,
        '{"components": ["&#' + "9" * 9000 + ';"]}',
        '{"refined": "&#x' + "f" * 9000 + ';"}',
        '{"refined": "\\ud800"}',
        '{"\ud800": "\udfff"}',
        "{'components': ['\\k', 1is 2, 0xfor x]}",
        "\udcff\ud800 <refined>\ud800</refined>",
    ],
)
def test_no_reply_raises_or_warns(reply):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reader in (read_components, read_tags, read_critique):
            found = str(reader(reply))
            found.encode()  # no lone surrogate
        roles.external(reply, "mine").value.refined.encode()


SYNTAX = set("(){}[]<>|\\:`*^~")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a (red:1.3) balloon", "a red balloon"),
        ("((a)) [b] {c|d}", "a b c d"),
        ("a balloon <lora:evil:1.0>, sky", "a balloon, sky"),
        ("&lt;lora:evil:1&gt; sky", "sky"),
        ("&amp;lt;lora:evil:1&amp;gt; sky", "sky"),
        ("\\u003clora:evil:1\\u003e sky", "sky"),
        ("＜ｌｏｒａ：evil：１＞ sky", "sky"),
        ("embedding:evil.pt sky", "evil.pt sky"),
        ("EMBEDDING :evil sky", "evil sky"),
        ("embedding&#58;evil sky", "evil sky"),
        ("emb\u200bedding:evil sky", "evil sky"),
        ("ｅmbedding：evil", "evil"),
        ("__wild/card__ sky", "wild/card sky"),
        ("a _(_wild_)_ sky", "a _ _wild_ _ sky"),
        ("[red:blue:0.5] sky", "red blue sky"),
        ("a BREAK b AND c", "a break b and c"),
        ("red++ balloon--", "red balloon"),
        ("<|image_pad|> sky<extra_id_0> [/INST]", "sky"),
        ("a \u202eb\u2066 \x1b[31mc\x00", "a b 31mc"),
        ("\ud800 sky \U000e0041\ufe0f\u3164", "sky"),
        ("caf\u00e9 猫 \u0928\u092e\u0938\u094d\u0924\u0947", "café 猫 नमस्ते"),
        ("a &amp; b, 50% grey, 35mm f/1.8, it's", "a & b, 50% grey, 35mm f/1.8, it's"),
        ("<think>secret</think> a boat", "a boat"),
    ],
)
def test_words_and_nothing_else(text, clean):
    assert words(text) == clean
    assert not SYNTAX & set(words(text)) and words(words(text)) == words(text)
    # The same out of every reader.
    assert read_critique(f"<refined>{text}</refined><issues>x</issues>").refined == clean
    document = json.dumps({"refined": text, "components": [text, "sky"], "positive": [text, "ab"]})
    assert read_critique(document).refined.strip("_ ") == clean.strip("_ ")
    for found in (read_components(document), read_tags(document).positive):
        assert not SYNTAX & set("".join(found)) and "embedding:" not in "".join(found)


def test_no_syntax_grows_together():
    """Every piece of syntax cut in two by every other, and escaped."""
    pieces = ["embedding:", "<lora:a:1>", "__", "(a:1.2)", "{a|b}", "&lt;", "\\(", "\u200b"]
    for outer, inner in itertools.product(pieces, pieces):
        for place in range(1, len(outer)):
            text = outer[:place] + inner + outer[place:] + "x sky"
            for form in (text, "".join(f"&#{ord(c)};" for c in text)):
                found = words(form)
                assert not SYNTAX & set(found) and "__" not in found and "&lt" not in found


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("<think>", "</think>"),
        ("<THINKING>", "</THINKING>"),
        ("<thought>", "</thought>"),
        ("<seed:think>", "</seed:think>"),
        ("<longcat_think>", "</longcat_think>"),
        ("<antThinking>", "</antThinking>"),
        ("<inner_monologue>", "</inner_monologue>"),
        ("<think type='x'>", "</think >"),
        ("< think >", "< / think >"),
        ("&lt;think&gt;", "&lt;/think&gt;"),
        ("&amp;lt;think&amp;gt;", "&amp;lt;/think&amp;gt;"),
        ("\\u003cthink\\u003e", "\\u003c/think\\u003e"),
        ("＜think＞", "＜/think＞"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|thinking|>", "<|/thinking|>"),
        ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|> <|begin_of_solution|>"),
        ("Here are my steps: ", "[BEGIN FINAL RESPONSE]"),
        ("Here is my thought process: ", "Here is my response:"),
        ("Thinking...\n", "\n...done thinking.\n\n"),
        ("**Thought:** ", "**Final Answer:** "),
        ("<think>", "</think><answer>"),
        ('<details type="reasoning">', "</details>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|channel|>commentary<|message|>",
         "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
        ("analysis", "assistantfinal"),
        ("<|channel>thought\n", "<channel|>"),
        ("", "</think>"),
        ("<think>a</think>\n<think>", "</think>"),
        ("<think> I could write <think> here ", "</think>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [0, 100_000])
def test_thinking_is_left_out_in_every_dialect(before, behind, size):
    thought = '<refined>wrong</refined> {"components": ["wrong"]} wrong, wrong, ' + "hm " * size
    reply = f"{before}{thought}{behind}"
    critique = read_critique(f"{reply}<issues>dark</issues><refined>a boat, sea</refined>")
    assert critique.refined == "a boat, sea"
    assert read_components(reply + '{"components": ["a boat", "the sea"]}') == ["a boat", "the sea"]
    assert read_tags(reply + "boat, sea, sky").positive == ["boat", "sea", "sky"]


@pytest.mark.parametrize(
    "text",
    [
        "<think>wrong",
        "Thinking...\nwrong",
        "[THINK] wrong",
        "◁think▷wrong",
        "<|channel|>analysis<|message|>wrong",
    ],
)
def test_thinking_without_an_end_is_no_answer(text):
    assert without_thinking(text).strip() == ""


def test_what_is_no_thinking_stays():
    kept = "a comic with a [thought bubble] and [1] <b>bold</b> reflection, think big"
    assert without_thinking(kept) == kept
    assert without_thinking("a boat<|im_end|>\n<|im_start|>user\nnow a dog") == "a boat"
    assert without_thinking("<|im_start|>assistant\na boat<|im_end|>") == "a boat"


def test_a_reader_that_fails_costs_no_prompt(monkeypatch):
    def broken(text):
        raise ValueError(KEY)

    monkeypatch.setattr(roles, "read_components", broken)
    monkeypatch.setattr(ensemble, "ask", lambda *args: Reply("anything"))
    provider = Provider("test", "http://127.0.0.1/v1", "", ("a",), ("a",))
    done = asyncio.run(roles.decompose(provider, "a boat"))
    assert done.value == ["a boat"] and done.failed and KEY not in done.report()
    assert "could not be read, asked twice" in done.report()


def test_reading_happens_off_the_event_loop():
    """The loop goes on, and so does Cancel, while a long reply is read."""
    beats, readers = [], []
    read, current = roles.read_components, threading.current_thread

    async def both():
        async def beat():
            while True:
                beats.append(time.monotonic())
                await asyncio.sleep(0.01)

        task = asyncio.ensure_future(beat())
        provider = Provider("test", "http://127.0.0.1/v1", "", ("a",), ("a",))
        await roles.decompose(provider, "a boat")
        task.cancel()

    with pytest.MonkeyPatch.context() as patch:
        reply = Reply("{" * 20_000 + "\n" * 20_000 + "[1," * 300_000)
        patch.setattr(ensemble, "ask", lambda *args: reply)
        patch.setattr(roles, "read_components", lambda t: readers.append(current()) or read(t))
        asyncio.run(both())
    assert readers and current() not in readers and len(beats) > 3
