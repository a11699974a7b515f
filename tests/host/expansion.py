"""What a composite expands into, without a server."""

from __future__ import annotations

import json

import torch

from hires_fusion.nodes.progressive import expand_stages

from .stub import cond, patcher


class Vae:
    """What a composite asks of a VAE before it expands."""

    latent_channels = 4

    def spacial_compression_decode(self):
        return 8


LINKED = ("model", "positive", "negative", "samples", "vae", "upscale_model", "image")
WIRES = {name: [name, 0] for name in LINKED}


def expand(model=None, samples=None, **changes):
    """(class, inputs) of the nodes of a composite's expansion, by their names."""
    settings = {
        "scale": 2.0,
        "preset": "DemoFusion",
        "noise_seed": 1,
        "steps": 10,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "positive": cond(),
        "negative": cond(),
    } | changes
    model = model or patcher(None, native_size=256)
    samples = {"samples": torch.ones(1, 4, 32, 24) if samples is None else samples}
    graph = expand_stages(WIRES, model=model, samples=samples, **settings).expand
    prefix = next(iter(graph)).rpartition(".")[0] + "."  # another one for each expansion
    graph = json.loads(json.dumps(graph).replace(prefix, ""))
    return {name: (n["class_type"], n["inputs"]) for name, n in graph.items()}


def first(nodes, kind):
    """Inputs of the only node of a class, None without one."""
    found = [inputs for name, inputs in nodes.values() if name == kind]
    assert len(found) <= 1
    return found[0] if found else None
