"""The tools that find a ComfyUI, explain failures and adapt the demo workflow."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from tools import client, host, run_demo, server, setup_env


def make_host(folder, version="0.3.75"):
    (folder / "comfy").mkdir(parents=True)
    (folder / "comfy" / "cli_args.py").touch()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A checkout with no ComfyUI around it."""
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON", "HRF_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(host, "OWN_HOST", tmp_path / "checkout" / ".comfyui")
    return tmp_path


def test_host_in_order_of_preference(nowhere, monkeypatch):
    with pytest.raises(host.HostError, match="make host"):
        host.find_host()
    own = make_host(host.OWN_HOST)
    assert host.find_host() == own
    around = make_host(nowhere / "ComfyUI", "0.33.1")
    monkeypatch.setattr(host, "ROOT", around / "custom_nodes" / "hires-fusion")
    assert host.find_host() == around
    given = make_host(nowhere / "given")
    monkeypatch.setenv("COMFYUI_PATH", str(given))
    assert host.find_host() == given


@pytest.mark.parametrize("version", ["0.3.74", "0.2.99"])
def test_an_old_host_is_refused(nowhere, monkeypatch, version):
    monkeypatch.setenv("COMFYUI_PATH", str(make_host(nowhere / "old", version)))
    with pytest.raises(host.HostError, match=f"{version}; update it to 0.3.75"):
        host.find_host()


def test_a_folder_that_is_no_host_is_refused(nowhere, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(nowhere))
    with pytest.raises(host.HostError, match="is no ComfyUI folder"):
        host.find_host()


def test_interpreter_of_a_host(nowhere, monkeypatch):
    theirs = make_host(nowhere / "theirs")
    assert host.own_interpreter(theirs) is None
    python = host.venv_python(theirs / ".venv")
    python.parent.mkdir(parents=True)
    python.touch()
    assert host.python_of(theirs) == python
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    assert str(host.python_of(theirs)) == sys.executable


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "free about"),
        ("ConnectTimeoutError ... Max retries exceeded with url", "check the network"),
        ("error: command '/usr/bin/gcc' failed: No such file or directory", "install a C compiler"),
        ("ERROR: No matching distribution found for torch==2.11.0", "use Python 3.11"),
        ("something new", "something new"),
    ],
)
def test_a_failure_is_one_line_with_a_remedy(tmp_path, monkeypatch, printed, remedy):
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "LOG", tmp_path / ".cache" / "setup.log")
    code = f"import sys; print({printed!r}); sys.exit(1)"
    with pytest.raises(host.HostError, match=remedy) as caught:
        setup_env.run([sys.executable, "-c", code], "installing")
    assert "\n" not in str(caught.value)
    assert printed in setup_env.LOG.read_text()


def workflow():
    def node(kind, title, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}

    return {
        "1": node("CLIPTextEncode", "Prompt", text="a boat"),
        "2": node("RandomNoise", "Noise", noise_seed=1),
        "3": node("KSampler", "Direct", seed=["9", 0], latent_image=["6", 0]),
        "4": node("HRF_ProgressiveUpscale", "DemoFusion", scale=3.0),
        "5": node("EmptyLatentImage", "native size", width=256, height=192),
        "6": node("EmptyLatentImage", "direct size", width=768, height=576),
    }


def test_adapt_changes_what_is_drawn():
    prompt = workflow()
    run_demo.adapt(prompt, "a castle", 7, 2.5)
    assert prompt["1"]["inputs"]["text"] == "a castle"
    assert prompt["2"]["inputs"]["noise_seed"] == 7
    assert prompt["3"]["inputs"]["seed"] == ["9", 0]
    assert prompt["4"]["inputs"]["scale"] == 2.5
    assert prompt["5"]["inputs"] == {"width": 256, "height": 192}
    assert prompt["6"]["inputs"] == {"width": 640, "height": 480}


def test_adapt_says_what_a_workflow_lacks():
    with pytest.raises(ValueError, match="no place for a prompt"):
        run_demo.adapt({}, "a castle", None, None)


def test_stages_are_named_after_the_node_that_expands():
    assert run_demo.label(workflow(), "4.0.0.stage2.sample", "4") == "DemoFusion, stage 2"
    assert run_demo.label(workflow(), "4.0.0.decode", "4") == "DemoFusion"


def test_compare_shows_all_four_at_one_size(tmp_path):
    pictures = {}
    for title, side in {"native": 64, "direct": 192, "multidiffusion": 192}.items():
        pictures[title] = tmp_path / f"{title}.png"
        Image.new("RGB", (side, side), "navy").save(pictures[title])
    assert run_demo.compare(pictures) is None
    sheet = run_demo.compare(pictures | {"final": pictures["direct"]})
    assert sheet is not None and sheet.width > 4 * 192 and sheet.height > 192


def test_ports_are_not_those_that_connections_get(tmp_path, monkeypatch):
    assert not {server.free_port() for _ in range(50)} & set(server.ephemeral_ports())
    monkeypatch.setattr(server, "EPHEMERAL", tmp_path / "absent")
    assert server.ephemeral_ports() == range(49_152, 65_536)
    monkeypatch.setattr(server, "EPHEMERAL", tmp_path / "all")
    server.EPHEMERAL.write_text("1024\t65535\n", encoding="ascii")
    assert server.free_port() in server.PORTS  # none is safe, so any
    monkeypatch.setattr(server, "port_is_free", lambda port: False)
    with pytest.raises(host.HostError, match="no free port"):
        server.free_port()


def test_a_port_that_is_none(monkeypatch):
    with pytest.raises(host.HostError, match=r"PORT=70000 .* 1\.\.65535"):
        server.port_is_free(70_000)


def test_a_server_is_ready_when_it_is_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(server.time, "sleep", lambda seconds: None)
    ours = {"system": {"argv": ["main.py", "--base-directory", str(tmp_path)]}}
    answers = [
        ConnectionRefusedError(),
        http.client.BadStatusLine("GET /system_stats HTTP/1.1"),  # a connection to itself
        ValueError("no JSON"),
        ["something else"],
        {"system": {"argv": ["main.py", "--base-directory", "another"]}},
        ours,
        AssertionError("asked again"),
    ]

    def answer(path, timeout):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    started = SimpleNamespace(alive=lambda: True, get_json=answer, base=tmp_path, tail=lambda: "")
    server._wait_ready(started, 60)
    assert len(answers) == 1
    answers[:] = [ours]
    started.alive = lambda: False
    with pytest.raises(host.HostError, match="ended while starting"):
        server._wait_ready(started, 60)


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server, but not ComfyUI."""

    def do_GET(self):
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def stranger():
    """Address of a server that is no ComfyUI."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


CALLS = {
    "submit": lambda at: client.submit(at, {}),
    "queue": lambda at: client.queue(at, {}, "me"),
    "interrupt": client.interrupt,
    "fetch": lambda at: client.fetch(at, {"filename": "a.png"}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_server_is_said_in_one_line(call, stranger):
    url = f"http://127.0.0.1:{server.free_port()}"
    with pytest.raises(
        client.PromptError, match=rf"^no ComfyUI answers at {url} \(.+\): .*make serve.*$"
    ):
        call(SimpleNamespace(url=url))
    with pytest.raises(
        client.PromptError, match=r"^no ComfyUI answers|^the server answered 404"
    ) as said:
        call(SimpleNamespace(url=stranger))
    assert "\n" not in str(said.value)
    with pytest.raises(client.PromptError, match=r"^no ComfyUI answers at localhost:8188 "):
        call(SimpleNamespace(url="localhost:8188"))


OWNER = """
import subprocess, sys, time
child = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
kept = subprocess.Popen([*sys.argv[1:], *child], stdin=subprocess.PIPE, start_new_session=True)
print(kept.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("first", ["owner", "keeper"])
def test_a_server_ends_with_its_owner_however_that_ends(first):
    command = [sys.executable, "-c", OWNER, *server.KEEPER]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = {owner.stdout.readline().strip() for _ in range(2)}
    kept = psutil.Process(int((said - {"up"}).pop()))
    both = kept.children()
    assert len(both) == 2  # what was asked for, and what waits for the owner's end
    if first == "keeper":  # as Ray does it
        kept.kill()
    owner.kill()
    owner.wait()
    gone, alive = psutil.wait_procs([kept, *both], timeout=60)
    for process in alive:
        process.kill()
    assert len(gone) == 3 and not alive


def test_a_kept_command_gets_signals_and_gives_its_code():
    code = "import sys, time; print('up', flush=True); time.sleep(600)"
    for sign, wanted in ((None, 7), (signal.SIGINT, 1)):
        what = "import sys; sys.exit(7)" if sign is None else f"{code}"
        kept = subprocess.Popen(
            [*server.KEEPER, sys.executable, "-c", what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # a suite that runs in a shell's background ignores SIGINT, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        if sign:
            kept.stdout.readline()
            time.sleep(2)  # until it listens for signals
            os.killpg(kept.pid, sign)
        got = kept.wait(60)
        assert got == wanted or (sign and got == 128 + sign)
        left = [process for process in psutil.process_iter() if group_of(process) == kept.pid]
        server._stop(kept)
        assert not psutil.wait_procs(left, timeout=60)[1]


def group_of(process):
    """Its process group; None where it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(process.pid)


def test_the_newest_host_and_its_page(nowhere, monkeypatch):
    monkeypatch.setattr(host, "NEWEST_HOST", nowhere / "newest")
    monkeypatch.setattr(host, "FRONT_ENDS", nowhere / "pages")
    for version in ("1.9.0", "1.10.2"):
        (nowhere / "pages" / version).mkdir(parents=True)
        (nowhere / "pages" / version / "index.html").touch()
    assert host.front_end() is None
    monkeypatch.setenv("HRF_HOST", "newest")
    with pytest.raises(host.HostError, match="make host HOST=newest"):
        host.find_host()
    make_host(nowhere / "newest")
    assert host.find_host() == nowhere / "newest"
    assert host.front_end().name == "1.10.2"
    make_host(nowhere / "theirs")
    monkeypatch.setenv("COMFYUI_PATH", str(nowhere / "theirs"))
    assert host.find_host() == nowhere / "theirs"
    monkeypatch.setenv("HRF_HOST", "oldest")
    with pytest.raises(host.HostError, match="HOST=oldest is unknown"):
        host.front_end()


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: The comfy.samplers.calc_cond_uncond_batch function is deprecated please use",
        "The load_unet function has been deprecated and will be removed please switch",
        "/a/custom_nodes/hires-fusion/nodes/tiled.py:3: DeprecationWarning: io.X goes away",
    ],
)
def test_what_a_host_is_about_to_take_away_is_seen_in_its_log(line):
    others = "/site-packages/a.py:1: DeprecationWarning: b\n[DEPRECATION WARNING] legacy API: c\n"
    assert server.outdated(others + line) == [line]
    assert not server.outdated(others)


def test_a_page_that_cannot_be_had_stops_nothing(nowhere, monkeypatch, capsys):
    def fail(*asked):
        raise host.HostError("no network")

    monkeypatch.setattr(setup_env, "FRONT_ENDS", nowhere / ".cache" / "pages")
    monkeypatch.setattr(setup_env, "get_page", fail)
    setup_env.ensure_page()
    assert "no browser test of the newest page: no network" in capsys.readouterr().out
    known = setup_env.PAGE.read_text(encoding="utf-8").split("==")[1].split()[0]
    (nowhere / ".cache" / "pages" / known).mkdir(parents=True)
    (nowhere / ".cache" / "pages" / known / "index.html").touch()
    setup_env.ensure_page()
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("begun_with", "kept"), [({}, False), ({"OMP_NUM_THREADS": "4"}, True)])
def test_a_server_has_the_threads_that_its_user_wants(monkeypatch, begun_with, kept):
    """Ray sets them to one in its workers, after they began."""
    monkeypatch.setattr(psutil.Process, "environ", lambda self: begun_with)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = server._environment()
    assert found.get("OMP_NUM_THREADS") == ("4" if kept else None) and "PYTHONPATH" not in found
