"""What a Python function sets and reads outside of itself, told from its source."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator

# Methods that change what they are called on, and those of them that answer with what it held.
CHANGING = {
    *("append", "appendleft", "extend", "insert", "update", "setdefault", "add", "pop", "clear"),
    *("remove", "put", "send", "copy_", "fill_", "set_", "__setitem__", "__setattr__"),
}
ANSWERING = {"setdefault", "pop", "send"}


Names = dict[str, set[str]]


def accesses(function: Callable) -> tuple[Names, Names]:
    """Variable -> attributes of it ("" for the variable or its items) that a function's source
    sets, and that it reads."""
    return _accesses(function.__code__)


@functools.lru_cache(4096)
def _accesses(code: types.CodeType) -> tuple[Names, Names]:
    sets: Names = {}
    reads: Names = {}
    tree = _parsed(code)
    alias = _aliases(tree)
    parts = (ast.Name, ast.Attribute, ast.Subscript)
    targets = [
        n for n in ast.walk(tree) if isinstance(n, parts) and not isinstance(n.ctx, ast.Load)
    ]
    written = {id(inner) for node in targets for inner in chain(node)}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        method, args = call.func, call.args
        if isinstance(method, ast.Attribute) and method.attr in CHANGING:
            targets.append(method.value)
            written |= {id(inner) for inner in chain(method)}
            if method.attr in ANSWERING:
                _note(reads, method.value, alias)
        elif isinstance(method, ast.Name) and method.id in ("setattr", "getattr") and args[1:]:
            name = args[1].value if isinstance(args[1], ast.Constant) else ""
            whole = ast.Attribute(args[0], str(name), ast.Load())
            _note(sets if method.id == "setattr" else reads, whole, alias)
        elif isinstance(method, ast.Name) and method.id == "len":
            written |= {id(inner) for arg in args for inner in chain(arg)}  # counted, not read
    for node in targets:
        _note(sets, node, alias)
    # x.a.b reads x.a: of every chain that is read, the first attribute counts.
    within = {id(n.value) for n in ast.walk(tree) if isinstance(n, (ast.Attribute, ast.Subscript))}
    for node in ast.walk(tree):
        if isinstance(node, parts) and id(node) not in within and id(node) not in written:
            _note(reads, node, alias)
    return sets, reads


def _note(found: Names, node: ast.AST, alias: dict[str, tuple[str, str]]) -> None:
    """Add a chain's variable and the first attribute of it."""
    named = [inner.attr for inner in chain(node) if isinstance(inner, ast.Attribute)]
    name = named[-1] if named else ""
    root, first = alias.get(root_of(node), (root_of(node), ""))
    bare = isinstance(node, ast.Name) and node.id in alias  # the local name itself, set or read
    if not (bare and isinstance(node.ctx, ast.Store)):
        found.setdefault(root, set()).add(first or name)


def _aliases(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """Local names for parts of something else: `kept = self.state` -> (self, state)."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute)):
            named = [i.attr for i in chain(node.value) if isinstance(i, ast.Attribute)]
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id != root_of(node.value):
                    found[target.id] = (root_of(node.value), named[-1] if named else "")
    return found


def chain(node: ast.AST) -> Iterator[ast.AST]:
    """x.a[0].b, x.a[0], x.a, x."""
    while True:
        yield node
        if not isinstance(node, (ast.Attribute, ast.Subscript)):
            return
        node = node.value


def stored_names(code: types.CodeType) -> Iterator[str]:
    """Names of the variables of outer functions and of the module that code, or a function in it,
    sets anew."""
    stores = ("STORE_DEREF", "STORE_GLOBAL")
    yield from (i.argval for i in dis.get_instructions(code) if i.opname in stores)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from (name for name in stored_names(inner) if name not in inner.co_cellvars)


def of_module(function: Callable) -> set[str]:
    """Names of its module's variables that a function's code takes or sets."""
    return set(function.__code__.co_names) & set(function.__globals__)


def has_source(function: Callable) -> bool:
    """Whether the text of a function is to be had."""
    return bool(tree_of(function).body)


def tree_of(function: Callable) -> ast.AST:
    """A function's source, parsed; an empty module where there is none to be had."""
    return _parsed(function.__code__)


@functools.lru_cache(4096)
def _parsed(code: types.CodeType) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])  # no source, or a lambda amid a line: nothing is known


def root_of(node: ast.AST) -> str:
    """The variable that a chain of attributes, items and calls begins with; type(x) is x."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        if not isinstance(node, ast.Call):
            node = node.value
        elif node.args and getattr(node.func, "id", "") == "type":
            node = node.args[0]
        else:
            node = node.func
    return node.id if isinstance(node, ast.Name) else ""
