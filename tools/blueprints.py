"""`python -m tools.blueprints`: write the subgraphs that ComfyUI's node library offers as nodes.

They are `subgraphs/<name>.json`. The file's name is what the library shows; the inside is a
prompt in API format, and what a user sees outside is listed by name.
"""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from tools import layout
from tools.graph import Graph, complete, written
from tools.host import ROOT
from tools.server import start_server

FOLDER = ROOT / "subgraphs"
CATEGORY = "Image generation and editing/Upscale"
INPUT, OUTPUT = -10, -20
STEP = 20
Nodes = dict[str, tuple[str, dict[str, Any]]]


class Blueprint(NamedTuple):
    """One file.

    Attributes:
        nodes: the inside, (class, inputs) by id; the last one's first output is the picture.
        shown: name outside -> inputs inside that get it, "id.input".
        about: what it does; aliases: other words to find it by.
    """

    nodes: Nodes
    shown: dict[str, tuple[str, ...]]
    about: str
    aliases: tuple[str, ...]


def upscale(**inputs: Any) -> tuple[str, dict[str, Any]]:
    return "HRF_ProgressiveUpscale", inputs


def decode(node: str) -> tuple[str, dict[str, Any]]:
    return "VAEDecode", {"samples": [node, 0]}


BLUEPRINTS = {
    "Enlarge Picture": Blueprint(
        {
            "1": ("VAEEncode", {}),
            "2": upscale(samples=["1", 0], preset="HiRes Fusion best", strength=0.3),
            "3": decode("2"),
        },
        {
            **{"image": ("1.pixels", "2.image"), "model": ("2.model",)},
            **{"positive": ("2.positive",)},
            **{"negative": ("2.negative",), "vae": ("1.vae", "2.vae", "3.vae")},
            **{"scale": ("2.scale",), "preset": ("2.preset",), "strength": ("2.strength",)},
            **{"noise_seed": ("2.noise_seed",), "steps": ("2.steps",), "cfg": ("2.cfg",)},
        },
        "A picture of about the model's native size in, the model draws it larger.",
        ("upscale", "hires fix", "enlarge", "image to image"),
    ),
    "Text to 4K": Blueprint(
        {
            "1": ("HRF_NativeLatent", {"width": 4096, "height": 4096}),
            "2": ("KSampler", {"latent_image": ["1", 0], "steps": 30, "cfg": 5.0, "denoise": 1.0}),
            "3": upscale(samples=["2", 0], scale=["1", 1], preset="HiRes Fusion best"),
            "4": decode("3"),
        },
        {
            **{"model": ("1.model", "2.model", "3.model")},
            **{"positive": ("2.positive", "3.positive"), "negative": ("2.negative", "3.negative")},
            **{"vae": ("3.vae", "4.vae"), "width": ("1.width",), "height": ("1.height",)},
            **{"seed": ("2.seed", "3.noise_seed"), "steps": ("2.steps",), "cfg": ("2.cfg",)},
            **{"sampler_name": ("2.sampler_name",), "scheduler": ("2.scheduler",)},
            "preset": ("3.preset",),
        },
        "Prompts in, a picture of any size out: drawn at the model's native size, then larger.",
        ("hires", "4k", "high resolution", "text to image"),
    ),
    "DemoFusion": Blueprint(
        {
            "1": upscale(preset="DemoFusion", steps=50, cfg=7.5),
            "2": decode("1"),
        },
        {
            **{"model": ("1.model",), "positive": ("1.positive",), "negative": ("1.negative",)},
            **{"samples": ("1.samples",), "vae": ("1.vae", "2.vae"), "scale": ("1.scale",)},
            **{"noise_seed": ("1.noise_seed",), "steps": ("1.steps",), "cfg": ("1.cfg",)},
        },
        "A finished latent of native size in, DemoFusion's stages, as published, and the picture.",
        ("demofusion", "hires fix", "upscale"),
    ),
    "CritiFusion": Blueprint(
        {
            "1": ("CLIPTextEncode", {}),
            "2": ("CLIPTextEncode", {}),
            "3": (
                "KSampler",
                {
                    **{"positive": ["1", 0], "negative": ["2", 0], "steps": 50, "cfg": 4.5},
                    **{"sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0},
                },
            ),
            "4": decode("3"),
            "5": ("HRF_CritiCore", {"image": ["4", 0]}),
            "6": ("CLIPTextEncode", {"text": ["5", 0]}),
            "7": (
                "KSampler",
                {
                    **{"positive": ["6", 0], "negative": ["2", 0], "latent_image": ["3", 0]},
                    **{"steps": 37, "cfg": 12.0, "sampler_name": "dpmpp_2m"},
                    **{"scheduler": "karras", "denoise": 0.74},
                },
            ),
            "8": ("HRF_SpecFusion", {"base": ["3", 0], "refined": ["7", 0]}),
            "9": decode("8"),
        },
        {
            **{"model": ("3.model", "7.model"), "vae": ("4.vae", "9.vae")},
            **{"clip": ("1.clip", "2.clip", "5.clip", "6.clip"), "provider": ("5.provider",)},
            **{"latent_image": ("3.latent_image",), "prompt": ("1.text", "5.prompt")},
            **{"negative": ("2.text",), "seed": ("3.seed", "7.seed"), "cfg": ("7.cfg",)},
            **{"denoise": ("7.denoise",)},
        },
        "Language models look at a first picture and write a better prompt; the second picture "
        "keeps the first one's large shapes.",
        ("critifusion", "prompt critic", "llm"),
    ),
}


def identity(*names: str) -> str:
    """The same every time, so that a graph which holds the subgraph knows it again."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "hires-fusion/blueprint/" + "/".join(names)))


def make(name: str, info: dict[str, Any]) -> dict[str, Any]:
    """The file of one blueprint."""
    blueprint = BLUEPRINTS[name]
    prompt = {
        number: {"class_type": kind, "inputs": dict(inputs)}
        for number, (kind, inputs) in blueprint.nodes.items()
    }
    complete(prompt, info)
    graph = Graph(prompt, info)
    layout.arrange(
        [layout.Group(name, graph.nodes, [])], [(str(a), str(b)) for _, a, _, b, *_ in graph.links]
    )
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(keys, link, strict=True)) for link in graph.links]
    nodes, inputs, outside, values = graph.nodes, [], [], []
    for slot, (shown, targets) in enumerate(blueprint.shown.items()):
        entry = {"id": identity(name, "in", shown), "name": shown, "linkIds": []}
        for target in targets:
            number, _, inner = target.partition(".")
            place, socket = next(
                (i, s) for i, s in enumerate(nodes[number]["inputs"]) if s["name"] == inner
            )
            if socket["link"] is not None:
                raise ValueError(f"{name}: {target} has a link already")
            socket["link"] = len(links) + 1
            entry["linkIds"].append(socket["link"])
            ends = (socket["link"], INPUT, slot, int(number), place, socket["type"])
            links.append(dict(zip(keys, ends, strict=True)))
        # As the first of those that get it.
        number, _, inner = targets[0].partition(".")
        socket = next(s for s in nodes[number]["inputs"] if s["name"] == inner)
        inputs.append(entry | {"type": socket["type"], "pos": [-60, STEP * slot]})
        here = {"name": shown, "type": socket["type"], "link": None}
        if "widget" in socket:
            here["widget"] = {"name": shown}
            values.append(prompt[number]["inputs"][inner])
        outside.append(here)
    last = list(nodes)[-1]
    out = len(links) + 1
    links.append(dict(zip(keys, (out, int(last), 0, OUTPUT, 0, "IMAGE"), strict=True)))
    nodes[last]["outputs"][0]["links"].append(out)
    right = max(layout.box_of(node).right for node in nodes.values())
    height = STEP * (len(inputs) + 2)
    inside = {
        **{"id": identity(name), "version": 1, "revision": 0, "config": {}, "name": name},
        "state": {
            **{"lastGroupId": 0, "lastNodeId": max(map(int, nodes))},
            **{"lastLinkId": len(links), "lastRerouteId": 0},
        },
        "inputNode": {"id": INPUT, "bounding": [-160, -STEP, 120, height]},
        "outputNode": {"id": OUTPUT, "bounding": [right + 60, 0, 120, 60]},
        "inputs": inputs,
        "outputs": [
            {"id": identity(name, "out"), "name": "image", "type": "IMAGE", "linkIds": [out]}
            | {"pos": [right + 80, STEP]}
        ],
        **{"widgets": [], "nodes": list(nodes.values()), "groups": [], "links": links},
        **{"extra": {}, "category": CATEGORY, "description": blueprint.about},
    }
    proxies = [["-1", here["name"]] for here in outside if "widget" in here]
    node = {
        **{
            "id": 1,
            "type": identity(name),
            "pos": [100, 100],
            "size": [320, 28 * len(inputs) + 60],
        },
        **{"flags": {}, "order": 0, "mode": 0, "inputs": outside},
        "outputs": [{"name": "image", "type": "IMAGE", "links": None}],
        **{"properties": {"proxyWidgets": proxies}, "widgets_values": values},
    }
    told = {
        "BlueprintDescription": blueprint.about,
        "BlueprintSearchAliases": list(blueprint.aliases),
    }
    return {
        **{"id": identity(name, "root"), "revision": 0, "last_node_id": 1, "last_link_id": 0},
        **{"nodes": [node], "links": [], "groups": [], "definitions": {"subgraphs": [inside]}},
        **{"config": {}, "extra": told, "version": 0.4},
    }


def main() -> None:
    """Command line."""
    FOLDER.mkdir(exist_ok=True)
    with start_server() as server:
        info = server.get_json("/object_info")
    for name in BLUEPRINTS:
        path = FOLDER / f"{name}.json"
        path.write_text(written(make(name, info)) + "\n", encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
