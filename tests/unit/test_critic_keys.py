"""A key in a reply, in whatever writing: it never comes out."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from hires_fusion.critic import ensemble, roles
from hires_fusion.critic.client import Reply
from hires_fusion.critic.providers import Provider
from hires_fusion.critic.secrets import clean_message, revealed, scrubbed, without_key
from hires_fusion.critic.words import decoded

KEY = "sk-4f9a8b7c6d5e4f3a2b1c"


def asked(role, answer: str, *more):
    """What a role makes of an answer, without a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRITIC_TEST_KEY", KEY)
        patch.setattr(ensemble, "ask", lambda *args: Reply(without_key(answer, KEY)))
        provider = Provider("test", "http://127.0.0.1/v1", "CRITIC_TEST_KEY", ("a",), ("a",))
        return asyncio.run(role(provider, "a boat", *more))


def escaped(form: str) -> str:
    return "".join(form.format(ord(c)) for c in KEY)


HIDDEN = {
    "plain": KEY,
    "json": escaped("\\u{:04x}"),
    "json twice": escaped("\\\\u{:04x}"),
    "html": escaped("&#{};"),
    "html hex": escaped("&#x{:X};"),
    "html twice": escaped("&amp;#{};"),
    "percent": escaped("%{:02x}"),
    "percent twice": escaped("%25{:02x}"),
    "python": escaped("\\x{:02x}"),
    "html in percent": escaped("%26%23{}%3B"),
    "wide": "".join(chr(ord(c) + 0xFEE0) for c in KEY),
    "zero width": "\u200b".join(KEY),
    "soft hyphens": "&shy;".join(KEY),
    "accents": "\u0332".join(KEY),
    "spaced": " ".join(KEY),
    "dashes": "-".join(KEY),
    "braces": "{".join(KEY),
    "tags": "<b></b>".join(KEY),
    "lines": "\n".join(KEY),
    "backwards": KEY[::-1],
    "capitals": KEY.upper(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "base64 url": base64.urlsafe_b64encode(f"a {KEY}".encode()).decode().rstrip("="),
    "base32": base64.b32encode(f"xy {KEY}".encode()).decode(),
    "hex": KEY.encode().hex(),
    "hex spaced": KEY.encode().hex(" "),
    "quoted-printable": escaped("={:02X}"),
    "code points": escaped("U+{:04X} "),
    "hex numbers": escaped("0x{:02x}, "),
    "letters alike": KEY.translate(str.maketrans("aceks", "\u0430\u0441\u0435\u043a\u0455")),
    "half": KEY[5:17],
}


def letters(text: str) -> str:
    return "".join(c for c in decoded(text).lower() if c.isalnum())


@pytest.mark.parametrize("form", HIDDEN.values(), ids=HIDDEN)
def test_a_key_is_found_in_every_writing(form):
    answers = {
        "refined": f"<refined>one boat {form} sea</refined>",
        "json": '{"refined": "one boat ' + form.replace("\n", " ") + ' sea"}',
    }
    for answer in answers.values():
        done = asked(roles.critique, answer, ["a"], "data:,")
        said = done.value.refined
        assert said.startswith("one boat") and said.endswith("sea") and "[key]" in said
        for piece in (KEY[3:14], KEY[12:], form[3:23], KEY[::-1][2:14]):
            assert piece not in said and (piece.isspace() or letters(piece) not in letters(said))
    message = clean_message(f"no such key {form} here", KEY)
    assert message.startswith("no such key ") and letters(KEY[5:17]) not in letters(message)
    assert KEY[5:17] not in message and form[3:20] not in message


@pytest.mark.parametrize("answer", [KEY, "...", "***", "[ ]", KEY[::-1], "&#8203;"])
def test_a_refined_prompt_without_a_word_is_none(answer):
    done = asked(roles.critique, f"<issues>dark</issues><refined>{answer}</refined>", [], "data:,")
    assert done.value.refined == "a boat" and done.warnings


def test_a_key_in_pieces_over_a_list_is_found():
    pieces = [KEY[i : i + 4] for i in range(0, len(KEY), 4)]
    done = asked(roles.decompose, json.dumps({"components": ["a boat", *pieces]}))
    assert done.value == ["a boat", "[key]"]
    assert scrubbed(("a", pieces), KEY)[1] == ["[key]"]


def test_words_that_resemble_a_local_servers_key_stay():
    assert without_key("film studio lighting, a film studio", "lm-studio") == (
        "film studio lighting, a film studio"
    )
    text = "a red balloon over snowy mountains, golden hour, 35mm"
    assert revealed(text, KEY) is text and revealed(text, "short") is text
    assert revealed("50%25 grey &amp; red", KEY) == "50%25 grey &amp; red"
