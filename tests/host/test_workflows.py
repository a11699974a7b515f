"""Every workflow file runs: on the demo model, in few steps, with what it needs from elsewhere
replaced by something small."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from tools import ready, templates
from tools.client import fetch, submit, title_of

from .graphs import load

# Those for checkpoints of all families: see test_ready.
NAMES = sorted(name for name in templates.NAMES if name not in ready.GRAPHS)
FEW = {"steps": 3, "num_resample_timesteps": 3}
# A picture of SDXL's size on the model that stands in for it.
SHRINK, LARGEST = 4, 1024


def small(prompt: dict) -> dict:
    """The workflow with few steps, on the demo model, in place."""
    for node in prompt.values():
        inputs = node["inputs"]
        for name, most in FEW.items():
            if isinstance(inputs.get(name), int):
                inputs[name] = min(inputs[name], most)
        for name in ("width", "height"):
            if isinstance(inputs.get(name), int) and inputs[name] >= LARGEST:
                inputs[name] //= SHRINK
        if node["class_type"] == "HRF_CriticProvider":
            inputs["provider"] = "local"  # which needs no key, and at which nobody listens
        if node["class_type"] == "CheckpointLoaderSimple":
            node |= {"class_type": "HRF_LoadDemoModel", "inputs": {}}
    demo = next((n for n, e in prompt.items() if e["class_type"] == "HRF_LoadDemoModel"), None)
    for node in prompt.values():
        if node["class_type"] == "ControlNetLoader":
            node |= {"class_type": "HRFT_RandomControlNet", "inputs": {"model": [demo, 0]}}
    return prompt


def drawn(server, prompt: dict) -> dict[str, list[np.ndarray]]:
    """The pictures of each SaveImage node, (H, W, 3) in 0..255, by its title."""
    result = submit(server, prompt).raise_for_error()
    return {
        title_of(prompt, node): [
            np.asarray(Image.open(io.BytesIO(fetch(server, file))).convert("RGB"), np.float32)
            for file in result.files(node)
        ]
        for node in result.outputs
        if prompt[node]["class_type"] == "SaveImage"  # not the previews of maps
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs(server, name):
    prompt = small(load(name))
    pictures = drawn(server, prompt)
    assert pictures.keys() == {
        title_of(prompt, n) for n, entry in prompt.items() if entry["class_type"] == "SaveImage"
    }
    assert all(picture.std() > 3 for found in pictures.values() for picture in found)


def test_a_controlnet_reaches_the_larger_stages(server):
    prompt = small(load("repldm_controlnet"))
    larger = next(n for n, e in prompt.items() if e["class_type"] == "HRF_ProgressiveUpscale")
    prompt[larger]["inputs"]["init_rates"] = "0.34"  # so that three steps have some noise to lose
    with_edges = drawn(server, prompt)
    prompt[larger]["inputs"] |= {"positive": ["2", 0], "negative": ["3", 0]}
    without = drawn(server, prompt)
    assert np.array_equal(with_edges["native"], without["native"])
    assert np.abs(with_edges["final"][0] - without["final"][0]).max() > 2


def test_the_graph_by_hand_is_the_node_as_its_note_says(server):
    """The note names the seed that makes both pictures the same, and says why."""
    text = templates.graph("demofusion_by_hand").read_text(encoding="utf-8")
    claim = r"\*noise_seed\* (\d+) and \*scale\* (\d+),.*\(it adds .*: (\d+) \+ (\d+) = (\d+)\)"
    seed, scale, again, number, total = map(int, re.search(claim, text).groups())
    assert seed == again and seed + number == total
    prompt = small(load("demofusion_by_hand"))
    node = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "samples": ["5", 0]}
    node |= {"scale": float(scale), "preset": "DemoFusion", "noise_seed": seed, "steps": 3}
    node |= {"cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform"}
    node |= {"view_batch_size": 0}
    prompt["node"] = {"class_type": "HRF_ProgressiveUpscale", "inputs": node}
    for name, latent in (("by hand", "15"), ("node", "node")):
        prompt[f"{name} shown"] = {
            "class_type": "VAEDecode",
            "inputs": {"samples": [latent, 0], "vae": ["1", 2]},
        }
        prompt[f"{name} saved"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"{name} shown", 0], "filename_prefix": "same"},
            "_meta": {"title": name},
        }
    pictures = drawn(server, prompt)
    assert np.array_equal(pictures["by hand"], pictures["node"])
