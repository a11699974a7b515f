"""Checks every input of every node against the node's own schema, so that no node has its own.

The host checks only what is typed into a widget, 0.3.75 no choice at all; what comes by a link,
or from a node's expansion, is checked by nobody else.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from comfy_api.latest import io

from ..critic.providers import Choice
from ..critic.secrets import CREDENTIAL
from ..fusion_ops.stage import Stage
from . import flaws

Values = dict[str, Any]
PLAIN = (str, bytes, bool, int, float)
SHOWN = 60  # characters of a wrong value that a message repeats
MOST_CHOICES = 60


class Link(NamedTuple):
    """How the value of a link is recognised, a node that makes one, and what is wrong inside."""

    fits: Callable[[Any], bool]
    maker: str
    flaw: Callable[[Any], str] = lambda value: ""


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


LINKS = {
    "MODEL": Link(_has("model", "model_options", "clone"), "a model loader"),
    "CLIP": Link(_has("tokenize"), "a checkpoint or CLIP loader"),
    "VAE": Link(_has("encode", "decode"), "a checkpoint or VAE loader"),
    "CONDITIONING": Link(
        lambda value: (
            isinstance(value, (list, tuple))
            and all(isinstance(c, (list, tuple)) and len(c) == 2 for c in value)
            and all(isinstance(options, dict) for _, options in value)
        ),
        "CLIP Text Encode",
        lambda value: "" if value else "it holds no prompt: encode one, which may be empty",
    ),
    "LATENT": Link(
        lambda value: isinstance(value, dict) and hasattr(value.get("samples"), "shape"),
        "a sampler or VAE Encode",
        flaws.latent,
    ),
    "IMAGE": Link(
        lambda value: torch.is_tensor(value) and value.ndim == 4 and value.shape[-1] >= 3,
        "Load Image or VAE Decode",
        flaws.numbers,
    ),
    "MASK": Link(
        lambda value: torch.is_tensor(value) and value.ndim in (2, 3), "a mask node", flaws.numbers
    ),
    "SAMPLER": Link(_has("sample"), "KSamplerSelect"),
    "SIGMAS": Link(
        lambda value: torch.is_tensor(value) and value.ndim == 1, "a scheduler node", flaws.sigmas
    ),
    "NOISE": Link(_has("generate_noise"), "RandomNoise"),
    "GUIDER": Link(_has("sample"), "CFGGuider"),
    "UPSCALE_MODEL": Link(_has("scale", "model"), "Load Upscale Model"),
    "HRF_STAGE": Link(
        lambda value: (
            isinstance(value, tuple) and value and all(isinstance(s, Stage) for s in value)
        ),
        "Stage",
    ),
    "HRF_CRITIC": Link(lambda value: isinstance(value, Choice), "Critic Provider"),
}


def guard(node: type[io.ComfyNode]) -> None:
    """Have a node's inputs checked when it is queued (what is typed) and when it runs (all).

    What its `validate_inputs` says at queueing time is raised, because the host would repeat a
    returned text for every input that the function names. It gets, as the host's does, None for
    what is linked; a node that takes lists gets their first items.
    """
    ours = node.__mro__[: node.__mro__.index(io.ComfyNode)]
    own = next((vars(c)["validate_inputs"] for c in ours if "validate_inputs" in vars(c)), None)
    node.execute = classmethod(_checked(node.execute.__func__))
    node.validate_inputs = classmethod(_queued(own and own.__func__))


def is_guarded(node: type[io.ComfyNode]) -> bool:
    """Has `guard` been here?"""
    return hasattr(node.execute, "unguarded") and hasattr(node.validate_inputs, "own")


def _checked(function: Callable) -> Callable:
    names = list(inspect.signature(function).parameters)[1:]

    def inputs(cls: type[io.ComfyNode], args: tuple, given: Values) -> Values:
        return check(cls.define_schema(), {**dict(zip(names, args, strict=False)), **given})

    if inspect.iscoroutinefunction(function):

        async def execute(cls, *args, **given):
            return await function(cls, **inputs(cls, args, given))
    else:

        def execute(cls, *args, **given):
            return function(cls, **inputs(cls, args, given))

    execute.unguarded = function
    return execute


def _queued(own: Callable | None) -> Callable:
    def validate_inputs(cls, **given):
        schema = cls.define_schema()
        linked = (None,) if schema.is_input_list else None
        check(schema, {name: value for name, value in given.items() if value != linked})
        if own is not None:
            if schema.is_input_list:
                given = {name: values[0] for name, values in given.items()}
            problem = own(cls, **_named(own, given))
            if problem is not True:
                raise ValueError(problem or "its inputs don't go together")
        return True

    validate_inputs.own = own
    return validate_inputs


def _named(function: Callable, given: Values) -> Values:
    """Those of the arguments that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    return {name: given[name] for name in (p.name for p in parameters) if name in given}


def check(schema: io.Schema, given: Values) -> Values:
    """The inputs as the node shall get them: optional ones that are None are left out, whole
    numbers are ints.

    Args:
        schema: of the node; lists are checked item by item where it takes lists.
        given: values by input. Inputs that are missing are the host's business.

    Raises:
        ValueError: a value that the schema doesn't allow; names the input and says what it takes.
    """
    known = {widget.id: widget for widget in schema.inputs or ()}
    found = {}
    for name, value in given.items():
        widget = known.get(name)
        if widget is None:
            found[name] = value
        elif schema.is_input_list:
            items = [checked_value(widget, item) for item in value]
            if any(item is not None for item in items):
                found[name] = items
        elif value is not None or not widget.optional:
            found[name] = checked_value(widget, value)
    return found


def checked_value(widget: io.Input, value: Any) -> Any:
    """One value of an input; ValueError if the input doesn't take it."""
    if value is None and widget.optional:
        return None
    kind = str(widget.get_io_type())
    if kind in WIDGETS:
        return WIDGETS[kind](widget, value)
    known = LINKS.get(kind)
    fits = known.fits(value) if known else value is not None and not isinstance(value, PLAIN)
    if not fits:
        maker = f", such as that of {known.maker}" if known else ""
        raise ValueError(
            f"{widget.id} is {shown(value)}: connect it to an output of the type {kind}{maker}"
        )
    if flaw := known.flaw(value) if known else "":
        raise ValueError(f"{widget.id}: {flaw}")
    return value


def _number(widget: io.Input, value: Any, whole: bool) -> int | float:
    low, high = (getattr(widget, name, None) for name in ("min", "max"))
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # A whole number may have more digits than a float holds.
    if real and (isinstance(value, numbers.Integral) or math.isfinite(value)):
        exact = not whole or value == int(value)
        if exact and (low is None or value >= low) and (high is None or value <= high):
            return int(value) if whole else float(value)
    wanted = "a whole number" if whole else "a number"
    if low is not None and high is not None:
        wanted += f" from {low} to {high}"
    raise ValueError(f"{widget.id} is {shown(value)}: give {wanted}")


def _int(widget: io.Input, value: Any) -> int:
    return _number(widget, value, whole=True)


def _float(widget: io.Input, value: Any) -> float:
    return _number(widget, value, whole=False)


def _boolean(widget: io.Input, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{widget.id} is {shown(value)}: give true or false")
    return bool(value)


def _string(widget: io.Input, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{widget.id} is {shown(value)}: give a text")
    return value


def _combo(widget: io.Input, value: Any) -> Any:
    options = list(widget.options or ())
    if isinstance(value, (str, int)) and value in options and not isinstance(value, bool):
        return value
    raise ValueError(
        f"{widget.id} is {shown(value)}, which is no choice: {choices(value, options)}"
    )


WIDGETS = {"INT": _int, "FLOAT": _float, "BOOLEAN": _boolean, "STRING": _string, "COMBO": _combo}


def choices(value: Any, options: Iterable[Any]) -> str:
    """What can be chosen instead, the likeliest first."""
    names = [str(option) for option in options]
    if not names:
        return "there is none to choose from"
    lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(str(value)[:SHOWN].lower(), lower, 1, 0.6)
    hint = f"did you mean '{lower[near[0]]}'? " if near and isinstance(value, str) else ""
    rest = f" and {len(names) - MOST_CHOICES} more" if len(names) > MOST_CHOICES else ""
    return f"{hint}choose from {', '.join(names[:MOST_CHOICES])}{rest}"


def shown(value: Any) -> str:
    """A wrong value as a message may repeat it: short, and nothing that looks like a key."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        if CREDENTIAL.search(value):
            return "a text that looks like a key"
        return f"the text {value[:SHOWN]!r}" + ("…" if len(value) > SHOWN else "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 4 * SHOWN:
        return "a number of very many digits"
    if isinstance(value, (int, float)):
        return str(value)
    return f"a {type(value).__name__}"
