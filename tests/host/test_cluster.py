"""What happens to many servers: `make test-cluster`. The shorter cases are in test_runs.py."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tools.host import ROOT
from tools.server import start_server

from .fleet import TESTPACK, end_all, picture, start_table, table, wait_for, workflow

pytestmark = pytest.mark.cluster
pytest.importorskip("ray")


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    end_all()


def waiting(seconds: float) -> dict:
    """A workflow that takes its seconds without a processor."""
    prompt = picture(seconds)
    latent = {"2": {"class_type": "EmptyLatentImage", "inputs": {"height": 64, "batch_size": 1}}}
    # What tells rows apart: a width.
    latent["2"]["inputs"]["width"] = 64
    slow = {"3": prompt["3"] | {"inputs": {"samples": ["2", 0], "seconds": seconds}}}
    save = {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "w"}}
    return latent | slow | {"7": save}


def widths(path, count: int, first: int = 1) -> None:
    """A table of that many rows."""
    with path.open("w", newline="") as file:
        numbers = range(first, first + count)
        csv.writer(file).writerows([["2.width"], *([16 + 8 * n] for n in numbers)])


def results(folder) -> dict[str, bytes]:
    """Name -> content of the files that rows made."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".png", ".latent")}


def test_a_killed_driver_goes_on_without_doing_rows_again(tmp_path):
    file = workflow(tmp_path, picture(seconds=1.0))
    table(tmp_path / "t.csv", range(8))
    running = start_table(tmp_path, file, "--ray", "--servers", "2")
    wait_for(running, lambda: running.rows() >= 2)
    running.process.kill()
    running.end()
    assert not running.servers()  # the driver's death ends Ray, the actors and their servers
    done = {p.name: p.stat().st_mtime_ns for p in running.out.glob("*.png")}
    assert 2 <= len(done) < 8
    running = start_table(tmp_path, file, "--ray", "--servers", "3")
    code, err = running.end()
    assert code == 0, err
    after = {p.name: p.stat().st_mtime_ns for p in running.out.glob("*.png")}
    assert len(after) == 8 and done.items() <= after.items()
    assert running.rows() == 8 and not running.servers()


def test_ctrl_c_ends_everything(tmp_path):
    widths(tmp_path / "t.csv", 8)
    running = start_table(tmp_path, workflow(tmp_path, waiting(60.0)), "--ray", "--servers", "2")
    wait_for(running, lambda: len(running.servers()) == 2)
    running.process.send_signal(signal.SIGINT)
    code, err = running.end()
    assert code == 130 and "stopped: the same command goes on" in err and not running.servers()


def test_a_hanging_server_is_replaced(tmp_path):
    file = workflow(tmp_path, waiting(2.0))
    widths(tmp_path / "t.csv", 8)
    running = start_table(tmp_path, file, "--ray", "--servers", "2", "--patience", "20")
    wait_for(running, lambda: running.rows() >= 2)
    running.kill_a_server(signal.SIGSTOP)
    code, err = running.end()
    assert code == 0 and "after a loss: the server did not answer" in err
    assert running.rows() == 8 and not running.servers()


def test_servers_of_others_may_come_and_go(tmp_path):
    """Two are attached to; one ends for good, and the other takes its row."""
    file = workflow(tmp_path, waiting(2.0))
    widths(tmp_path / "t.csv", 6)
    packs = {"testpack": TESTPACK}
    with start_server(packs=packs, cpu=True) as one, start_server(packs=packs, cpu=True) as two:
        urls = [word for server in (one, two) for word in ("--server", server.url)]
        running = start_table(tmp_path, file, "--ray", "--patience", "5", *urls)
        wait_for(running, lambda: running.rows() >= 2)
        os.killpg(one.process.pid, signal.SIGKILL)
        code, err = running.end()
        assert code == 0, err
        assert running.rows() == 6 and two.alive()
        assert f"a server is gone: no ComfyUI answers at {one.url}" in err


def test_a_killed_actor_takes_its_server_along_and_comes_back(tmp_path):
    file = workflow(tmp_path, waiting(2.0))
    widths(tmp_path / "t.csv", 6)
    running = start_table(tmp_path, file, "--ray", "--servers", "2")
    wait_for(running, lambda: running.rows() >= 1)
    server = running.servers()[0]
    server.parent().parent().kill()  # server <- keeper <- actor
    code, err = running.end()
    assert code == 0, err
    assert not psutil.pid_exists(server.pid)
    assert running.rows() == 6 and not running.servers()


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path):
    disk = tmp_path / "many"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        prompt = picture()
        prompt["6"]["inputs"] |= {"width": 256, "height": 256}
        table(tmp_path / "t.csv", range(6))
        running = start_table(tmp_path, workflow(tmp_path, prompt), "--ray", "--servers", "2")
        code, err = running.end()
        assert code == 3 and "is full: free some space" in err and not running.servers()
        done = running.rows()
        assert 0 < done < 6 and len(results(disk)) == done and not list(disk.glob(".part*"))
        subprocess.run([*mount[:4], "remount,size=20m", *mount[5:]], check=True)
        running = start_table(tmp_path, workflow(tmp_path, prompt), "--ray", "--servers", "2")
        code, err = running.end()
        assert code == 0 and len(results(disk)) == running.rows() == 6, err
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def seconds_of(tmp_path, servers: list) -> float:
    """A row's, from the first rows done to the last, so without what starting Ray takes."""
    count = len(servers)
    # Others for each count: a server remembers what it has done.
    widths(tmp_path / "t.csv", 20, first=20 * count)
    urls = [word for server in servers for word in ("--server", server.url)]
    file = workflow(tmp_path, waiting(2.0))
    running = start_table(tmp_path, file, "--ray", *urls, out=f"by{count}")
    wait_for(running, lambda: running.rows() >= count)
    begun, first = time.monotonic(), running.rows()
    wait_for(running, lambda: running.rows() >= 20)
    spent = (time.monotonic() - begun) / (20 - first)
    code, err = running.end()
    assert code == 0, err
    return spent


def test_two_servers_do_nearly_twice_as_much(tmp_path, record_property):
    """Rows that take two seconds and no processor: what the spreading itself costs."""
    packs = {"testpack": TESTPACK}
    with start_server(packs=packs, cpu=True) as one, start_server(packs=packs, cpu=True) as two:
        ratio = seconds_of(tmp_path, [one]) / seconds_of(tmp_path, [one, two])
    print(f"throughput of two servers, one being 1: {ratio:.2f}")
    record_property("ratio", ratio)
    assert ratio > 1.5


STUBS = """
import sys, time
import ray
from tools.runs import cluster, spread
from tools.runs.rows import Row
import psutil

class Stub:
    async def run(self, prompt, info):
        return {"files": [("a", ".png", "a.png", bytes(100_000))]}

with cluster.connected(None):
    actor = ray.remote(Stub).options(max_concurrency=64, num_cpus=0).remote()
    hands = cluster.Hands.__new__(cluster.Hands)
    hands.actors, hands.busy, hands.on_loss = [actor] * 64, {}, print
    rows = (Row(n, str(n), str(n), {}, {}) for n in range(10_000))
    seen, me, sizes = set(), psutil.Process(), []
    for row, outcome in spread.spread(rows, hands.actors, hands.start, hands.wait):
        assert row.number not in seen and "files" in outcome, outcome
        seen.add(row.number)
        if len(seen) % 2500 == 0:
            sizes.append(me.memory_info().rss / 2**20)
    assert len(seen) == 10_000 and not hands.busy
    print("MiB of the driver at each quarter:", *(f"{size:.0f}" for size in sizes))
    sys.exit(sizes[-1] - sizes[0] > 100)
"""


def test_ten_thousand_rows_on_64_stubs_of_ray(tmp_path):
    """Through Ray itself, with pictures of 100 kB: a gigabyte passes, none of it stays."""
    (tmp_path / "stubs.py").write_text(STUBS)
    done = subprocess.run(
        [sys.executable, tmp_path / "stubs.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


CLUSTER = """
import sys
sys.path.insert(0, sys.argv[1])
from tools.runs import cluster
context = cluster.begun({"num_cpus": 2, "include_dashboard": False})
print(context.address_info["address"], flush=True)
input()
"""


def test_a_ray_that_runs_already_is_used(tmp_path, monkeypatch):
    """`--ray ADDRESS`: the cluster gets our code from us, and goes on after us."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CLUSTER, str(ROOT)]
    ray = subprocess.Popen(command, cwd=tmp_path, **pipes)
    try:
        address = ray.stdout.readline().strip()
        assert address
        # Ray's own on this machine ask for the token that Ray made here.
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        widths(tmp_path / "t.csv", 2)
        file = workflow(tmp_path, waiting(0.1))
        running = start_table(tmp_path, file, "--ray", address, "--servers", "1")
        code, err = running.end()
        assert code == 0 and running.rows() == 2, err
        assert not running.servers() and ray.poll() is None
    finally:
        ray.communicate("\n", timeout=60)
