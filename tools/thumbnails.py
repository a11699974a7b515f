"""`python -m tools.thumbnails [name …]`: draw workflows and save what they drew as thumbnails.

ComfyUI's template browser shows `example_workflows/<title>.jpg` in a square box: on the left what
there was before, on the right what came out, both of one place. They are what the first and the
last SaveImage node of `workflows/api/<name>.json` drew, or those that SHOWN names. The graphs of
`tools.ready` are for checkpoints of gigabytes: their pictures are the demo model's, drawn by the
same method, once for all families.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tools import ready, templates
from tools.client import PromptError, submit
from tools.host import ROOT, HostError
from tools.run_demo import pictures_of
from tools.server import Server, start_server

SIDE = 512
SEAM = 4
QUALITY = 88
SHOWN = {
    "demofusion_demo": ("native", "final"),
    "specfusion_demo": ("base", "fused"),
    "critifusion_demo": ("3: base, prompt", "4: refined, prompt"),
    "critifusion_sdxl": ("3: base, prompt", "4: refined, prompt"),
}
# Ready graphs -> the workflow of the demo model whose picture they show.
ALIKE = {
    "enlarge": "repldm_image",
    "demofusion": "demofusion_demo",
    "repldm": "repldm_demo",
    "controlnet": "refine_large_demo",
    "regions": "detail_prompt",
    "fusion": "base_refiner_demo",
    "critifusion": "critifusion_demo",
}
DEMO_TEXT = "a red hot-air balloon over snowy mountains at sunset"
DEMO_PICTURE = "a yellow sailing boat on a calm sea at sunset"
DEMO_SIDE, DEMO_SCALE = 256, 3.0


def with_demo_model(prompt: dict) -> dict:
    """A ready graph of one checkpoint, for the demo model, showing the native picture first."""
    has_picture = any(e["class_type"] == "LoadImage" for e in prompt.values())
    for entry in prompt.values():
        kind, inputs = entry["class_type"], entry["inputs"]
        if kind == "CheckpointLoaderSimple":
            entry |= {"class_type": "HRF_LoadDemoModel", "inputs": {"variant": "base"}}
        elif kind == "EmptyLatentImage":
            inputs |= {"width": DEMO_SIDE, "height": DEMO_SIDE}
        elif kind == "ImageScaleToTotalPixels":
            sides = {"width": DEMO_SIDE, "height": DEMO_SIDE, "crop": "center"}
            taken = {name: inputs[name] for name in ("image", "upscale_method")}
            entry |= {"class_type": "ImageScale", "inputs": taken | sides}
        elif kind == "CLIPTextEncode" and "egative" not in entry["_meta"]["title"]:
            inputs["text"] = DEMO_PICTURE if has_picture else DEMO_TEXT
        elif kind == "HRF_ProgressiveUpscale":
            inputs |= {"scale": DEMO_SCALE}
            native = {"samples": inputs["samples"], "vae": inputs["vae"]}
    shown = {"images": ["native", 0], "filename_prefix": "hires_fusion/native"}
    first = {
        "native": {"class_type": "VAEDecode", "inputs": native},
        "shown": {"class_type": "SaveImage", "inputs": shown, "_meta": {"title": "native"}},
    }
    return first | prompt


def fitted(picture: Image.Image) -> Image.Image:
    """A picture that fills the height."""
    width = max(round(picture.width * SIDE / picture.height), SIDE // 2)
    return picture.convert("RGB").resize((width, SIDE), Image.Resampling.LANCZOS)


def busiest(picture: Image.Image, width: int) -> int:
    """Where the part of that width begins that has most in it."""
    edges = np.abs(np.diff(np.asarray(picture.convert("L"), np.float32), axis=1)).sum(axis=0)
    sums = np.convolve(np.append(edges, 0), np.ones(width), "valid")
    # Several places may show the whole subject: the middle one of them.
    return int(np.flatnonzero(sums >= 0.98 * sums.max()).mean())


def square(before: Image.Image, after: Image.Image) -> Image.Image:
    """Two panels side by side, of the same part of both pictures."""
    width = (SIDE - SEAM) // 2
    left, right = fitted(before), fitted(after).resize(fitted(before).size)
    x = busiest(right, width)
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    sheet.paste(left.crop((x, 0, x + width, SIDE)), (0, 0))
    sheet.paste(right.crop((x, 0, x + width, SIDE)), (SIDE - width, 0))
    return sheet


def alone(picture: Image.Image) -> Image.Image:
    """One picture, whole, in the middle of the square."""
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    sheet.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return sheet


def draw(server: Server, name: str) -> Path:
    """Run one workflow; the path of its new thumbnail."""
    prompt = json.loads(templates.api(name).read_text(encoding="utf-8"))
    if name in ready.GRAPHS:
        prompt = with_demo_model(prompt)
    result = submit(server, prompt).raise_for_error()
    pictures = pictures_of(server, prompt, result)
    titles = list(pictures)
    before, after = (pictures[title] for title in SHOWN.get(name, (titles[0], titles[-1])))
    sheet = alone(after) if before is after else square(before, after)
    path = templates.picture(name)
    sheet.save(path, quality=QUALITY)
    return path


def alike(name: str) -> str:
    """The workflow whose picture a ready graph shows; another one is its own."""
    if name not in ready.GRAPHS:
        return name
    kind = name.rsplit("_", 1)[-1]
    return ALIKE.get(kind, f"sdxl_{kind}")


def main() -> None:
    """Command line."""
    names = sys.argv[1:] or list(templates.NAMES)
    try:
        with start_server() as server:
            for name in names:
                source = alike(name)
                if source == name:
                    draw(server, name)
                else:
                    shutil.copy(templates.picture(source), templates.picture(name))
                print(templates.picture(name).relative_to(ROOT), flush=True)
    except (HostError, PromptError, TimeoutError) as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
