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
    *("remove", "put", "send", "__setitem__", "__setattr__"),
}
ANSWERING = {"setdefault", "pop", "send"}
EMPTYING = {"pop", "clear", "remove"}

Names = dict[str, set[str]]
Aliases = dict[str, tuple[str, str]]


def changing(method: str) -> bool:
    """Whether a method of this name changes its object; torch's own end with one underscore."""
    return method in CHANGING or (method.endswith("_") and not method.endswith("__"))


def accesses(function: Callable, carried: bool = False) -> tuple[Names, Names]:
    """Variable -> attributes of it ("" for the variable or its items) that a function's source
    sets, and that it reads.

    Args:
        carried: leave out what tells one call nothing of an earlier one: what is emptied or set to
            a constant, and what is read after the same call has set it, whatever happens.
    """
    return _accesses(function.__code__, carried)


@functools.lru_cache(4096)
def _accesses(code: types.CodeType, carried: bool) -> tuple[Names, Names]:
    sets: Names = {}
    reads: Names = {}
    tree = _parsed(code)
    alias = _aliases(tree)
    parts = (ast.Name, ast.Attribute, ast.Subscript)
    targets = [
        n for n in ast.walk(tree) if isinstance(n, parts) and not isinstance(n.ctx, ast.Load)
    ]
    settled = _settled(tree, alias) if carried else {}
    reset = _reset(tree) if carried else set()
    written = {id(inner) for node in targets for inner in chain(node)}
    unused = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        method, args = call.func, call.args
        if isinstance(method, ast.Attribute) and changing(method.attr):
            if not (carried and method.attr in EMPTYING):
                targets.append(method.value)
            written |= {id(inner) for inner in chain(method)}
            if method.attr in ANSWERING or (method.attr.endswith("_") and id(call) not in unused):
                _note(reads, method.value, alias)
        elif isinstance(method, ast.Name) and method.id in ("setattr", "getattr") and args[1:]:
            name = args[1].value if isinstance(args[1], ast.Constant) else ""
            whole = ast.Attribute(args[0], str(name), ast.Load())
            _note(sets if method.id == "setattr" else reads, whole, alias)
        elif isinstance(method, ast.Name) and method.id == "len":
            written |= {id(inner) for arg in args for inner in chain(arg)}  # counted, not read
    for node in targets:
        if id(node) not in reset:
            _note(sets, node, alias)
    # x.a.b reads x.a: of every chain that is read, the first attribute counts.
    within = {id(n.value) for n in ast.walk(tree) if isinstance(n, (ast.Attribute, ast.Subscript))}
    apart = [n for n in ast.walk(tree) if isinstance(n, parts) and id(n) not in within | written]
    for node in apart:
        if node.lineno <= settled.get(_named(node, alias), node.lineno):
            _note(reads, node, alias)
    return sets, reads


def _note(found: Names, node: ast.AST, alias: Aliases) -> None:
    """Add a chain's variable and the first attribute of it."""
    bare = isinstance(node, ast.Name) and node.id in alias  # the local name itself, set or read
    if not (bare and isinstance(node.ctx, ast.Store)):
        root, name = _named(node, alias)
        found.setdefault(root, set()).add(name)


def _named(node: ast.AST, alias: Aliases) -> tuple[str, str]:
    """A chain's variable and the first attribute of it."""
    named = [inner.attr for inner in chain(node) if isinstance(inner, ast.Attribute)]
    root, first = alias.get(root_of(node), (root_of(node), ""))
    return root, first or (named[-1] if named else "")


def _settled(tree: ast.AST, alias: Aliases) -> dict[tuple[str, str], int]:
    """Variable and attribute -> the line by which every call has set it."""
    found: dict[tuple[str, str], int] = {}
    waiting = [statement for function in tree.body for statement in getattr(function, "body", [])]
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.With):
            waiting += statement.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value:
            for target in getattr(statement, "targets", None) or [statement.target]:
                for part in getattr(target, "elts", [target]):
                    key, line = _named(part, alias), statement.end_lineno
                    found[key] = min(line, found.get(key, line))
    return found


def _reset(tree: ast.AST) -> set[int]:
    """Identities of what is deleted, or set to a constant."""
    found = {id(n) for d in ast.walk(tree) if isinstance(d, ast.Delete) for n in d.targets}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.Assign)):
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            found |= {id(part) for part, value in pairs if isinstance(value, ast.Constant)}
    return found


def _aliases(tree: ast.AST) -> Aliases:
    """Local names for parts of something else: `kept = self.state` -> (self, state)."""
    found = {}
    declared = (n.names for n in ast.walk(tree) if isinstance(n, (ast.Global, ast.Nonlocal)))
    outer = {name for names in declared for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute)):
            named = [i.attr for i in chain(node.value) if isinstance(i, ast.Attribute)]
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id not in {*outer, root_of(node.value)}:
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
