"""The workflows of the fusers, on a real server with the demo model and fewer steps."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from tools.client import PromptError, submit

API = Path(__file__).resolve().parents[2] / "workflows" / "api"


def load(name: str) -> dict:
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def small(prompt: dict) -> dict:
    """The same graph with few steps of small pictures."""
    prompt = copy.deepcopy(prompt)
    for entry in prompt.values():
        inputs = entry["inputs"]
        if entry["class_type"] == "EmptyLatentImage":
            inputs |= {"width": 96, "height": 64}
        if entry["class_type"] == "KSampler" and isinstance(inputs["steps"], int):
            inputs["steps"] = max(2, inputs["steps"] // 10)
    return prompt


def kinds(prompt: dict) -> dict:
    return {n: entry["class_type"] for n, entry in prompt.items()}


def test_base_refiner_and_both_fusers(run):
    prompt = small(load("base_refiner_demo"))
    assert [prompt[n]["inputs"]["denoise"] for n in ("6", "12")] == [1.0, 0.3]
    prompt["maps"] = {"class_type": "SaveImage", "inputs": {"images": ["18", 0]}}
    prompt["maps"]["inputs"]["filename_prefix"] = "maps"
    images = run(prompt).images
    base, refined, agf, dsf = (images[t][0] for t in ("base", "refined", "AGF", "DSF"))
    assert base.shape == (64, 96, 3)
    pictures = [p.tobytes() for p in (base, refined, agf, dsf)]
    assert len({*pictures}) == 4
    between = [np.abs(f - base).mean() + np.abs(f - refined).mean() for f in (agf, dsf)]
    assert max(between) < 2 * np.abs(base - refined).mean()
    assert images["maps"].shape == (1, 8, 12, 3)


@pytest.mark.parametrize(("mode", "seed", "title"), [("blend", 0, "AGF"), ("published", 5, "DSF")])
def test_the_modes_of_a_fuser(run, mode, seed, title):
    prompt = small(load("base_refiner_demo"))
    first = run(prompt).images
    node = {"AGF": "15", "DSF": "20"}[title]
    prompt[node]["inputs"] |= {"mode": mode, "ratio": 1.0, "seed": seed}
    again = run(prompt).images
    assert np.array_equal(first["base"], again["base"])
    assert not np.array_equal(first[title], again[title])
    if mode == "blend":
        assert np.array_equal(again[title], again["refined"])


def test_specfusion_and_cadr(run):
    prompt = small(load("specfusion_demo"))
    prompt["spectra"] = {"class_type": "SaveImage", "inputs": {"images": ["12", 1]}}
    prompt["spectra"]["inputs"]["filename_prefix"] = "spectra"
    images = run(prompt).images
    assert len({images[t].tobytes() for t in ("base", "refined", "fused", "by CADR")}) == 4
    height, width = images["spectra"].shape[1:3]
    assert width > 3 * 256 and height >= 8 * 22  # three panels of 8 x 12 frequencies
    prompt["12"]["inputs"] |= {"rho": 1.0, "noise": 0.0}
    images = run(prompt).images
    assert np.array_equal(images["refined"], images["fused"])


def test_the_sdxl_graph_is_the_demo_graph_with_other_loaders(run, server):
    prompt, demo = load("sdxl_base_refiner"), load("base_refiner_demo")
    with pytest.raises(PromptError) as refused:
        submit(server, prompt)
    told = str(refused.value)
    assert "ckpt_name" in told and "value_not_in_list" in told.lower().replace(" ", "_")
    loaders = {n: e for n, e in prompt.items() if e["class_type"] == "CheckpointLoaderSimple"}
    assert {e["inputs"]["ckpt_name"] for e in loaders.values()} == {
        "sd_xl_base_1.0.safetensors",
        "sd_xl_refiner_1.0.safetensors",
    }
    for number in loaders:
        prompt[number] = demo[number]
    assert kinds(prompt) == kinds(demo)
    links = [
        {
            (n, name): value
            for n, entry in graph.items()
            for name, value in entry["inputs"].items()
            if isinstance(value, list) and not (name == "model" and n in ("15", "20"))
        }
        for graph in (prompt, demo)
    ]
    assert links[0] == links[1]
    images = run(small(prompt)).images
    assert {"base", "refined", "AGF", "DSF"} <= images.keys()
