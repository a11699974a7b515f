"""`python -m tools run` and `table` on a real server, and on several that Ray looks after."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tools import templates
from tools.graph import NEWER
from tools.runs import cli, graphs, settings
from tools.server import free_port

from .fleet import end_all, picture, start_table, table, wait_for, workflow
from .graphs import API

GRAPHS = sorted(path.stem for path in API.glob("*.json"))


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    end_all()


@pytest.fixture
def command(server, tmp_path, monkeypatch, capsys):
    """`command("run", …)` on the session's server: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = cli.main([*map(str, words), "--server", server.url.removeprefix("http://")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_grid_is_drawn_and_says_what_it_is(command, tmp_path):
    file = workflow(tmp_path, picture())
    words = ("run", file, "--set", "seed=1", "--set", "seed=2", "--set", "Draw.cfg=2.5")
    code, out, err = command(*words, "--previews")
    assert (code, err) == (0, "")
    folder = tmp_path / "out" / "workflow"
    first, second = sorted(folder.glob("0*.png"))
    assert first.name.startswith("00001_seed=1_cfg=2.5_") and str(second.name) in out
    metadata = Image.open(second).info
    assert json.loads(metadata["hires_fusion"])["settings"] == {"seed": "2", "Draw.cfg": "2.5"}
    assert json.loads(metadata["prompt"])["2"]["inputs"] | {} == {
        **picture()["2"]["inputs"],
        **{"seed": 2, "cfg": 2.5},
    }
    assert np.std(np.asarray(Image.open(first), float) - np.asarray(Image.open(second))) > 1
    assert (folder / "sheet_001.jpg").is_file() and list((folder / "previews").glob("*.jpg"))
    # A picture is itself a workflow that draws it again.
    (tmp_path / "again.json").write_text(metadata["prompt"])
    assert command("run", "again.json", "--out", "again")[0] == 0
    [again] = (tmp_path / "again").glob("*.png")
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(second)))


def test_what_goes_wrong_is_one_line_and_a_code(command, tmp_path, capsys):
    file = workflow(tmp_path, picture())
    for words, code, said in [
        (("run", file, "--set", "Draw.steps=0"), 1, "error: Draw (KSampler, node 2): Value 0 sm"),
        (("run", file, "--set", "Draw.steps=many"), 2, "error: Draw.steps=many: it takes a whole"),
        (("run", file, "--set", "Drow.steps=3"), 2, "error: nothing in the workflow is called"),
        (("run", "absent.json"), 2, "error: absent.json: No such file"),
        (("table", "absent.csv", file), 2, "error: absent.csv: No such file"),
    ]:
        got, _, err = command(*words)
        assert got == code and err.startswith(said), err
    failing = picture()
    failing["3"]["class_type"] = "HRFT_Fail"
    failing["3"]["inputs"] = {"samples": ["2", 0], "text": "lens cap is on"}
    code, _, err = command("run", workflow(tmp_path, failing))
    assert code == 1 and "error: Wait (HRFT_Fail, node 3): lens cap is on\n1 of 1" in err
    failing["3"]["class_type"] = "NoSuchNode"
    code, _, err = command("run", workflow(tmp_path, failing))
    assert code == 2 and "'Wait' (node 3) is a NoSuchNode, which this server doesn't have" in err
    code = cli.main(["run", str(file), "--server", f"127.0.0.1:{free_port()}"])
    err = capsys.readouterr().err
    assert (
        code == 3
        and err.startswith("error: no ComfyUI answers at http://127")
        and (err.count("\n") == 1)
    )


def test_a_table_goes_on_where_it_was(command, tmp_path):
    file = workflow(tmp_path, picture())
    lines = ["name,seed,Draw.sampler_name", "a,1,euler", "b,2,no such", "c,x,euler", "d,3,"]
    (tmp_path / "t.csv").write_text("\n".join(lines[:4]) + "\n")
    code, out, err = command("table", "t.csv", file)
    assert code == 1 and "error: row 2: Draw (KSampler, node 2)" in err
    assert "error: row 3: seed=x: it takes a whole number\n2 of 3 not done" in err
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    [first] = (tmp_path / "out" / "t").glob("*.png")
    before = first.stat().st_mtime_ns
    code, out, err = command("table", "t.csv", file)
    assert code == 1 and "2 of 4 not done" in err and first.stat().st_mtime_ns == before
    with (tmp_path / "out" / "t" / "index.csv").open(newline="") as index:
        found = list(csv.DictReader(index))
    assert [line["status"] for line in found] == ["done", "failed", "failed", "done"]
    assert found[0]["files"] == first.name and "whole number" in found[2]["error"]
    assert len(list((tmp_path / "out" / "t").glob("*.png"))) == 2 and "sheet_001.jpg" in out


@pytest.mark.parametrize("name", GRAPHS)
def test_our_graph_files_are_what_they_were_made_from(server, name):
    info = server.get_json("/object_info")
    found = graphs.to_prompt(graphs.read(templates.graph(name)), info)
    wanted = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    assert found.keys() == wanted.keys()
    for node, entry in wanted.items():
        if entry["class_type"] == "SaveImage":
            assert found[node]["class_type"] == "PreviewImage"
        else:
            known = set(settings.inputs_of(info, entry["class_type"]))
            newer = set(NEWER.get(entry["class_type"], ()))
            inputs = {k: v for k, v in entry["inputs"].items() if k in known or k not in newer}
            assert found[node]["inputs"] == inputs


def test_a_killed_server_is_replaced_and_nothing_else_is_lost(command, tmp_path):
    """One row is bad; what two servers make is what one makes, to the bit."""
    pytest.importorskip("ray")
    file = workflow(tmp_path, picture(seconds=1.5))
    table(tmp_path / "t.csv", [1, 2, "x", 3, 4, 5])
    running = start_table(tmp_path, file, "--ray", "--servers", "2")
    wait_for(running, lambda: running.rows() >= 1)
    running.kill_a_server()
    code, err = running.end()
    assert code == 1 and "row 3: seed=x" in err and "after a loss: the server ended" in err
    assert "1 of 6 not done" in err and not running.servers()
    code, _, _ = command("table", "t.csv", file, "--out", "one")
    assert code == 1
    ours, theirs = (sorted((tmp_path / name).glob("*.png")) for name in ("many", "one"))
    assert [path.name for path in ours] == [path.name for path in theirs] and len(ours) == 5
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(ours, theirs, strict=True))
