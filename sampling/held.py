"""What a function hung on a MODEL holds and what it writes to, without running it."""

from __future__ import annotations

import ast
import dis
import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_patcher
import comfy.sd
import numpy as np
import torch
from torch import Tensor

from .sources import accesses, changing, has_source, of_module, root_of, stored_names, tree_of

# Networks and their holders: their tensors are weights.
WEIGHTS = (
    *(torch.nn.Module, comfy.model_patcher.ModelPatcher, comfy.sd.VAE, comfy.sd.CLIP),
    *(types.ModuleType, type, torch.Generator, str, bytes, int, float, complex, torch.dtype),
)
MOST_THINGS = 2000
DEPTH = 5

# What packs call that which shows a place, and that which says what to draw there.
PLACE = re.compile(
    r"mask|ima?ge?|hint|pixel|latent|map|region|area|depth|pose|noise|frame|video|canvas|bbox", re.I
)
MASK = re.compile(r"mask", re.I)
CONTENT = re.compile(r"embed|cond|token|text|clip|prompt|weight|lora|pooled|feat|vector", re.I)

NOT_OURS = ("torch", "comfy", "numpy", "einops", "builtins")


def functions(thing: Any) -> list[Callable]:
    """The Python functions that run when `thing` is called, as far as they can be seen: itself,
    those that it closes over, and methods of its own and functions of its module that it names."""
    waiting, found = _called(thing), {}
    kind = type(getattr(thing, "__self__", thing))
    while waiting and len(found) < MOST_THINGS:
        function = waiting.pop()
        if id(function) in found:
            continue
        found[id(function)] = function
        waiting += [v for _, v in reached(function) if isinstance(v, types.FunctionType)]
        reads = accesses(function)[1]
        waiting += _methods(kind, {*reads.get("self", ()), *reads.get("super", ())})
        for name, value in _held_by(function):
            waiting += _methods(type(value), reads.get(name, set()))
        beside = (function.__globals__.get(name) for name in of_module(function))
        waiting += [
            each
            for each in beside
            if isinstance(each, types.FunctionType) and each.__module__ == function.__module__
        ]
    return list(found.values())


def _methods(kind: type, names: set[str]) -> list[Callable]:
    """Methods of these names that a class has, and those that they stand in for."""
    ours = [base for base in kind.__mro__ if base.__module__.split(".")[0] not in NOT_OURS]
    found = (vars(base).get(name) for base in ours for name in names)
    return [method for method in found if isinstance(method, types.FunctionType)]


def _held_by(function: Callable) -> Iterator[tuple[str, Any]]:
    """(name, object) of what a function closes over and has as defaults."""
    for name, cell in cells(function).items():
        if is_full(cell):
            yield name, cell.cell_contents
    yield from _defaults(function)
    yield from (function.__kwdefaults__ or {}).items()


def _called(thing: Any) -> list[Callable]:
    if isinstance(thing, functools.partial):
        return _called(thing.func)
    if isinstance(thing, types.MethodType):
        return _called(thing.__func__)
    if isinstance(thing, types.FunctionType):
        return [thing]
    name = "forward" if isinstance(thing, torch.nn.Module) else "__call__"
    found = None if isinstance(thing, type) else getattr(type(thing), name, None)
    return [found] if isinstance(found, types.FunctionType) else []


def reached(thing: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything that hangs on a function or an object: what it closes over, its
    attributes, defaults and arguments, the members of its containers, and so on."""
    seen: set[int] = set()
    waiting = [("", thing, 0)]
    if isinstance(thing, torch.nn.Module):  # of one that is a patch itself, all but its weights
        kept = {**vars(thing), "_parameters": None, "_modules": None}
        waiting += [(name, part, 1) for name, part in kept.items()]
    while waiting and len(seen) < MOST_THINGS:
        name, value, depth = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if name:
            yield name, value
        if depth < DEPTH and not isinstance(value, (torch.Tensor, np.ndarray)):
            waiting += [(inner or name, part, depth + 1) for inner, part in _parts(value)]


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        return [("self", value.__self__), ("", value.__func__)]
    if isinstance(value, types.FunctionType):
        closed = [(name, cell) for name, cell in cells(value).items() if is_full(cell)]
        named = [*(value.__kwdefaults__ or {}).items(), *_defaults(value)]
        return named + [(name, cell.cell_contents) for name, cell in closed]
    if isinstance(value, functools.partial):
        args = [("", part) for part in (value.func, *value.args)]
        return [*args, *value.keywords.items()]
    if isinstance(value, dict):
        return [(key if isinstance(key, str) else "", part) for key, part in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [("", part) for part in value]
    if isinstance(value, torch.nn.Module):
        buffers = value.named_buffers(recurse=False)
        return [(name, part) for name, part in buffers if MASK.search(name)]
    if value is None or isinstance(value, WEIGHTS):
        return []
    slots = [n for base in type(value).__mro__ for n in _slots(base) if hasattr(value, n)]
    named = [(name, getattr(value, name)) for name in slots]
    return [*getattr(value, "__dict__", {}).items(), *named]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def is_full(part: Any) -> bool:
    """Whether something is a cell of a closure with a value in it."""
    if not isinstance(part, types.CellType):
        return False
    try:
        value = part.cell_contents
    except ValueError:  # the variable has no value yet
        return False
    return value is not part


def _defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    values = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return list(zip(names[len(names) - len(values) :], values, strict=True))


def cells(function: Callable) -> dict[str, types.CellType]:
    """What a function closes over, by name."""
    closure = getattr(function, "__closure__", None) or ()
    return dict(zip(function.__code__.co_freevars, closure, strict=True)) if closure else {}


def places(thing: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of what a function or an object holds that shows places of a picture."""
    for name, value in reached(thing):
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if torch.is_tensor(value) and shows_places(name, value):
            yield name, value


def shows_places(name: str, value: Tensor) -> bool:
    """Whether a tensor is a picture or a mask rather than an embedding.

    By its name, its rank, and for want of both by its values: masks lie between 0 and 1, and are
    not the same everywhere; embeddings and weights fall below 0.
    """
    if value.ndim < 2 or (value.ndim < 4 and CONTENT.search(name)):
        return False
    if value.ndim >= 4 or PLACE.search(name):
        return True
    if min(value.shape[-2:]) < 2 or value.numel() == 0:
        return False
    low, high = float(value.min()), float(value.max())
    return 0 <= low < high <= 1


def kept(running: list[Callable], carried: bool = False) -> set[str]:
    """Names of what functions set outside of themselves in one call and read in another: what they
    close over, variables of their modules, and attributes of theirs. What is only counted or noted
    is not kept.

    Args:
        running: as `functions` finds them.
        carried: leave out what a call sets before it reads it, and what it only empties.
    """
    stored: set[tuple[str, str]] = set()
    read: set[tuple[str, str]] = set()
    for function in running:
        outside = _outside(function)
        if not has_source(function) and _may_keep(function):
            return {function.__name__}
        sets, reads = accesses(function, carried)
        anew = {name for name in stored_names(function.__code__) if name in outside}
        sets = {root: names for root, names in sets.items() if root in outside or root in anew}
        stored |= {(root, name) for root, names in sets.items() for name in names}
        read |= {(root, name) for root, names in reads.items() for name in names}
    # What was put into a container is read by whatever reads the container.
    roots = {root for root, _ in read} - {"self"}
    filled = {(root, name) for root, name in stored if not name and root in roots}
    return {name or root for root, name in (stored & read) | filled}


def changed(function: Callable) -> set[str]:
    """Names from outside a function that it sets anew, or whose parts it sets or changes.

    Outside is what it closes over, what it takes from its module and, for a method, the object
    itself.
    """
    outside = _outside(function)
    found = {name for name in stored_names(function.__code__) if name in outside}
    found |= {root for root in accesses(function)[0] if root in outside}
    for node in ast.walk(tree_of(function)):
        method = node.func if isinstance(node, ast.Call) else None
        if isinstance(method, ast.Attribute) and changing(method.attr):
            found |= {root_of(method.value)} & outside
    return found


def _outside(function: Callable) -> set[str]:
    code = function.__code__
    is_method = code.co_argcount and code.co_varnames[0] == "self"
    defaults = [name for name, value in _held_by(function) if not _is_plain(value)]
    return {*code.co_freevars, *of_module(function), *defaults, *(["self"] if is_method else [])}


def memory(function: Callable) -> set[int]:
    """Identities of everything that a function can read later: cells, and objects in them."""
    found = {id(value) for _, value in reached(function) if not _is_plain(value)}
    for _, value in [("", function), *reached(function)]:
        if isinstance(value, types.FunctionType):
            found |= {id(cell) for cell in cells(value).values()}
    return found


def _is_plain(value: Any) -> bool:
    """None, numbers and text are one object for everybody."""
    return value is None or isinstance(value, (bool, int, float, str, bytes, tuple))


def _may_keep(function: Callable) -> bool:
    """Whether code that cannot be read as text writes somewhere and knows something outside."""
    code = function.__code__
    stores = {"STORE_ATTR", "STORE_SUBSCR", "STORE_DEREF", "STORE_GLOBAL"}
    writes = any(i.opname in stores for i in dis.get_instructions(code))
    writes |= any(changing(name) for name in code.co_names)
    known = [function.__globals__[name] for name in of_module(function)]
    modules = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)
    outside = any(not (_is_plain(value) or isinstance(value, modules)) for value in known)
    return writes and (outside or bool(code.co_freevars) or "self" in code.co_varnames[:1])
