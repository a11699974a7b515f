"""Other implementations of the same work, run as they lie in the host or its environment.

None of their code is here: an adapter finds a node by its name among those that the host has
loaded, and fills what it is not told with the node's own defaults.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import ROOT
from ..pack import Session


class Absent(RuntimeError):
    """What was to be compared with is not on this machine."""


class Other(NamedTuple):
    """A node of another pack that takes a MODEL and returns one.

    Attributes:
        label: name of its row.
        node: id of the node class.
        values: its widgets; "{native}" and "{overlap}" stand for the native size and half of it
            in pixels.
    """

    label: str
    node: str
    values: dict[str, Any]


KNOWN = (
    Other(
        "ComfyUI-TiledDiffusion, MultiDiffusion",
        "TiledDiffusion",
        {
            "method": "MultiDiffusion",
            "tile_width": "{native}",
            "tile_height": "{native}",
            "tile_overlap": "{overlap}",
        },
    ),
)


def load_packs(folders: Sequence[Path] = ()) -> list[str]:
    """Let the host load the packs in its custom_nodes and in further folders; their names.

    Ours is left out: it is here already.
    """
    import folder_paths

    # The host's module. A statement would name our own room.
    host = importlib.import_module("nodes")
    found = []
    for folder in [*map(Path, folder_paths.get_folder_paths("custom_nodes")), *folders]:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            is_pack = (path / "__init__.py").is_file() and not path.name.startswith((".", "__"))
            if not is_pack or path.name.endswith(".disabled") or path.resolve() == ROOT.resolve():
                continue
            if asyncio.run(host.load_custom_node(str(path))):
                found.append(path.name)
            else:
                logging.warning("%s did not load: its nodes count as absent", path.name)
    return found


def node_class(name: str) -> type | None:
    """A node class that the host has loaded."""
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS.get(name)


def patched(session: Session, other: Other, batch: int) -> Any:
    """The session's MODEL as the other node returns it.

    Args:
        batch: views a call, for nodes that ask for it (`tile_batch_size`).

    Raises:
        Absent: the host has no such node.
        ValueError: a required input is neither given nor has a default.
    """
    found = node_class(other.node)
    if found is None:
        raise Absent(f"the host has no node {other.node}")
    sizes = {"{native}": session.native * 8, "{overlap}": session.native * 4}
    given = {"tile_batch_size": batch, "model": session.model}
    given |= {key: sizes.get(value, value) for key, value in other.values.items()}
    return getattr(found(), found.FUNCTION)(**fill(found, given))[0]


def fill(node: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The required inputs of a node class: what is given, else the node's own default.

    Raises:
        ValueError: an input is neither given nor has a default.
    """
    arguments: dict[str, Any] = {}
    for name, (kind, *options) in node.INPUT_TYPES().get("required", {}).items():
        options = options[0] if options else {}
        if name in given:
            arguments[name] = given[name]
        elif "default" in options:
            arguments[name] = options["default"]
        elif isinstance(kind, (list, tuple)):
            arguments[name] = kind[0]
        else:
            raise ValueError(
                f"{node.__name__} needs its input {name} ({kind}): it can't be guessed"
            )
    return arguments
