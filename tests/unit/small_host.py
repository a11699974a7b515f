"""Some nodes as a server describes them, and a node of an API-format workflow."""

from __future__ import annotations

INFO = {
    "CLIPTextEncode": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}}
    },
    "KSampler": {
        "input": {
            "required": {
                "seed": ["INT", {"control_after_generate": True}],
                "cfg": ["FLOAT", {}],
                "sampler_name": [["euler", "ddim"], {}],
                "latent_image": ["LATENT"],
            },
            "optional": {"tiled": ["BOOLEAN", {"default": False}]},
        }
    },
    "RandomNoise": {"input": {"required": {"noise_seed": ["INT", {}]}}},
    "PrimitiveFloat": {"input": {"required": {"value": ["FLOAT", {}]}}},
    "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}},
}


def node(kind, title, **inputs):
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
