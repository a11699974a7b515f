"""The graphs for real checkpoints run, with a tiny random model of their family as the loader."""

from __future__ import annotations

import pytest

from tools import ready
from tools.families import FAMILIES, SDXL_REFINER
from tools.ready import GRAPHS

from .families import FAMILIES as TINY
from .graphs import load
from .test_workflows import drawn

# Rows of tools.families -> families of the tests.
KNOWN = {
    **{"sdxl": "SDXL", "sd15": "SD 1.5", "flux": "Flux", "klein": "Flux 2"},
    **{"z_image": "Z-Image", "qwen": "Qwen-Image"},
}
LOADERS = ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader")
OUTPUTS = {"CLIPLoader": 1, "DualCLIPLoader": 1, "VAELoader": 2}


def tiny(name: str) -> dict:
    """A ready graph with tiny models, two steps and small pictures."""
    prompt = load(name)
    family = KNOWN[GRAPHS[name][1]]
    side = TINY[family].cells * TINY[family].cell
    slots = {n: OUTPUTS.get(e["class_type"], 0) for n, e in prompt.items()}
    first = next(n for n, e in prompt.items() if e["class_type"] in LOADERS)
    for entry in prompt.values():
        kind, inputs = entry["class_type"], entry["inputs"]
        for key, value in inputs.items():
            if isinstance(value, list) and slots[value[0]]:
                inputs[key] = [first, slots[value[0]]]  # one node stands for three loaders
            if key in ("width", "height") and isinstance(value, int):
                inputs[key] = side
            if key == "steps" and value:
                inputs[key] = 2
        if kind == "ImageScaleToTotalPixels":
            inputs["megapixels"] = max(0.01, round(side**2 / 2**20, 2))
        if kind == "HRF_ProgressiveUpscale":
            inputs |= {"scale": 2.0, "steps": 2}
        if kind == "ControlNetLoader":
            entry |= {"class_type": "HRFT_RandomControlNet", "inputs": {"model": [first, 0]}}
        if kind == "HRF_CriticProvider":
            inputs["provider"] = "local"
    for entry in list(prompt.values()):
        if entry["class_type"] in LOADERS:
            refiner = entry["inputs"].get("ckpt_name") == SDXL_REFINER.rsplit("/", 1)[-1]
            made = {"family": "SDXL refiner" if refiner else family}
            entry |= {"class_type": "HRFT_TinyFamily", "inputs": made}
            if any(e["class_type"] == "HRF_CritiCore" for e in prompt.values()):
                # The critic counts tokens: only a real text encoder has some.
                entry |= {"class_type": "HRF_LoadDemoModel", "inputs": {"variant": "base"}}
    return prompt


@pytest.mark.parametrize("name", GRAPHS)
def test_a_ready_graph_runs_on_its_family(server, name):
    ((picture,),) = drawn(server, tiny(name)).values()
    family = TINY[KNOWN[GRAPHS[name][1]]]
    side = family.cells * family.cell
    if any(e["class_type"] == "HRF_ProgressiveUpscale" for e in load(name).values()):
        assert max(picture.shape) >= 1.8 * side
    assert picture.std() > 3


@pytest.mark.parametrize("name", GRAPHS)
def test_files_are_what_the_makers_make(name):
    made, written = ready.make(name), load(name)
    assert {n: e["_meta"] for n, e in made.items()} == {n: e["_meta"] for n, e in written.items()}
    for number, entry in made.items():
        assert entry["inputs"].items() <= written[number]["inputs"].items()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_ready_graph_is_small_and_says_what_to_change(name):
    prompt = load(name)
    assert len(prompt) <= 12 or name == "sdxl_critifusion"
    groups = [e["_meta"]["group"] for e in prompt.values() if "group" in e["_meta"]]
    assert [g for g in groups if g in (ready.MODEL, ready.PROMPT, ready.NATIVE)] == [
        *(ready.MODEL, ready.PROMPT, ready.NATIVE)
    ]
    assert groups[-1].startswith("4 ")
    note = next(e["_meta"]["note"] for e in prompt.values() if "note" in e["_meta"])
    assert "\n1. " in note and "\n3. " in note and "\n4. " not in note
    assert FAMILIES[GRAPHS[name][1]].source in note
    for entry in prompt.values():
        models = entry["_meta"].get("models", [])
        named = [v for k, v in entry["inputs"].items() if k.split("_")[-1].startswith("name")]
        if entry["class_type"] in (*LOADERS, "ControlNetLoader"):
            assert [m["name"] for m in models] == named
        for model in models:
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].endswith("/" + model["name"]) and model["directory"]
