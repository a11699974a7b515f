"""No node of ours takes what its schema doesn't allow, typed or by a link."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from comfy_api.latest import io

from hires_fusion import nodes
from hires_fusion.nodes import NODES, inputs
from tools.client import PromptError

NUMBERS = {"INT": 3, "FLOAT": 0.5}
WRONG_NUMBERS = [
    *(float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 10**5000, -(10**5000)),
    *("7", "", "foo", True, False, None, [1], {"value": 1}, torch.tensor(1.0), np.bool_(True)),
]
WRONG_CHOICES = ["foo", "", None, 3, True, 0.5, ["euler"], torch.ones(2), "x" * 10_000]
PLAIN = ["local", "", 1, 0.5, True, b"x"]


def each(*kinds):
    """(node, widget) of every input of these types, or of all that are no widgets."""
    for node in NODES:
        for widget in node.define_schema().inputs:
            kind = str(widget.get_io_type())
            if kind in kinds or (not kinds and kind not in inputs.WIDGETS):
                yield pytest.param(node, widget, id=f"{node.__name__}-{widget.id}")


def listed(node, value):
    return [value] if node.define_schema().is_input_list else value


def refusal(node, widget, value):
    """What the node says when it runs with that value; the rest of its inputs is missing, so
    that nothing but the check can answer."""
    with pytest.raises(ValueError) as caught:
        done = node.execute(**{widget.id: listed(node, value)})
        if inspect.iscoroutine(done):
            done.send(None)
    return str(caught.value)


@pytest.mark.parametrize(("node", "widget"), each("INT", "FLOAT"))
def test_a_number_is_finite_and_in_range(node, widget):
    assert widget.min is not None and widget.max is not None, "a number without bounds"
    outside = [widget.min - 1, widget.max + 1]
    outside += [2.5] if widget.io_type == "INT" else [np.nextafter(widget.max, np.inf)]
    for value in [*WRONG_NUMBERS, *outside]:
        if value is None and widget.optional:
            continue
        message = refusal(node, widget, value)
        assert message.startswith(f"{widget.id} is ") and len(message) < 300
        assert f"from {widget.min} to {widget.max}" in message
    for value in (widget.min, widget.max, widget.default):
        found = inputs.check(node.define_schema(), {widget.id: listed(node, value)})
        assert found == {widget.id: listed(node, value)}


@pytest.mark.parametrize(("node", "widget"), each("COMBO"))
def test_a_choice_is_a_known_one(node, widget):
    for value in WRONG_CHOICES:
        if value is None and widget.optional:
            continue
        message = refusal(node, widget, value)
        assert message.startswith(f"{widget.id} is ") and len(message) < 1500
        assert all(str(option) in message for option in widget.options)
    for value in widget.options:
        given = {widget.id: listed(node, value)}
        assert inputs.check(node.define_schema(), given) == given


@pytest.mark.parametrize(("node", "widget"), each("BOOLEAN", "STRING"))
def test_a_switch_is_a_switch_and_a_text_a_text(node, widget):
    wrong = [0, 1.0, [], {}, torch.ones(1)] + (["false"] if widget.io_type == "BOOLEAN" else [True])
    for value in wrong:
        assert refusal(node, widget, value).startswith(f"{widget.id} is ")


@pytest.mark.parametrize(("node", "widget"), each())
def test_a_link_is_no_plain_value(node, widget):
    for value in [*PLAIN, *([] if widget.optional else [None])]:
        message = refusal(node, widget, value)
        assert message.startswith(f"{widget.id} is ") and f"the type {widget.io_type}" in message


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("LATENT", {}),
        ("LATENT", {"samples": "x"}),
        ("IMAGE", torch.zeros(8, 8, 3)),
        ("MODEL", object()),
        ("CONDITIONING", [1, 2]),
        ("SIGMAS", [1.0, 0.0]),
        ("HRF_CRITIC", {"name": "local"}),
        ("SAMPLER", "euler"),
    ],
)
def test_a_link_of_a_known_type_is_of_that_type(kind, wrong):
    widget = io.Custom(kind).Input("it")
    with pytest.raises(ValueError, match=f"it is .*the type {kind}, such as"):
        inputs.checked_value(widget, wrong)


def test_links_of_types_that_others_invent_pass():
    own = object()
    assert inputs.checked_value(io.Custom("HRF_NEW").Input("it"), own) is own


@pytest.mark.parametrize("value", [np.int64(3), 3.0, np.float32(3)])
def test_whole_numbers_of_other_types_become_ints(value):
    found = inputs.checked_value(io.Int.Input("it", min=0, max=9), value)
    assert found == 3 and type(found) is int


def test_optional_inputs_that_are_nothing_are_left_out():
    widgets = [io.Vae.Input("vae", optional=True), io.Int.Input("n", optional=True, min=0, max=1)]
    schema = io.Schema(node_id="X", inputs=widgets)
    assert inputs.check(schema, {"vae": None, "n": None}) == {}


def test_a_message_suggests_the_likeliest_choice_and_repeats_no_key():
    widget = io.Combo.Input("preset", options=["RepLDM", "DemoFusion"])
    with pytest.raises(ValueError, match="did you mean 'DemoFusion'\\? choose from RepLDM, Demo"):
        inputs.checked_value(widget, "Demofusion")
    with pytest.raises(ValueError) as caught:
        inputs.checked_value(widget, "sk-abcdefghijklmnop")
    assert "abcdef" not in str(caught.value)


def test_every_node_class_is_registered_and_guarded():
    found = set()
    for module in pkgutil.iter_modules(nodes.__path__):
        loaded = importlib.import_module(f"{nodes.__name__}.{module.name}")
        for name, kind in vars(loaded).items():
            ours = isinstance(kind, type) and issubclass(kind, io.ComfyNode)
            if ours and kind.__module__ == loaded.__name__ and not name.startswith("_"):
                found.add(kind)
    assert found == set(NODES)
    assert all(inputs.is_guarded(node) for node in NODES)


def queued(node, **given):
    """What the host does with typed values: None stands for a link."""
    schema = node.define_schema()
    if schema.is_input_list:
        given = {k: (None,) if v is None else [v] for k, v in given.items()}
    return node.validate_inputs(**given)


@pytest.mark.parametrize(("node", "widget"), each("COMBO", "FLOAT", "INT"))
def test_what_is_typed_is_refused_when_it_is_queued(node, widget):
    wrong = "foo" if widget.io_type == "COMBO" else float("nan")
    with pytest.raises(ValueError, match=f"^{widget.id} is "):
        queued(node, **{widget.id: wrong})


def test_what_is_linked_is_not_judged_when_it_is_queued():
    for node in NODES:
        names = [widget.id for widget in node.define_schema().inputs]
        assert queued(node, **dict.fromkeys(names)) is True


def node(kind, **inputs_):
    return {"class_type": kind, "inputs": inputs_}


LINKED = [
    ("HRF_CADR", {"score": "NaN"}, "score is nan: give a number from 0.0 to 100.0"),
    ("HRF_CADR", {"score": "Infinity"}, "score is inf: give a number"),
    ("HRF_CADR", {"score": '"60"'}, "score is the text '60': give a number"),
    ("HRF_CADR", {"score": "true"}, "score is true: give a number"),
    ("HRF_CADR", {"score": "-1"}, "score is -1: give a number"),
    ("HRF_LoadDemoModel", {"variant": '"bas"'}, "did you mean 'base'? choose from base, refiner"),
    ("HRF_DecomposePrompt", {"provider": '"local"'}, "of the type HRF_CRITIC, such as that of C"),
]


@pytest.mark.parametrize(("kind", "links", "says"), LINKED)
def test_a_linked_value_is_checked_by_the_real_host(run, kind, links, says):
    prompt = {name: node("HRFT_Value", text=text) for name, text in links.items()}
    rest = {"prompt": "a boat"} if kind == "HRF_DecomposePrompt" else {}
    prompt["ours"] = node(kind, **rest, **{name: [name, 0] for name in links})
    prompt["show"] = node("PreviewAny", source=["ours", 0])
    assert says in str(run(prompt, check=False).result.error)


@pytest.mark.parametrize(
    ("kind", "typed", "says"),
    [
        ("HRF_CADR", {"score": 101.0}, "score is 101.0: give a number from 0.0 to 100.0"),
        ("HRF_LoadDemoModel", {"variant": "bas"}, "choose from base, refiner"),
        (
            "HRF_DecomposePrompt",
            {"prompt": "x", "provider": "local"},
            "provider is the text 'local'",
        ),
        ("HRF_CriticProvider", {"provider": "local", "aggregator": "a, b"}, "takes one model"),
    ],
)
def test_a_typed_value_is_refused_once_by_the_real_host(run, kind, typed, says):
    prompt = {"ours": node(kind, **typed), "show": node("PreviewAny", source=["ours", 0])}
    with pytest.raises(PromptError) as caught:
        run(prompt)
    assert str(caught.value).count(says) == 1
