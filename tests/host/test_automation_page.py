"""docs/automation.md: its scripts run as printed, its commands are commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from tools.host import ROOT
from tools.runs import cli

from .fleet import picture, workflow

PAGE = (ROOT / "docs" / "automation.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
SCRIPTS = dict(BLOCK.findall(PAGE))
COMMANDS = re.findall(r"^ +(python -m tools (?:[^\n\\]|\\\n)*)", PAGE, re.M)


NODE = ["node", "--experimental-websocket"]  # what Node 22 has without asking


def has_node() -> bool:
    """Whether a Node is here that knows WebSocket."""
    code = "process.exit(typeof WebSocket === 'function' ? 0 : 1)"
    asked = [*NODE, "-e", code]
    return bool(shutil.which("node")) and not subprocess.run(asked, capture_output=True).returncode


def ran(server, folder, script, name, *words, prompt=None):
    """The script as somebody saves and starts it: exit code, what it printed."""
    (folder / name).write_text(script, encoding="utf-8")
    program = [sys.executable] if name.endswith(".py") else NODE
    file = workflow(folder, prompt or picture())
    command = [*program, name, server.url, file.name, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout + done.stderr


def test_the_python_script(server, tmp_path):
    script = SCRIPTS["python"]
    assert len([line for line in script.splitlines() if line.strip()]) <= 30
    words = ("Prompt.text=a boat", "Draw.seed=7")
    code, said = ran(server, tmp_path, script, "queue_workflow.py", *words)
    assert code == 0, said
    kept = json.loads(Image.open(tmp_path / said.strip()).info["prompt"])
    assert kept["5"]["inputs"]["text"] == "a boat" and kept["2"]["inputs"]["seed"] == 7
    code, said = ran(server, tmp_path, script, "queue_workflow.py", "Draw.steps=0")
    assert code == 1 and said.startswith("refused: {") and "smaller than min" in said
    failing = picture()
    failing["3"] |= {
        "class_type": "HRFT_Fail",
        "inputs": {"samples": ["2", 0], "text": "lens cap is on"},
    }
    code, said = ran(server, tmp_path, script, "queue_workflow.py", prompt=failing)
    assert code == 1 and said.startswith("failed: ") and "lens cap is on" in said


@pytest.mark.skipif(not has_node(), reason="no Node with WebSocket here")
def test_the_javascript(server, tmp_path):
    code, said = ran(server, tmp_path, SCRIPTS["javascript"], "queue_workflow.mjs")
    assert code == 0 and "2: 2 of 2" in said, said
    kept = json.loads(Image.open(tmp_path / said.splitlines()[-1]).info["prompt"])
    assert kept["5"]["inputs"]["text"] == "a red balloon in fog"


def test_commands_are_commands():
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        args = cli.parser().parse_args(shlex.split(command.replace("\\\n", " "))[3:])
        assert (ROOT / args.workflow).is_file()


def test_every_flag_is_on_the_page():
    known = cli.parser()._subparsers._group_actions[0].choices["table"].format_help()
    flags = set(re.findall(r"--[a-z-]+", known)) - {"--help"}
    assert not [flag for flag in flags if f"`{flag}" not in PAGE and f" {flag} " not in PAGE]
