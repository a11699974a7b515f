"""The worked example of CONTRIBUTING.md: its blocks are files that do what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```\w+\n(?:# |<!-- )([\w./]+)(?: -->)?\n(.*?)^```$", re.M | re.S)
BLOCKS = dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


def test_the_example_is_whole():
    rooms = {name.rsplit("/", 1)[0] for name in BLOCKS}
    assert rooms == {"fusion_ops", "nodes", "tests/unit", "web/docs"}
    assert not [name for name in BLOCKS if (ROOT / name).exists()], "taken by a real technique"


def test_the_example_passes_its_own_tests(tmp_path):
    for name in ("__init__.py", *BLOCKS):
        path = tmp_path / "hires_fusion" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BLOCKS.get(name, ""), encoding="utf-8")
    test = next(name for name in BLOCKS if name.startswith("tests/"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(tmp_path / "hires_fusion" / test)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[5-9] passed", done.stdout)


def test_the_node_and_its_page_fit():
    node = next(text for name, text in BLOCKS.items() if name.startswith("nodes/"))
    page = next(name for name in BLOCKS if name.startswith("web/"))
    ids = re.findall(r'node_id="(\w+)"', node)
    assert ids == [Path(page).stem]
    inputs = re.findall(r'io\.\w+\.Input\(\s*"(\w+)"', node)
    assert inputs and all(f"| **{name}**<br>" in BLOCKS[page] for name in inputs)
    functions = [n for n in ast.walk(ast.parse(node)) if isinstance(n, ast.FunctionDef)]
    execute = next(function for function in functions if function.name == "execute")
    assert [arg.arg for arg in execute.args.args] == ["cls", *inputs]
