"""Functions that other nodes hung on a MODEL, and views: refused, shared, or given their part.

Inside the network a function sees one call, which with views is some of them at once. It works if
it needs no more than that call. It does not if it holds a picture or a mask of the whole canvas,
or if it keeps something for a later call. The host's own are in `table.PATCHES`; others are judged
by what they hold and write (`held`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from . import held
from .cuts import Views, extended, mask_of_views, origin
from .plan import KEY
from .table import NATIVE_ONLY, OBJECTS, OPTIONS, PATCHES, WRAPPER_KEYS, Refused

# Names of what keeps a model call's result for the next one.
CACHE = re.compile(r"cache|previous|prev_|last_", re.I)

# model_options whose functions act on the whole canvas, once a step.
ON_CANVAS = (
    *("sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_cfg_function"),
    *("sampler_calc_cond_batch_function", "denoise_mask_function"),
)
# Wrappers around each model call; others are around the whole of a step or a run.
AROUND_CALLS = (*(WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL, WrappersMP.CALC_COND_BATCH),)


def check(model_options: dict[str, Any], hooks: list[Any] = ()) -> None:
    """Raise ValueError, with the fix, for a function or an option that views would get wrong.

    Args:
        model_options: of the MODEL.
        hooks: HookGroups of the conds.
    """
    if getattr(model_options.get("context_handler"), "dim", 0) >= 3:
        raise ValueError(
            "context windows over height or width are views already: remove them, or give them "
            "the dimension of the frames"
        )
    on_canvas = list(_on_canvas(model_options))
    for options in _every_options(model_options, hooks):
        _check_options(options)
        wrappers = options.get("wrappers", {})
        for kind, keyed in wrappers.items():
            _check_wrappers(kind, keyed)
        on_canvas += _flat(wrappers.get(WrappersMP.PREDICT_NOISE, {}))
    for options in _hooked(hooks):
        for _, patch in _inside(options):
            if any(_masks(given) for given in given_by(patch)):
                raise _refusal(patch, f"its mask cannot be cut inside a hook; {NATIVE_ONLY}")
    around = model_options.get("model_function_wrapper")
    if around is not None:
        _check_inside(around, keeps=False)
    for function in on_canvas:
        _by_table(function)
    for _, patch in _of_calls(model_options, hooks):
        _check_memory(patch, on_canvas)


def check_objects(replaced: dict[str, Any]) -> None:
    """The same for what nodes put in place of the model's own parts, by their dotted names."""
    for name, part in replaced.items():
        if name not in OBJECTS and held.functions(part):
            _check_inside(part, keeps=False)


def stranger(model: Any, model_options: dict[str, Any], hooks: list[Any] = ()) -> Any | None:
    """A function of single calls that no table and no known form tells about, or None.

    Such a one may look at all pictures of a call at once, as Style Aligned does: the host shows it
    pictures of a batch, and views must not be taken for them.

    Args:
        model: the MODEL, for the parts of it that nodes replaced.
        model_options: of the run.
        hooks: HookGroups of the conds.
    """
    replaced = (part for name, part in model.object_patches.items() if name not in OBJECTS)
    found = [part for part in replaced if held.functions(part)]
    found += [f for key, f in _of_calls(model_options, hooks) if key not in WRAPPER_KEYS]
    return next((f for f in found if not (_by_table(f) or given_by(f) or _is_ours(f))), None)


def _is_ours(function: Any) -> bool:
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.startswith(__package__.rpartition(".")[0])


def for_views(model_options: dict[str, Any], views: Views, batch: int, chosen: slice) -> dict:
    """The model_options with the masks of attention patches cut for the chosen views.

    Known by their form are the patches of IPAdapter and its kin: objects with a list `kwargs` of
    what their functions are given, among it `mask`, (M, h, w) of the whole picture, and per
    picture of a batch `weight` and, if `unfold_batch`, `cond`, `uncond` and `cond_alt`.
    """
    options = model_options.get("transformer_options", {})
    changed = {
        id(patch): _given_parts(patch, views, batch, chosen)
        for _, patch in _inside(options)
        if any(_needs_cutting(given) for given in given_by(patch))
    }
    if not changed:
        return model_options

    def exchanged(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: exchanged(part) for key, part in value.items()}
        if isinstance(value, list):
            return [exchanged(part) for part in value]
        return changed.get(id(value), value)

    parts = {name: exchanged(options.get(name, {})) for name in ("patches", "patches_replace")}
    return model_options | {"transformer_options": options | parts}


def given_by(patch: Any) -> list[dict[str, Any]]:
    """What an IPAdapter-like patch gives its functions; nothing for any other."""
    listed = getattr(patch, "kwargs", None)
    known = isinstance(listed, list) and all(isinstance(given, dict) for given in listed)
    return listed if known and hasattr(patch, "callback") else []


def _needs_cutting(given: dict[str, Any]) -> bool:
    return bool(_masks(given)) or any(len(part) > 1 for part in _per_picture(given))


def _masks(given: dict[str, Any]) -> list[Tensor]:
    return [part for name, part in given.items() if "mask" in name and torch.is_tensor(part)]


def _per_picture(given: dict[str, Any]) -> list[Tensor]:
    names = ["weight", *(("cond", "uncond") if given.get("unfold_batch") else ())]
    found = [given.get(name) for name in names]
    found += (given.get("cond_alt") or {}).values() if given.get("unfold_batch") else []
    return [part for part in found if torch.is_tensor(part) and part.ndim]


def _given_parts(patch: Any, views: Views, batch: int, chosen: slice) -> Any:
    """A copy of the patch that gives its functions the chosen views' parts."""
    count = len(views.origins[chosen])

    def cut(name: str, part: Any, pictures: list[int]) -> Any:
        if isinstance(part, dict) and name == "cond_alt":
            return {key: cut(name, inner, pictures) for key, inner in part.items()}
        if not torch.is_tensor(part):
            return part
        if "mask" in name:
            return mask_of_views(part, views, batch, chosen)
        if id(part) in pictures and len(part) > 1:
            return torch.cat([extended(part, batch)] * count)
        return part

    def all_cut(given: dict[str, Any]) -> dict[str, Any]:
        pictures = [id(part) for part in _per_picture(given)]
        return {name: cut(name, part, pictures) for name, part in given.items()}

    out = copy.copy(patch)
    out.kwargs = [all_cut(given) for given in patch.kwargs]
    if getattr(patch, "multigpu_kwargs", None):
        copies = patch.multigpu_kwargs.items()
        out.multigpu_kwargs = {at: [all_cut(given) for given in all_] for at, all_ in copies}
    return out


def _every_options(model_options: dict[str, Any], hooks: list[Any]) -> list[dict[str, Any]]:
    """The transformer_options of the model, and those that hooks bring."""
    return [model_options.get("transformer_options", {}), *_hooked(hooks)]


def _of_calls(model_options: dict[str, Any], hooks: list[Any]) -> Iterator[tuple[Any, Any]]:
    """(key, function) of all that see single model calls; the key of a wrapper, None of others."""
    for options in _every_options(model_options, hooks):
        yield from ((None, patch) for _, patch in _inside(options))
        for kind in AROUND_CALLS:
            keyed = options.get("wrappers", {}).get(kind, {})
            yield from ((key, one) for key, listed in keyed.items() for one in _flat(listed))
    around = model_options.get("model_function_wrapper")
    if around is not None:
        yield None, around


def _hooked(hooks: list[Any]) -> Iterator[dict[str, Any]]:
    """The transformer_options that hooks of conds bring."""
    for group in hooks:
        for hook in getattr(group, "hooks", []):
            yield getattr(hook, "transformers_dict", None) or {}


def _on_canvas(model_options: dict[str, Any]) -> Iterator[Callable]:
    for name in ON_CANVAS:
        found = model_options.get(name)
        yield from found if isinstance(found, (list, tuple)) else [found] if found else []


def _inside(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(kind, patch) of every patch inside the network."""
    for kind, listed in options.get("patches", {}).items():
        yield from ((kind, patch) for patch in _flat(listed))
    for kind, blocks in options.get("patches_replace", {}).items():
        yield from ((kind, patch) for patch in _flat(blocks))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, set)):
        yield value
        return
    for part in value:
        yield from _flat(part)


def _check_options(options: dict[str, Any]) -> None:
    for _, patch in _inside(options):
        _check_inside(patch, keeps=True)
    for name, value in options.items():
        rule = OPTIONS.get(name)
        if isinstance(rule, Refused):
            raise ValueError(f"HiRes Fusion views cannot use the model option '{name}': {rule.why}")
        if rule is not None or str(name).startswith(KEY):
            continue
        found = next(held.places({name: value}), None)
        room = isinstance(value, dict) and not value  # for patches to leave something in
        if found is None and not room and not CACHE.search(name):
            continue
        holds = f"it holds '{found[0]}' {tuple(found[1].shape)}" if found else "it keeps something"
        raise ValueError(
            f"HiRes Fusion views do not know the model option '{name}', and {holds}, which would "
            f"be another view's: remove the node that sets it, or {NATIVE_ONLY}"
        )


def _check_wrappers(kind: str, wrappers: dict[str, list[Callable]]) -> None:
    for key, function in ((key, one) for key, listed in wrappers.items() for one in listed):
        if str(key).startswith(KEY):
            continue
        if kind not in AROUND_CALLS:
            _by_table(function)
            continue
        known = PATCHES.get(WRAPPER_KEYS.get(key))
        if isinstance(known, Refused):
            raise _refusal(function, known.why)
        if known is None:
            if CACHE.search(str(key)):
                raise _refusal(function, _KEEPS)
            _check_inside(function, keeps=False)


_KEEPS = (
    "it keeps something of one model call for the next, which with views is another part of the "
    "picture: leave it out (of caches LazyCache works, which keeps whole steps)"
)


def _by_table(function: Any) -> bool:
    """Whether the host's table knows a function; raises if it refuses it."""
    inner = getattr(function, "func", function)  # of a partial
    kind = inner if hasattr(inner, "__qualname__") else type(inner)
    module = (getattr(kind, "__module__", "") or "").rpartition(".")[2]
    rule = PATCHES.get(f"{module}.{kind.__qualname__.split('.')[0]}")
    if isinstance(rule, Refused):
        raise _refusal(function, rule.why)
    return rule is not None


def _check_inside(patch: Any, keeps: bool) -> None:
    """Judge a function that sees single calls. One inside the network, `keeps`, may note
    something for another patch of its call, but may not read what it noted itself the last time
    that it ran; one around calls has nobody to hand anything to."""
    if _by_table(patch) or given_by(patch):
        return
    if hasattr(patch, "encoded_image_size"):
        raise _refusal(patch, f"every view would get the whole image; {NATIVE_ONLY}")
    for name, value in held.places(patch):
        why = f"it holds '{name}' {tuple(value.shape)}, and views cannot tell how to cut that"
        raise _refusal(patch, f"{why}; {NATIVE_ONLY}")
    running = held.functions(patch)
    if held.kept(running, carried=keeps) or any(CACHE.search(n) for n in held.kept(running)):
        raise _refusal(patch, _KEEPS)


def _check_memory(patch: Any, on_canvas: list[Callable]) -> None:
    """Refuse what a function inside the network writes for one that acts on the whole canvas:
    it would be of the last views, and of all of them in one."""
    for function in held.functions(patch):
        changed = held.changed(function)
        cells = held.cells(function)
        own = [cells[name] for name in changed if name in cells]
        if "self" in changed:
            own.append(patch.__self__ if hasattr(patch, "__self__") else patch)
        shared = {id(thing) for thing in own}
        shared |= {id(c.cell_contents) for c in own if held.is_full(c)}
        for other in on_canvas:
            if shared & held.memory(other):
                raise _refusal(
                    patch,
                    f"{origin(other)} takes what it kept of the last model call for that of the "
                    "whole picture: leave the node that sets both out",
                )


def _refusal(patch: Any, why: str) -> ValueError:
    return ValueError(f"HiRes Fusion views cannot use {origin(patch)}: {why}")
