"""Servers that hold the line: every call ends in time, leaves nothing behind, and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from hires_fusion.critic import ensemble, roles
from hires_fusion.critic.client import ask
from hires_fusion.critic.providers import Provider
from hires_fusion.critic.secrets import CriticError

from .raw import (
    ANSWER,
    BODY,
    LONG,
    OK,
    PROMPT,
    SOON,
    Raw,
    fails,
    hang_up,
    ours,
    servers,
    settled,
    sockets,
)


@pytest.fixture
def raw(monkeypatch) -> Iterator:
    with servers(monkeypatch) as start:
        yield start


def drip(before: bytes, piece: bytes = b"x", pause: float = 0.05):
    """`before` at once, and then `piece` again and again until the other side hangs up."""

    def serve(connection):
        connection.sendall(before)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return serve


def flood(before: bytes, piece: bytes):
    return drip(before, piece * max(1, 8192 // len(piece)), 0)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        continue


SLOW = {
    "silence": silent,
    "status line": drip(b"HTTP/1.1 200 "),
    "reason without end": drip(b"", b"H"),
    "headers": drip(OK + b"X: 1\r\n", b"x"),
    "header lines": drip(OK, b"X: 1\r\n"),
    "interim answers": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim headers": drip(b"HTTP/1.1 103 Early Hints\r\n", b"X: 1\r\n"),
    "body": drip(OK + b"Content-Length: 9000\r\n\r\n", b" "),
    "body without length": drip(OK + b"\r\n", b" "),
    "chunk size": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "chunks": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": drip(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X: 1\r\n"),
    "refusal": drip(b"HTTP/1.1 503 Busy\r\nContent-Length: 9000\r\n\r\n", b" "),
    "redirect": drip(b"HTTP/1.1 307 Go\r\nLocation: /\r\nContent-Length: 9000\r\n\r\n", b" "),
}
FLOODS = {
    "interim answers": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers of no number": flood(b"", b"HTTP/1.1 199 X\r\n\r\n"),
    "status line": flood(b"HTTP/1.1 200 ", b"x"),
    "headers": flood(OK, b"X: 1\r\n"),
    "one header": flood(OK + b"X: ", b"x"),
    "header continued": flood(OK + b"X: 1\r\n", b" x\r\n"),
    "chunk size": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n"),
    "body": flood(OK + b"\r\n", b" "),
}


@pytest.mark.parametrize("serve", SLOW.values(), ids=SLOW)
def test_a_slow_server_is_left_at_the_total_time(raw, serve):
    provider, _ = raw(serve)
    fails(provider, "no whole answer within 1 s")
    assert not ours()


@pytest.mark.parametrize("serve", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_left_at_its_bound(raw, serve):
    provider, server = raw(serve, total_timeout=40)
    start = time.monotonic()
    with pytest.raises(CriticError, match=r"sent more than|broke off|answered 199"):
        ask(provider, BODY)
    assert time.monotonic() - start < 20
    assert not ours() and server.served == 1


@pytest.mark.parametrize("serve", [*SLOW.values(), *FLOODS.values()], ids=[*SLOW, *FLOODS])
def test_after_a_cancel_nothing_is_left(raw, serve):
    before = threading.active_count()
    provider, server = raw(serve, total_timeout=LONG, read_timeout=LONG)
    start = time.monotonic()

    class Cancelled(BaseException):
        pass

    def check():
        if time.monotonic() - start > 0.3:
            raise Cancelled

    held = sockets()
    with contextlib.suppress(Cancelled):  # a flood may be over before
        asyncio.run(ensemble.watched(roles.decompose(provider, PROMPT), check))
    assert time.monotonic() - start < SOON
    settled(held)
    assert threading.active_count() <= before + len(server.threads)


def test_a_plain_event_stops_a_silent_call(raw):
    provider, _ = raw(SLOW["silence"], total_timeout=LONG, read_timeout=LONG)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    with pytest.raises(CriticError, match="stopped"):
        ask(provider, BODY, stop)
    assert time.monotonic() - start < SOON
    settled(sockets())


def test_a_server_that_does_not_take_the_request_is_left(raw):
    left = threading.Event()
    provider, _ = raw(lambda connection: left.wait(LONG), total_timeout=0.6)
    body = BODY | {"messages": [{"role": "user", "content": "x" * 20_000_000}]}
    start = time.monotonic()
    with pytest.raises(CriticError, match="no whole answer within"):
        ask(provider, body)
    left.set()
    assert time.monotonic() - start < SOON and not ours()


def test_a_connection_that_is_never_made_is_left_at_a_stop():
    """A listener whose queue is full answers no further request for a connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        provider = Provider("test", url, connect_timeout=LONG, total_timeout=LONG, retries=0)
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        start = time.monotonic()
        with pytest.raises(CriticError, match="stopped"):
            ask(provider, BODY, stop)
        assert time.monotonic() - start < SOON and not ours()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A file with a key and a certificate of this machine that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    path = str(tmp_path_factory.mktemp("tls") / "own.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path
         + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(path, "a") as sink, open(path + ".crt") as source:
        sink.write(source.read())
    return path


@pytest.mark.parametrize("stage", ["handshake", "headers", "answer"])
def test_over_tls(raw, certificate, monkeypatch, stage):
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate + ".crt")
    monkeypatch.setattr(Provider, "is_local", False)

    class Tls(Raw):
        def one(self, connection):
            with connection, contextlib.suppress(OSError):
                if stage == "handshake":
                    connection.recv(65536)
                    drip(b"\x16\x03\x03\x3f\xff", b"\2")(connection)
                with server_side.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(65536)
                    if stage == "headers":
                        drip(OK, b"X: 1\r\n")(wrapped)
                    wrapped.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
                    hang_up(wrapped)

    server = Tls(None)
    try:
        url = server.url.replace("http:", "https:")
        provider, _ = raw(lambda _: None, base_url=url)
        if stage == "answer":
            assert ask(provider, BODY).text == "fine"
        else:
            fails(provider, "no whole answer within 1 s|certificate")
    finally:
        server.close()
    assert not ours()


def test_a_slow_proxy_is_left_too(raw, monkeypatch):
    proxy, server = raw(drip(b"HTTP/1.1 200 ", b"x"))
    monkeypatch.setenv("HTTPS_PROXY", server.url.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    provider = dataclasses.replace(proxy, base_url="https://llm.invalid/v1")
    fails(provider, "no whole answer within 1 s")
    assert server.served == 1 and not ours()


def test_total_time_is_for_one_answer_with_all_its_requests(raw):
    """JSON mode refused, an answer nobody can read, and asked again: one limit for all."""
    asked = []

    def serve(connection):
        asked.append(time.monotonic())
        time.sleep(1)
        body = json.dumps({"choices": [{"message": {"content": "no idea"}}]}).encode()
        status = b"HTTP/1.1 400 No" if len(asked) == 1 else b"HTTP/1.1 200 OK"
        connection.sendall(status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    provider, _ = raw(serve, total_timeout=2.6)
    done = asyncio.run(roles.decompose(provider, PROMPT))
    assert len(asked) == 3
    assert done.failed and done.value == [PROMPT] and "within 2.6 s" in done.report()


def test_a_closed_server_costs_no_prompt(raw):
    provider, server = raw(lambda connection: None, retries=1, total_timeout=3)
    done = asyncio.run(roles.decompose(provider, PROMPT))
    assert done.value == [PROMPT] and done.failed and server.served == 2
