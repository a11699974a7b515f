"""`make demo`: draw the demo workflow on a real ComfyUI and save its pictures in out/demo/.

What the workflow has to keep to: a node titled "Prompt" holds the text; "native size" and "direct
size" are the two empty latents; the SaveImage nodes' titles name the pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from tools.client import Progress, PromptError, Result, fetch, submit, title_of
from tools.host import ROOT, HostError, find_host, version_of
from tools.server import Server, start_server

WORKFLOW = ROOT / "workflows" / "api" / "demofusion_demo.json"
OUT = ROOT / "out" / "demo"
PANELS = {
    "native": "native",
    "direct": "direct high resolution",
    "multidiffusion": "MultiDiffusion alone",
    "final": "DemoFusion",
}
STAGE = re.compile(r"stage[ _]?(\d+)")


def nodes_where(prompt: dict, *, title: str = "", kind: str = "") -> list[str]:
    """Ids of the nodes of that title or class."""
    return [
        node
        for node, entry in prompt.items()
        if (title and title_of(prompt, node) == title) or (kind and entry["class_type"] == kind)
    ]


def put(prompt: dict, nodes: list[str], names: tuple[str, ...], value: Any) -> int:
    """Set the inputs of those names that hold a value (not a link); how many there were."""
    count = 0
    for node in nodes:
        inputs = prompt[node]["inputs"]
        for name in names:
            if name in inputs and not isinstance(inputs[name], list):
                inputs[name] = value
                count += 1
    return count


def adapt(prompt: dict, text: str | None, seed: int | None, scale: float | None) -> None:
    """Change what the workflow draws, in place; ValueError where it has no such place."""
    missing = "{} has no place for " + "{}"
    name = WORKFLOW.name
    if text is not None and not put(
        prompt, nodes_where(prompt, title="Prompt"), ("text", "value"), text
    ):
        raise ValueError(missing.format(name, "a prompt"))
    if seed is not None:
        count = put(prompt, nodes_where(prompt, title="Seed"), ("value", "seed"), seed)
        count += put(prompt, list(prompt), ("noise_seed", "seed"), seed)
        if not count:
            raise ValueError(missing.format(name, "a seed"))
    if scale is not None:
        if not put(prompt, nodes_where(prompt, kind="HRF_ProgressiveUpscale"), ("scale",), scale):
            raise ValueError(missing.format(name, "a scale"))
        for native in nodes_where(prompt, title="native size")[:1]:
            for side in ("width", "height"):
                size = round(prompt[native]["inputs"][side] * scale / 8) * 8
                put(prompt, nodes_where(prompt, title="direct size"), (side,), size)


class Bars:
    """One progress bar per node that takes several steps; the finished ones stay."""

    def __init__(self, prompt: dict) -> None:
        self.prompt = prompt
        self.node: str | None = None
        self.bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.node != self.node:
            self.close()
            self.node = progress.node
        if progress.maximum <= 1:
            return
        if self.bar is None:
            name = label(self.prompt, progress.node, progress.display)
            # disable=None: only on a terminal, which may not know its size.
            size = shutil.get_terminal_size()
            shape = {"ncols": min(100, size.columns), "nrows": size.lines}
            self.bar = tqdm(desc=f"{name:<28.28}", disable=None, unit="step", **shape)
        self.bar.total = progress.maximum
        self.bar.update(progress.value - self.bar.n)

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def label(prompt: dict, node: str, display: str) -> str:
    """A name for a node, which may lie inside an expansion: the stage is told by its id."""
    title = title_of(prompt, display)
    stage = STAGE.search(node.removeprefix(display))
    return f"{title}, stage {stage.group(1)}" if stage else title


def seconds_by_label(prompt: dict, result: Result) -> dict[str, float]:
    """Seconds of each node or stage, in the order in which they ran."""
    total: dict[str, float] = {}
    for node, seconds in result.timings.items():
        name = label(prompt, node, result.display[node])
        total[name] = total.get(name, 0.0) + seconds
    return total


def pictures_of(server: Server, prompt: dict, result: Result) -> dict[str, Image.Image]:
    """What each SaveImage node made, by its title."""
    found: dict[str, Image.Image] = {}
    for node in nodes_where(prompt, kind="SaveImage"):
        files = result.files(node)
        for i, file in enumerate(files, 1):
            title = title_of(prompt, node) + (f" {i}" if len(files) > 1 else "")
            found[title] = Image.open(io.BytesIO(fetch(server, file)))
    return found


def save_pictures(pictures: dict[str, Image.Image]) -> dict[str, Path]:
    """Save them as <title>.png; title -> path."""
    for old in OUT.glob("*.png"):
        old.unlink()
    saved: dict[str, Path] = {}
    for title, picture in pictures.items():
        saved[title] = OUT / (re.sub(r"[^\w .-]", "_", title) + ".png")
        # Drops the workflow that the host writes into each file's metadata, which repeats itself
        # in every picture; server.log's neighbour prompt.json keeps it.
        picture.save(saved[title])
    return saved


def compare(pictures: dict[str, Path]) -> Image.Image | None:
    """The methods side by side, each labelled; None if a picture is missing."""
    if not PANELS.keys() <= pictures.keys():
        return None
    return panels({name: Image.open(pictures[title]) for title, name in PANELS.items()})


def panels(images: dict[str, Image.Image], largest: int = 640) -> Image.Image:
    """Pictures side by side at the size of the last one (or `largest`), with names and sizes."""
    *_, last = images.values()
    shrink = min(1.0, largest / max(last.size))
    side = (round(last.width * shrink), round(last.height * shrink))
    gap, bar = 8, 40
    font = ImageFont.load_default(24 * side[0] // 640 + 4)
    sheet = Image.new("RGB", (len(images) * (side[0] + gap) + gap, side[1] + bar + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, image) in enumerate(images.items()):
        x = gap + i * (side[0] + gap)
        sheet.paste(image.convert("RGB").resize(side, Image.Resampling.LANCZOS), (x, bar))
        text = f"{name}, {image.width} x {image.height}"  # Pillow's font has no ×
        draw.text((x + side[0] / 2, bar / 2), text, "black", font, anchor="mm")
    return sheet


def draw_demo(text: str | None, seed: int | None, scale: float | None) -> None:
    """The whole demo."""
    try:
        prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HostError(f"{WORKFLOW.relative_to(ROOT)} is missing: restore it with git") from None
    adapt(prompt, text, seed, scale)
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"starting ComfyUI {version_of(find_host())}", flush=True)
    with start_server(log=OUT / "server.log") as server:
        bars = Bars(prompt)
        try:
            result = submit(server, prompt, bars)
        finally:
            bars.close()
        result.raise_for_error()
        pictures = save_pictures(pictures_of(server, prompt, result))
    (OUT / "prompt.json").write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n")
    sheet = compare(pictures)
    if sheet is not None:
        pictures["compare"] = OUT / "compare.png"
        sheet.save(pictures["compare"])
    report(seconds_by_label(prompt, result), pictures)


def report(seconds: dict[str, float], pictures: dict[str, Path]) -> None:
    """Print the seconds of each stage and the paths."""
    print("\nseconds")
    for name, value in seconds.items():
        if value >= 0.05:
            print(f"  {value:7.1f}  {name}")
    print(f"  {sum(seconds.values()):7.1f}  total\n\npictures")
    for path in pictures.values():
        print(f"  {path.relative_to(ROOT)}")


def main() -> int:
    """Command line; the values also come from make, through the environment."""
    given = os.environ.get
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.error = lambda reason: sys.exit(f"error: {reason}")  # one line, without the usage
    parser.add_argument("--prompt", default=given("HRF_PROMPT") or None)
    parser.add_argument("--seed", type=int, default=given("HRF_SEED") or None)
    parser.add_argument("--scale", type=float, default=given("HRF_SCALE") or None)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server is stopped
    try:
        draw_demo(args.prompt, args.seed, args.scale)
    except (HostError, PromptError, TimeoutError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
