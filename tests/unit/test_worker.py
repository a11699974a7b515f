"""What a worker makes of what its server does; the server is a stub."""

from __future__ import annotations

import threading
import time

import pytest

from tools import client
from tools.runs import worker
from tools.runs.worker import Worker

FILE = {"filename": "a_00001_.png", "subfolder": "", "type": "output"}
TEMP = {"filename": "b_00001_.png", "subfolder": "", "type": "temp"}


@pytest.fixture
def served(monkeypatch):
    """`served(outcome)`: a worker whose server does that: an exception, or what nodes showed."""

    def make(outcome, **options):
        def submit(server, prompt, *args, on_queued, **more):
            on_queued("id")
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(client, "submit", submit)
        monkeypatch.setattr(client, "ask", lambda *args, **more: None)
        monkeypatch.setattr(client, "fetch", lambda server, file, patience: file["type"].encode())
        monkeypatch.setattr(client, "cancel", lambda server, number: stopped.append(number))
        return Worker("http://127.0.0.1:1", **options)

    stopped = make.stopped = []
    return make


def shown(**nodes):
    return client.Result("id", outputs=nodes)


@pytest.mark.parametrize(
    ("outcome", "kind", "said"),
    [
        (client.PromptError("Draw: refused"), "error", "Draw: refused"),
        (client.Result("id", error="Draw: out of memory"), "error", "out of memory"),
        (client.Result("id", interrupted=True), "error", "interrupted"),
        (TimeoutError(), "error", "did not end within 9 s"),
        (client.Result("id", error="Save: [Errno 28] No space left on device"), "full", "Save"),
    ],
)
def test_whose_fault_it_was(served, outcome, kind, said):
    told = served(outcome, timeout=9).run({}, {})
    assert list(told) == [kind] and said in told[kind]


def test_a_lost_server_is_for_whoever_tries_again(served):
    one = served(client.NoServer("lost the server while the workflow ran"))
    with pytest.raises(ConnectionError, match="lost the server"):
        one.run({}, {})
    assert served.stopped == ["id"]  # it may run there still
    one = served(shown(save={"images": [FILE]}))
    one.mishaps = ["the server ended"]
    assert one.run({}, {})["mishaps"] == ["the server ended"] and not one.mishaps


def test_what_is_kept(served):
    nodes = {"save": {"images": [FILE]}, "show": {"images": [TEMP], "text": ["a", 2]}}
    told = served(shown(**nodes)).run({}, {})
    assert [content for *_, content in told["files"]] == [b"output"]
    assert told["texts"] == {"show": "a\n2"} and told["seconds"] >= 0
    told = served(shown(**nodes), previews=True).run({}, {})
    assert [content for *_, content in told["files"]] == [b"output", b"temp"]
    told = served(shown(show=nodes["show"])).run({}, {})  # nothing else was made
    assert [kind for _, kind, *_ in told["files"]] == [".png"]


def test_a_server_that_was_there_is_waited_for(monkeypatch):
    asked = []

    def ask(server, *args, **more):
        asked.append(server.url)
        if len(asked) != 4:
            raise client.NoServer(f"no ComfyUI answers at {server.url}")

    monkeypatch.setattr(client, "ask", ask)
    one = Worker("http://127.0.0.1:1", patience=0.01)
    monkeypatch.setattr(one.closing, "wait", lambda seconds: False)
    assert "no ComfyUI answers" in one.run({}, {})["gone"] and len(asked) == 1
    one.met = True
    one.patience = 60
    assert one.address().url == "http://127.0.0.1:1" and len(asked) == 4
    one.close()
    with pytest.raises(worker.Gone, match="told to stop"):
        one.address()


def test_a_row_that_comes_while_the_server_starts_waits_for_it(monkeypatch):
    """Two servers where one was asked for would share its GPU, and one would never end."""
    begun, found = [], []

    def start(self):
        begun.append(self)
        time.sleep(0.2)
        return type("Started", (), {"alive": lambda self: True})()

    monkeypatch.setattr(Worker, "start", start)
    one = Worker()
    calls = [threading.Thread(target=lambda: found.append(one.address())) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert len(begun) == 1 and found[0] is found[1]
