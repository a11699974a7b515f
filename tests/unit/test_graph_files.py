"""Graph files that the page saves, as what the server runs; or refused by what only it knows."""

from __future__ import annotations

import json

import pytest

from tools.runs import graphs

from .small_host import INFO, node

PROMPT = {"1": node("CLIPTextEncode", "Prompt", text="a boat", clip=["9", 1])}


def write(folder, text):
    path = folder / "workflow.json"
    path.write_text(text, encoding="utf-8")
    return path


def graph(**changes):
    """Prompt -> Draw through a reroute, as the page saves it."""

    def socket(name, link=None):
        return {"name": name, "link": link}

    nodes = [
        {"id": 1, "type": "CLIPTextEncode", "title": "Prompt", "inputs": [socket("clip")],
         "widgets_values": ["fog"]},
        {"id": 2, "type": "Reroute", "inputs": [socket("", 1)]},
        {"id": 3, "type": "KSampler", "inputs": [socket("latent_image", 2)],
         "widgets_values": [7, "randomize", 4, "euler", False]},
        {"id": 4, "type": "LoadImage", "widgets_values": ["a.png", "image"]},
        {"id": 5, "type": "Note", "widgets_values": ["read me"]},
    ]  # fmt: skip
    made = {"nodes": nodes, "links": [[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"]]}
    for number, entry in changes.pop("nodes", {}).items():
        nodes[number] |= entry
    return made | changes


def test_a_graph_becomes_a_workflow():
    prompt = graphs.to_prompt(graph(), INFO)
    assert prompt["3"]["inputs"] == {
        **{"seed": 7, "cfg": 4, "sampler_name": "euler", "tiled": False},
        "latent_image": ["1", 0],
    }
    assert prompt["1"] == node("CLIPTextEncode", "Prompt", text="fog")
    assert prompt["4"]["inputs"] == {"image": "a.png"} and list(prompt) == ["1", "3", "4"]


@pytest.mark.parametrize(
    "newer", [["INT", {"default": 3}], [["a", "b"], {}], ["BOOLEAN", {"default": False}]]
)
def test_an_input_newer_than_the_file_has_the_default_that_the_page_shows(newer):
    info = json.loads(json.dumps(INFO))
    info["PrimitiveFloat"]["input"]["required"]["steps"] = newer
    nodes = {"nodes": {0: {"type": "PrimitiveFloat", "inputs": [], "widgets_values": [0.5]}}}
    made = graphs.to_prompt(graph(**nodes), info)["1"]["inputs"]
    assert made == {"value": 0.5, "steps": newer[0][0] if newer[1] == {} else newer[1]["default"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": {2: {"mode": 4}}}, r"'KSampler' \(node 3\) is muted or bypassed"),
        ({"nodes": {0: {"type": "PrimitiveNode"}}}, "which this server doesn't have"),
        ({"nodes": {0: {"widgets_values": []}}}, "no value for 'text'"),
        ({"nodes": {0: {"widgets_values": ["a", "b"]}}}, "more values than"),
        ({"nodes": {2: {"widgets_values": [7, 4, "euler", False, 1]}}}, "more values than"),
        ({"nodes": {2: {"widgets_values": ["x", 4, "euler", False]}}}, r"'x' where 'seed' \(INT\)"),
        ({"nodes": {0: {"widgets_values": {"text": "a"}}}}, "a way of its pack's own"),
        ({"definitions": {"subgraphs": [{}]}}, "subgraphs"),
        ({"links": [{"id": 1}]}, "form that this tool does not know"),
        ({"links": [[2, 2, 0, 3, 0, "*"]]}, "comes from nowhere"),
    ],
)
def test_a_graph_that_only_the_page_understands_is_refused(changes, said):
    with pytest.raises(graphs.WorkflowError, match=f"(?s){said}.*Export \\(API\\)"):
        graphs.to_prompt(graph(**changes), INFO)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no workflow"),
        ('{"1": 2}', "'1' is no node"),
        ("{}", "no workflow"),
    ],
)
def test_a_file_that_is_no_workflow(tmp_path, content, said):
    with pytest.raises(graphs.WorkflowError, match=said):
        graphs.read(write(tmp_path, content))
    body = write(tmp_path, json.dumps({"prompt": PROMPT}))
    assert graphs.read(body) == PROMPT
