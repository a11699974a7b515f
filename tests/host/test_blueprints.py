"""Blueprints hold together, and what is inside runs, on the demo model."""

from __future__ import annotations

import json

import pytest

from tools.blueprints import BLUEPRINTS, FOLDER, INPUT, OUTPUT, make
from tools.server import EXAMPLE

from .test_workflows import drawn

AFTER_SEED = "fixed"
SEEDS = ("seed", "noise_seed")


def load(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def flat(file: dict, outside: dict) -> dict:
    """The inside of a blueprint in API format; `outside` are the inputs of its node by name."""
    inside = file["definitions"]["subgraphs"][0]
    links = {link["id"]: link for link in inside["links"]}
    prompt = {}
    for node in inside["nodes"]:
        values = iter(node.get("widgets_values", []))
        inputs = {}
        for socket in node["inputs"]:
            if "widget" in socket:
                inputs[socket["name"]] = next(values)
                if socket["name"] in SEEDS:
                    assert next(values) == AFTER_SEED
            if socket["link"] is None:
                continue
            link = links[socket["link"]]
            if link["origin_id"] != INPUT:
                inputs[socket["name"]] = [f"in{link['origin_id']}", link["origin_slot"]]
            elif (shown := inside["inputs"][link["origin_slot"]]["name"]) in outside:
                inputs[socket["name"]] = outside[shown]
        assert not list(values)
        prompt[f"in{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_holds_together(name):
    file = load(name)
    (node,), (inside,) = file["nodes"], file["definitions"]["subgraphs"]
    assert inside["name"] == name and node["type"] == inside["id"] != file["id"]
    nodes = {inner["id"]: inner for inner in inside["nodes"]}
    for link in inside["links"]:
        if link["origin_id"] == INPUT:
            shown = inside["inputs"][link["origin_slot"]]
            assert link["id"] in shown["linkIds"]
        else:
            output = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in output["links"] and output["type"] == link["type"]
        if link["target_id"] != OUTPUT:
            socket = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert socket["link"] == link["id"] and socket["type"] == link["type"]
    assert [i["name"] for i in node["inputs"]] == [i["name"] for i in inside["inputs"]]
    widgets = [["-1", i["name"]] for i in node["inputs"] if "widget" in i]
    assert node["properties"]["proxyWidgets"] == widgets
    assert len(node["widgets_values"]) == len(widgets)
    assert file["extra"]["BlueprintDescription"] and file["extra"]["BlueprintSearchAliases"]


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_file_is_what_the_table_makes_of_the_nodes_of_today(server, name):
    made = json.dumps(make(name, server.get_json("/object_info")))
    assert json.loads(made) == load(name)


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_runs(server, name):
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    small = {"upscale_method": "area", "width": 128, "height": 128, "crop": "center"}
    around = {
        "demo": node("HRF_LoadDemoModel", variant="base"),
        "text": node("CLIPTextEncode", text="a red balloon", clip=["demo", 1]),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "load": node("LoadImage", image=EXAMPLE),
        "image": node("ImageScale", image=["load", 0], **small),
        "encoded": node("VAEEncode", pixels=["image", 0], vae=["demo", 2]),
        "provider": node("HRF_CriticProvider", provider="local"),
    }
    outside = {
        **{"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2]},
        **{"positive": ["text", 0], "negative": ["text", 0], "image": ["image", 0]},
        **{"samples": ["encoded", 0], "latent_image": ["empty", 0], "provider": ["provider", 0]},
        **{"steps": 2, "scale": 2.0, "width": 512, "height": 320, "seed": 3, "noise_seed": 3},
    }
    if name == "CritiFusion":
        outside |= {"prompt": "a red balloon", "negative": "a boat"}
    inside = flat(load(name), outside)
    for entry in inside.values():
        if "steps" in entry["inputs"]:
            entry["inputs"]["steps"] = 2
    last = list(inside)[-1]
    saved = node("SaveImage", images=[last, 0], filename_prefix="blueprint")
    prompt = around | inside | {"saved": saved | {"_meta": {"title": "final"}}}
    (picture,) = drawn(server, prompt)["final"]
    assert picture.shape[:2] == {"Text to 4K": (320, 512), "CritiFusion": (128, 128)}.get(
        name, (256, 256)
    )
    assert picture.std() > 3
