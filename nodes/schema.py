"""Schemas that older and newer hosts both accept."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

ROOT = "HiRes Fusion"
_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(*, category: str = "", **fields) -> io.Schema:
    """An io.Schema in our menu, without the fields that this host doesn't know yet."""
    fields["category"] = f"{ROOT}/{category}" if category else ROOT
    if fields.get("is_dev_only") and "is_dev_only" not in _KNOWN:
        fields["is_deprecated"] = True  # what else keeps a node out of the search
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


def advanced(widget: io.Input) -> io.Input:
    """The input, marked as one that hosts which can fold advanced widgets away may fold."""
    widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget
