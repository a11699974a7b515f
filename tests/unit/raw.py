"""Servers of bare sockets, and what must be left of a call to one: nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hires_fusion.critic.client import ask
from hires_fusion.critic.line import THREADS
from hires_fusion.critic.providers import Provider
from hires_fusion.critic.secrets import CriticError

KEY = "sk-4f9a8b7c6d5e4f3a2b1c"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
OK = b"HTTP/1.1 200 OK\r\n"
SOON, LONG = 45.0, 120.0  # seconds: what a busy machine takes at most, and what must be cut short
PROMPT = "a red balloon over snowy mountains"
ANSWER = b'{"choices": [{"message": {"content": "fine"}}]}'


def hang_up(connection: socket.socket) -> None:
    """End what is sent, and wait for the other side: a close with bytes unread is a reset."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        continue


class Raw:
    """A server of sockets: `serve(connection)` for each connection, in a thread of its own."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.serve, self.served = serve, 0
        self.threads = [threading.Thread(target=self.loop, daemon=True)]
        self.threads[0].start()

    def loop(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.served += 1
                self.threads.append(
                    threading.Thread(target=self.one, args=(connection,), daemon=True)
                )
                self.threads[-1].start()

    def one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(LONG)
            connection.recv(65536)
            self.serve(connection)
            hang_up(connection)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(10)


@contextlib.contextmanager
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A function (serve, **changes) -> (provider, server); the servers end with the block."""
    monkeypatch.setenv("CRITIC_TEST_KEY", KEY)
    running = []

    def start(serve, **changes):
        running.append(Raw(serve))
        settings = {
            "connect_timeout": 5,
            "read_timeout": 5,
            "total_timeout": 1.0,
            "retries": 0,
            "llms": ("a",),
            "aggregator": "a",
        }
        url = changes.pop("base_url", running[-1].url)
        return Provider("test", url, "CRITIC_TEST_KEY", **(settings | changes)), running[-1]

    try:
        yield start
    finally:
        for server in running:
            server.close()


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(THREADS)]


def sockets() -> int:
    """Open descriptors that are sockets; 0 where the system does not list them."""
    found = 0
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


def settled(before: int, within: float = SOON) -> None:
    """Soon there are no threads of ours, and no more sockets than before."""
    end = time.monotonic() + within
    while (ours() or sockets() > before) and time.monotonic() < end:
        time.sleep(0.02)
    assert not ours() and sockets() <= before


def fails(provider: Provider, match: str, within: float = SOON) -> None:
    start = time.monotonic()
    with pytest.raises(CriticError, match=match) as caught:
        ask(provider, BODY)
    assert time.monotonic() - start < within
    problem: BaseException | None = caught.value
    while problem is not None:  # also what a traceback or an error reporter would show
        assert KEY not in repr(problem) and "127.0.0.1" not in repr(problem)
        problem = problem.__cause__ or problem.__context__
