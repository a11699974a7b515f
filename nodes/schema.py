"""Schemas that older and newer hosts both accept."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

ROOT = "HiRes Fusion"
_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(*, category: str = "", **fields) -> io.Schema:
    """An io.Schema in our menu, without the fields that this host doesn't know yet."""
    fields["category"] = f"{ROOT}/{category}" if category else ROOT
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


def advanced(**options) -> dict:
    """Input options that mark a widget as advanced, where the host can fold those away."""
    return {"extra_dict": {"advanced": True}, **options}
