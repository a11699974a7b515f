"""`python -m tools.thumbnails [name …]`: draw workflows and save what they drew as thumbnails.

ComfyUI shows `workflows/<name>.jpg` in its template browser. The pictures of all SaveImage nodes
of `workflows/api/<name>.json` are put side by side, in the order of the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.client import submit
from tools.host import ROOT
from tools.run_demo import panels, pictures_of
from tools.server import Server, start_server

WORKFLOWS = ROOT / "workflows"
SIDE = 384
QUALITY = 88


def draw(server: Server, name: str) -> Path:
    """Run one workflow; the path of its new thumbnail."""
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    result = submit(server, prompt).raise_for_error()
    path = WORKFLOWS / f"{name}.jpg"
    pictures = pictures_of(server, prompt, result)
    different = {picture.tobytes(): title for title, picture in reversed(pictures.items())}
    shown = {title: p for title, p in pictures.items() if title in different.values()}
    panels(shown, SIDE).save(path, quality=QUALITY)
    return path


def main() -> None:
    """Command line."""
    names = sys.argv[1:] or sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
    with start_server() as server:
        for name in names:
            print(draw(server, name).relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
