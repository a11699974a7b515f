"""The command as it is called: `python -m tools`, and `hires-fusion` where it is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tools.host import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WITHOUT = """
import runpy, sys
sys.modules[{name!r}] = None
sys.argv = ["tools", "run", "nowhere.json"]
runpy.run_module("tools", run_name="__main__")
"""


@pytest.mark.parametrize("name", ["PIL", "requests", "tqdm", "websocket"])
def test_a_package_that_the_command_line_lacks_is_one_line_with_the_remedy(name):
    script = [sys.executable, "-c", WITHOUT.format(name=name)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {name} is missing: pip install ")
    needed = set(line.partition("pip install ")[2].split())
    listed = (ROOT / "tools" / "requirements-client.txt").read_text().splitlines()
    assert needed == {text.split(">=")[0] for text in listed if text and text[0] != "#"}


def test_the_console_script_is_the_same_command_and_is_packed():
    made = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    place, _, function = made["project"]["scripts"]["hires-fusion"].partition(":")
    packed = made["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].values()
    assert f"{place.replace('.', '/')}.py" in packed
    module = importlib.import_module(place.removeprefix("hires_fusion."))
    assert callable(getattr(module, function))
