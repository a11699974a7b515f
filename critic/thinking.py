"""A reply without the model's thinking, in whatever marks it stands.

Marks are those of chat templates and servers: `<think>` and its cousins, Magistral's `[THINK]`,
Kimi's `◁think▷`, gpt-oss' channels, Command's `<|START_THINKING|>`, Granite's sentences. One pass.
"""

from __future__ import annotations

import re

# Escaped angles are read as angles: none of them has a meaning in JSON.
_LESS = re.compile(r"&(?:amp;)*(?:lt|#0{0,6}60|#x0{0,6}3c);?|(?<!\\)\\+(?:u003c|x3c)|[＜‹]", re.I)
_MORE = re.compile(r"&(?:amp;)*(?:gt|#0{0,6}62|#x0{0,6}3e);?|(?<!\\)\\+(?:u003e|x3e)|[＞›]", re.I)
_MARK = re.compile(r"[<\[◁〈]([^<>\[\]◁▷〈〉\n]{1,64})[>\]▷〉]")
# Of the letters that some mark has, for speed.
_HINT = re.compile(
    r"thi?n?k|thought|reas|refl|analy|scratch|mono|cot|rati|delib|introsp|brain|answer|respon|solut"
    r"|output|final|channel|message|start|end|eot|return|details|\||/s\Z",
    re.I,
)
_NAMES = (
    "think|thinking|thinks|thought|thoughts|reason|reasoning|reasonings|reflection|analysis|"
    "scratchpad|monologue|cot|rationale|deliberation|introspection|brainstorm|brainstorming"
)
_THINKING = re.compile(rf"(?:\A|[_:.-]|ant)(?:{_NAMES})(?:_process|_content|_block)?\Z")
_SQUARE = re.compile(r"(?:think|thinking|reasoning)\Z")
_ANSWER = re.compile(
    r"(?:(?:begin|start)[ _]?(?:of[ _])?)?(?:final[ _])?(?:answer|response|solution|output)\Z"
    r"|final\Z"
)
_FINAL = re.compile(
    r"\s*(?:final|response|answer)\b\s*(?:<\|constrain\|>\s*\w+\s*)?(?:<\|message\|>)?", re.I
)
_SPEAKER = re.compile(r"\s*(?:assistant|model|system|user|developer)?\s*", re.I)
_SPEAKS = {"start", "im_start", "start_header_id", "start_of_turn"}
_ENDS = {"end", "return", "im_end", "eot_id", "eot", "endoftext", "end_of_text", "end_of_turn"}
_OPENED = re.compile(r"\s*(?:analysis|commentary|thought)\s*(?=<\|message\|>)", re.I)
# How thinking begins, how it ends, and whether all is thinking where the end is missing.
_TOLD = (
    ("here is my thought process:", "here is my response:", True),
    ("thinking...", "...done thinking.", True),
    ("thinking…", "…done thinking.", True),
    ("analysis", "assistantfinal", False),
    ("thought:", "final answer:", False),
    ("thinking:", "final answer:", False),
    ("reasoning:", "final answer:", False),
)


def without_thinking(text: str) -> str:
    """What a model says to its user.

    Thinking whose end is missing reaches to the end; what stands before an end without a
    beginning is thinking too.
    """
    text = _MORE.sub(">", _LESS.sub("<", text))
    text = _without_sentences(text)
    said: list[str] = []
    at, thinks = 0, bool(_OPENED.match(text))
    for mark in _MARK.finditer(text):
        if mark.start() < at or not _HINT.search(mark[1]):
            continue
        kind, name = _kind(mark)
        if not kind:
            continue
        if not thinks:
            said.append(text[at : mark.start()])
        at = mark.end()
        if kind == "thinking":
            thinks = True
        elif kind == "channel":
            final = _FINAL.match(text, at)
            thinks = not final
            if final:
                said, at = [], final.end()
        elif kind == "closed":
            # Without a beginning: that was lost, and what was said is thinking.
            said = said if thinks else []
            thinks = False
        elif kind == "answer":
            said, thinks = [], False
        elif name in _SPEAKS:
            at = _SPEAKER.match(text, at).end()
        elif name in _ENDS and not thinks and "".join(said).strip():
            # What follows the end of a turn is a turn that the model made up.
            return "".join(said)
    if not thinks:
        said.append(text[at:])
    return "".join(said)


def _without_sentences(text: str) -> str:
    """Without thinking that only words set apart: Granite's, Ollama's, gpt-oss without marks."""
    start = text[:200].lower().lstrip(" \t\r\n*#_")
    for begin, end, strict in _TOLD:
        if start.startswith(begin):
            # The last: thinking may speak of the answer.
            ends = [found.end() for found in re.finditer(re.escape(end), text, re.I)]
            if ends or strict:
                return text[ends[-1] :].lstrip(" *") if ends else ""
    return text


def _kind(mark: re.Match) -> tuple[str, str]:
    """What a mark means, "" for nothing, and its name."""
    inner = mark[1]
    special = inner.startswith("|") or inner.endswith("|")
    name = inner.strip("| \t").lower()
    closes = name.startswith("/")
    name = name.strip("/ \t")
    if name == "channel" and special:
        return ("channel" if inner.startswith("|") else "closed"), name
    square = mark[0][0] == "["
    if _ANSWER.match(name) and (special or not square or name.startswith(("begin", "start"))):
        return ("" if closes else "answer"), name
    if name.startswith("details") and (closes or "reasoning" in name):
        return ("closed" if closes else "thinking"), name
    if mark[0] == "</s>":
        return "special", "eot"
    if name.startswith("end") and not special:
        closes = closes or name[3:4] in ("_", " ", "-")
    first = name.split(" ")[0] if not name.startswith(("begin ", "start ", "end ")) else name
    bare = re.sub(r"\A(?:begin|start|end)[_ -](?:of[_ -])?", "", first)
    closes = closes or (first != bare and first.startswith("end"))
    if _SQUARE.match(bare) if square else _THINKING.search(bare):
        return ("closed" if closes else "thinking"), name
    return ("special" if special or (name in _SPEAKS | _ENDS and not closes) else ""), name
