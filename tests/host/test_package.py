"""The package of the Registry, unpacked as an installer leaves it, in a real ComfyUI."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import package
from tools.client import submit
from tools.host import PACK_NAME, ROOT, find_host, python_of
from tools.server import Server, start_server

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))
PICTURES = (b"\xff\xd8\xff", b"\x89PN", b"RIF")
# Loads the pack as ComfyUI does, after what every ComfyUI has loaded before.
LOAD = """
import asyncio, importlib.util, json, sys, time
host, pack = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, host)
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config, nodes, server
before, began = set(sys.modules), time.process_time()
spec = importlib.util.spec_from_file_location(
    "the_pack", pack + "/__init__.py", submodule_search_locations=[pack]
)
module = importlib.util.module_from_spec(spec)
sys.modules["the_pack"] = module
spec.loader.exec_module(module)
count = len(asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list()))
took = time.process_time() - began
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps([count, took, sorted(new - set(sys.stdlib_module_names))]))
"""
FEW = {
    "model": {"class_type": "HRF_LoadDemoModel", "inputs": {"variant": "base"}},
    "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["model", 1]}},
    "size": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1},
    },
    "sample": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["model", 0],
            "seed": 1,
            "steps": 1,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": ["text", 0],
            "negative": ["text", 0],
            "latent_image": ["size", 0],
            "denoise": 1.0,
        },
    },
    "decode": {
        "class_type": "VAEDecode",
        "inputs": {"samples": ["sample", 0], "vae": ["model", 2]},
    },
    "save": {
        "class_type": "SaveImage",
        "inputs": {"images": ["decode", 0], "filename_prefix": "packed"},
    },
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.unpack(tmp_path_factory.mktemp("packed") / PACK_NAME)


@pytest.fixture(scope="module")
def packed_server(unpacked: Path) -> Iterator[Server]:
    with start_server(packs={PACK_NAME: unpacked}) as running:
        yield running


def get(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(f"{server.url}/{path}", timeout=60) as answer:
        return answer.read()


def test_every_node_is_there_with_its_help_page_and_pictures(packed_server):
    nodes = packed_server.get_json("/object_info")
    found = {name for name in nodes if nodes[name]["python_module"].endswith(PACK_NAME)}
    assert found == {page.stem for page in PAGES}
    for page in PAGES:
        folder = f"extensions/{PACK_NAME}/docs"
        text = get(packed_server, f"{folder}/{page.name}")
        assert text == page.read_bytes()
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text.decode()):
            assert get(packed_server, f"{folder}/{picture}")[:3] in PICTURES


def test_templates_can_be_opened(packed_server):
    names = packed_server.get_json("/workflow_templates")[PACK_NAME]
    assert len(names) >= 10
    path = f"api/workflow_templates/{PACK_NAME}/{names[0]}.json".replace(" ", "%20")
    assert json.loads(get(packed_server, path))["nodes"]


def test_the_demo_model_draws(packed_server):
    result = submit(packed_server, FEW).raise_for_error()
    assert result.outputs["save"]["images"]


def test_loading_the_pack_brings_nothing_slow(unpacked):
    host = find_host()
    done = subprocess.run(
        [str(python_of(host)), "-c", LOAD, str(host), str(unpacked)],
        capture_output=True,
        text=True,
        cwd=unpacked,
    )
    assert done.returncode == 0, done.stderr
    count, processor_seconds, new = json.loads(done.stdout.splitlines()[-1])
    print(f"{count} nodes in {processor_seconds:.2f} s of processor time")
    assert count == len(PAGES)
    assert set(new) <= {"the_pack", "comfy_extras", "tomli"}, "import it where it is used"
    # 0.3 s on a quiet machine, docs/compatibility.md; a bound that a busy one keeps too.
    assert processor_seconds < 2
