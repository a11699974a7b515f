"""Every name of the host that the shipped code uses exists in the host in use, takes the arguments
it is called with, and is listed in docs/compatibility.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from typing import Any

import pytest

from tools.symbols import PAGE, ROW, used

USED = {name: [*itertools.chain(*places.values())] for name, places in used().items()}


def resolve(name: str) -> Any:
    """The object of a dotted name, imported."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_the_reader_finds_what_is_there():
    assert len(USED) > 40
    assert USED["comfy.model_management.throw_exception_if_processing_interrupted"]


@pytest.mark.parametrize("name", USED)
def test_a_symbol_exists_and_takes_what_it_is_given(name):
    found = resolve(name)
    for call in USED[name]:
        positional, keywords = call.args, call.keywords
        open_ended = [a for a in positional if isinstance(a, ast.Starred)]
        if open_ended or any(k.arg is None for k in keywords):
            continue
        try:
            signature = inspect.signature(found)
        except ValueError:
            continue  # of C code
        signature.bind(*positional, **{k.arg: k.value for k in keywords})


def test_the_compatibility_page_lists_every_symbol():
    listed = {match[1] for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))}
    assert listed == USED.keys(), "run python -m tools.symbols"
