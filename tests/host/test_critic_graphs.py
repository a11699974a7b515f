"""The critic's workflows on a real server, with fewer steps and no language model anywhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

API = Path(__file__).resolve().parents[2] / "workflows" / "api"


def load(name: str) -> dict:
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def small(prompt: dict) -> dict:
    """The same graph with few steps of small pictures."""
    prompt = copy.deepcopy(prompt)
    for entry in prompt.values():
        inputs = entry["inputs"]
        if entry["class_type"] == "EmptyLatentImage":
            inputs |= {"width": 64, "height": 64}
        if entry["class_type"] == "KSampler":
            inputs["steps"] = max(2, inputs["steps"] // 12)
    return prompt


@pytest.fixture(autouse=True)
def nobody(server):
    """The provider `local` at a port that nobody listens on."""
    path = server.base / "user" / "__hires_fusion" / "critic.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text('[providers.local]\nbase_url = "http://127.0.0.1:9/v1"\n')
    yield
    path.unlink()


def text_of(result, title, prompt) -> str:
    (number,) = (n for n, e in prompt.items() if e["_meta"]["title"] == title)
    return result.outputs[number]["text"][0]


def test_a_verdict_changes_the_second_pass(run):
    prompt = small(load("critic_verdict"))
    done = run(prompt)
    merged = text_of(done.result, "Merged prompt", prompt)
    assert merged == "a red hot-air balloon over snowy mountains, at sunset"
    assert text_of(done.result, "Issues", prompt).count("\n") == 1
    assert not np.array_equal(done.images["base"], done.images["refined"])


def test_criticore_without_a_model_keeps_the_prompt(run):
    prompt = small(load("critic_demo"))
    done = run(prompt)
    mine = prompt["2"]["inputs"]["value"]
    assert text_of(done.result, "Merged prompt", prompt) == mine
    report = text_of(done.result, "Report", prompt)
    assert report.count("WARNING: no model answered") == 3
    assert "nothing answers at this provider's port" in report
    assert done.images["refined"].shape == (1, 64, 64, 3)


def test_the_four_variants(run):
    prompt = load("critifusion_demo")
    assert [prompt[n]["inputs"]["steps"] for n in ("15", "16", "32", "33")] == [50, 50, 37, 37]
    assert {prompt[n]["inputs"]["denoise"] for n in ("32", "33")} == {0.74}
    done = run(small(prompt))
    names = ("1: base, tags", "2: refined, tags", "3: base, prompt", "4: refined, prompt")
    pictures = [done.images[name].tobytes() for name in names]
    assert len({*pictures}) == 4
    assert text_of(done.result, "Merged prompt", prompt) == prompt["2"]["inputs"]["value"]


def test_the_sdxl_graph_is_the_demo_graph_with_other_values(run):
    prompt, demo = load("critifusion_sdxl"), load("critifusion_demo")
    differing = {
        (number, name)
        for number in prompt.keys() | demo.keys()
        for name in prompt[number]["inputs"].keys() | demo[number]["inputs"].keys()
        if prompt[number]["inputs"].get(name) != demo[number]["inputs"].get(name)
        and name != "filename_prefix"
    }
    assert differing == {
        *(("1", "ckpt_name"), ("1", "variant"), ("2", "value"), ("3", "provider")),
        *(("10", "width"), ("10", "height"), ("12", "text"), ("32", "cfg"), ("33", "cfg")),
    }
    assert {prompt[n]["inputs"]["cfg"] for n in ("32", "33")} == {12.0}
    assert {prompt[n]["inputs"]["rho"] for n in ("40", "41")} == {0.85}
    prompt |= {"1": demo["1"], "3": demo["3"]}
    assert len(run(small(prompt)).images) == 8  # by id and by title
