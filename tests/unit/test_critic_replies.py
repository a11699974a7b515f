"""What models answer: repaired where it can be, refused where it cannot, never evaluated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hires_fusion.critic.replies import (
    LONGEST_ITEM,
    MOST_COMPONENTS,
    MOST_ISSUES,
    MOST_TAGS,
    Critique,
    Tags,
    documents,
    plain,
    read_components,
    read_critique,
    read_tags,
    tidy,
)

TWO = ["a red balloon", "snowy mountains"]


@pytest.mark.parametrize(
    "reply",
    [
        '{"components": ["a red balloon", "snowy mountains"]}',
        'Sure! Here:\n```json\n{"components": ["a red balloon", "snowy mountains"]}\n```\nOK?',
        '<think>{"components": ["wrong"]}</think>{"components": ["a red balloon", '
        '"snowy mountains"]}',
        'the opening was lost {"components": ["wrong"]}</think>["a red balloon", '
        '"snowy mountains"]',
        "{'components': ['a red balloon', 'snowy mountains']}",
        '{"components": ["a red balloon", "snowy mountains",],}',
        '{"components": ["a red balloon", "snowy mountains"',
        '{"components": ["a red balloon", "snowy mountains',
        "{“components”: [“a red balloon”, “snowy mountains”]}",
        '{"Components": [{"name": "a red balloon"}, {"name": "snowy mountains"}]}',
        '{"components": "a red balloon, snowy mountains"}',
        "- a red balloon\n- snowy mountains",
        "1. a red balloon\n2) *snowy mountains*",
        '{"note": "see [1]"} {"components": ["a red balloon", "A RED BALLOON", "", '
        '"snowy mountains"]}',
    ],
)
def test_components_are_found(reply):
    assert read_components(reply) == TWO


@pytest.mark.parametrize(
    "reply",
    ["", "I cannot help with that.", "{}", "[]", '{"components": []}', '{"components": 7}', "null",
     '{"components": ["a"]}', "{{{{{", "[" * 5000, '{"components": [true, null]}', "- one line"],
)  # fmt: skip
def test_what_holds_no_components_is_refused(reply):
    assert read_components(reply) is None


def test_one_character_is_a_component_where_it_is_a_word():
    assert read_components('{"components": ["猫", "b"]}') == ["猫"]


@pytest.mark.parametrize(
    ("reply", "positive", "negative"),
    [
        ('{"positive": ["balloon", "snow", "sunset"], "negative": ["blur"]}', 3, 1),
        ('{"positive": "balloon, snow, sunset", "negative": "blur, noise"}', 3, 2),
        ('["balloon", "snow"]', 2, 0),
        ("balloon, snow, sunset.", 3, 0),
        ("Here are your tags!\n\nballoon, snow, sunset\n\nEnjoy.", 3, 0),
        ("Positive: balloon, snow, sunset\nNegative: blur, noise", 3, 2),
        ("**Positive tags:** balloon, snow, sunset\n\n**Negative prompt:** blur", 3, 1),
        ("<think>snow, or, rain, or, hail</think>balloon, snow, sunset", 3, 0),
    ],
)
def test_tags_are_found(reply, positive, negative):
    found = read_tags(reply)
    assert found is not None
    assert (len(found.positive), len(found.negative)) == (positive, negative)
    assert found.positive[:2] == ["balloon", "snow"]
    assert not [tag for tag in found.positive if tag.endswith(".") or ":" in tag]


@pytest.mark.parametrize("reply", ["", "no", "one, two", '{"positive": []}', "{,,,"])
def test_what_holds_no_tags_is_refused(reply):
    assert read_tags(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        "<issues>- no balloon; too dark\n</issues><refined>a red balloon</refined>",
        "<ISSUES>no balloon\ntoo dark</ISSUES>\n< refined >a red balloon</ refined >",
        "&lt;issues&gt;no balloon; too dark&lt;/issues&gt;&lt;refined&gt;a red balloon"
        "&lt;/refined&gt;",
        "<issues>no balloon\ntoo dark<refined>a red balloon",
        '```json\n{"issues": ["no balloon", "too dark"], "refined": "a red balloon"}\n```',
        "<think><refined>wrong</refined></think><issues>no balloon; too dark</issues>"
        "<refined>“a red balloon”</refined> Hope it helps!",
    ],
)
def test_a_critique_is_found(reply):
    assert read_critique(reply) == Critique(["no balloon", "too dark"], "a red balloon")


def test_a_critique_in_part():
    assert read_critique("<issues>too dark</issues>") == Critique(["too dark"], "")
    assert read_critique("<refined>a boat</refined>") == Critique([], "a boat")
    assert read_critique("a fine picture") is None
    assert read_critique("<issues></issues><refined> </refined>") is None
    points = "\n".join(f"point {i}" for i in range(20))
    assert len(read_critique(f"<issues>{points}</issues>").issues) == MOST_ISSUES


def test_orders_in_a_reply_stay_text():
    order = "__import__('os').system('echo pwned') and embedding:secret.pt"
    assert "system" in read_components(json.dumps({"components": [order]}))[0]
    assert read_components("{'components': [__import__('os').getcwd()]}") is None
    assert tidy(order).endswith("and secret.pt")
    assert read_critique("<refined>boat</refined><script>x</script>").refined == "boat"
    assert read_critique("<refined>a <b>red</b> boat</refined>").refined == "a red boat"


def test_control_characters_and_length_are_cut():
    assert plain("a\x1b[31m\u202e b\x00\nc") == "a[31m b\nc"
    assert len(tidy("word " * 100)) <= LONGEST_ITEM and tidy("word " * 100).endswith("word")
    assert len(read_tags(", ".join(f"tag {i}" for i in range(500))).positive) == MOST_TAGS


texts = st.text(max_size=300)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
junk = st.lists(
    st.sampled_from(
        ['{"components": [', '"positive":', "<issues>", "</refined>", "<think>", "```", "'", '"',
         "]", "}", ",", "\\", "&lt;refined&gt;", "\n- ", "Negative: ", "a, b, c", "[{"]
    )
    | st.text(max_size=12),
    max_size=30,
).map("".join)  # fmt: skip


def check_all(reply: str) -> None:
    """No reader raises, and what it finds keeps the bounds."""
    components, tags, critique = read_components(reply), read_tags(reply), read_critique(reply)
    assert components is None or 0 < len(components) <= MOST_COMPONENTS
    if tags is not None:
        assert isinstance(tags, Tags) and 0 < len(tags.positive) <= MOST_TAGS
        assert all(len(tag) <= LONGEST_ITEM and "\n" not in tag for tag in tags.positive)
    if critique is not None:
        assert critique.refined or critique.issues
        assert len(critique.issues) <= MOST_ISSUES and "\n" not in critique.refined


@given(junk)
def test_no_junk_raises(reply):
    check_all(reply)


@given(values)
def test_no_document_raises(value):
    check_all(json.dumps(value))
    check_all(str(value))


@given(st.lists(st.text("abc xyz", min_size=3, max_size=20), min_size=1, max_size=6), junk)
def test_a_good_document_is_found_after_talk(parts, talk):
    talk = talk.translate(dict.fromkeys(map(ord, "{}[]<>`&;\"'")))
    wanted = [p for p in dict.fromkeys(" ".join(p.split()) for p in parts) if len(p) > 2]
    found = read_components(f"{talk}\n{json.dumps({'components': parts})}")
    assert (found or []) == wanted


@given(values)
def test_documents_come_out_as_they_went_in(value):
    if isinstance(value, dict) and value:
        text = json.dumps(value)
        if plain(text) == text and "NaN" not in text:
            assert next(documents(text)) == value
