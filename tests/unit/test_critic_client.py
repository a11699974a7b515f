"""A server that fails in every way it can: a right result or a clear error, in bounded time."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from werkzeug import Response

from hires_fusion.critic import client
from hires_fusion.critic.client import FormatRefusedError, ask
from hires_fusion.critic.providers import Provider
from hires_fusion.critic.secrets import CriticError
from tools.server import free_port

KEY = "sk-4f9a8b7c6d5e4f3a2b1c"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
SOON = 45  # seconds: more than a busy laptop takes, less than what must not be waited for
PATH = "/v1/chat/completions"


def good(text="fine", **more):
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage} | more)


@pytest.fixture(autouse=True)
def bounded(caplog, monkeypatch) -> Iterator[None]:
    """Whatever happens: soon over, and nothing in the log that names a key or a host."""
    monkeypatch.setenv("CRITIC_TEST_KEY", KEY)
    monkeypatch.setattr(threading.current_thread(), "name", client.THREADS)
    caplog.set_level(logging.DEBUG)
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON
    assert KEY not in caplog.text and "127.0.0.1" not in caplog.text


@pytest.fixture
def provider(httpserver):
    return Provider(
        "test",
        httpserver.url_for("/v1"),
        "CRITIC_TEST_KEY",
        connect_timeout=1,
        read_timeout=30,
        total_timeout=90,
        retries=2,
    )


def fails(provider, match, kind=CriticError):
    with pytest.raises(kind, match=match) as caught:
        ask(provider, BODY)
    said = "".join(str(part) for part in (caught.value, caught.value.__cause__))
    assert KEY not in said and "127.0.0.1" not in said and "://" not in said
    return str(caught.value)


def test_an_answer(httpserver, provider):
    httpserver.expect_request(
        PATH, method="POST", headers={"Authorization": f"Bearer {KEY}"}, json=BODY
    ).respond_with_data(good())
    reply = ask(provider, BODY)
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.attempts) == ("fine", 3, 5, 1)
    assert 0 < reply.seconds < SOON


def test_without_a_key_no_header_is_sent(httpserver, provider, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    httpserver.expect_request(PATH).respond_with_data(good())
    ask(dataclasses.replace(provider, key_env=""), BODY)
    assert "Authorization" not in httpserver.log[0][0].headers


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(httpserver, provider, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    httpserver.expect_request(PATH).respond_with_data(good())
    assert ask(provider, BODY).text == "fine"


def test_429_waits_as_long_as_it_is_told(httpserver, provider):
    wait = {"Retry-After": "1"}
    httpserver.expect_ordered_request(PATH).respond_with_data("slow down", 429, wait)
    httpserver.expect_ordered_request(PATH).respond_with_data(good())
    reply = ask(provider, BODY)
    assert reply.attempts == 2 and 1 <= reply.seconds < SOON


def test_429_that_asks_for_too_long_is_given_up_at_once(httpserver, provider):
    start = time.monotonic()
    httpserver.expect_request(PATH).respond_with_data("", 429, {"Retry-After": "3600"})
    fails(provider, "429.*after 3600 s: beyond total_timeout")
    assert time.monotonic() - start < SOON


@pytest.mark.parametrize("header", ["soon", "9" * 5000, "-5", "", "Sat, 99 Foo 2026 99:99:99 GMT"])
def test_a_senseless_retry_after(httpserver, provider, header):
    httpserver.expect_ordered_request(PATH).respond_with_data("", 503, {"Retry-After": header})
    httpserver.expect_ordered_request(PATH).respond_with_data(good())
    assert ask(provider, BODY).attempts == 2


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_two_failures_and_then_an_answer(httpserver, provider, status):
    for _ in range(2):
        httpserver.expect_ordered_request(PATH).respond_with_data("<h1>oops</h1>", status)
    httpserver.expect_ordered_request(PATH).respond_with_data(good())
    assert ask(provider, BODY).attempts == 3


def test_an_end_of_retries(httpserver, provider):
    httpserver.expect_request(PATH).respond_with_json(
        {"error": {"message": f"overloaded, key {KEY}, see http://127.0.0.1/x"}}, 503
    )
    assert fails(provider, "503: overloaded").endswith("(asked 3 times)")
    assert len(httpserver.log) == 3


def test_a_stalled_answer_is_not_asked_again(httpserver, provider):
    def stall(request):
        time.sleep(1)
        return Response(good())

    httpserver.expect_request(PATH).respond_with_handler(stall)
    impatient = dataclasses.replace(provider, read_timeout=0.4)
    fails(impatient, "no byte for 0.4 s.*raise read_timeout")
    assert len(httpserver.log) <= 1


class Raw:
    """A server of one socket: `serve(connection, number)` for each connection."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.served = 0
        self.serve = serve
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                self.served += 1
                try:
                    self.serve(connection, self.served)
                except OSError:
                    continue


@pytest.fixture
def raw(provider):
    """`raw(serve)` -> (provider, server)."""
    servers = []

    def start(serve):
        servers.append(Raw(serve))
        return dataclasses.replace(provider, base_url=servers[-1].url), servers[-1]

    yield start
    for server in servers:
        server.socket.close()


def http(body: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{body}".encode()


def test_a_cut_connection_is_asked_again(raw):
    def serve(connection, number):
        if number == 2:
            connection.sendall(http("{", 5000))  # cut in the middle of the answer
        elif number == 3:
            connection.sendall(http(good()))

    provider, _ = raw(serve)
    assert ask(provider, BODY).attempts == 3


def test_a_connection_that_is_always_cut(raw):
    provider, server = raw(lambda connection, number: None)
    fails(provider, r"broke off.*\(asked 3 times\)")
    assert server.served == 3


def test_no_server_at_all(provider):
    provider = dataclasses.replace(provider, base_url=f"http://127.0.0.1:{free_port()}/v1")
    fails(provider, "nothing answers at this provider's port: start its server")


def test_a_trickle_ends_with_the_total_time(raw):
    def serve(connection, number):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(80):
            connection.sendall(b" ")
            time.sleep(0.05)

    provider, _ = raw(serve)
    fails(dataclasses.replace(provider, total_timeout=1), "no whole answer within 1 s")


def test_what_is_no_http(raw):
    provider, _ = raw(lambda connection, number: connection.sendall(b"\x00SSH-2.0 hello\r\n" * 9))
    fails(provider, "broke off: check the network")


def test_a_stop_ends_a_wait_and_an_answer(httpserver, provider, raw):
    stop = threading.Event()
    httpserver.expect_request(PATH).respond_with_data("", 429, {"Retry-After": "80"})
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    with pytest.raises(CriticError, match="stopped"):
        ask(provider, BODY, stop)
    assert time.monotonic() - start < SOON

    trickling, _ = raw(lambda connection, number: connection.sendall(http(" ", 5000)))
    with pytest.raises(CriticError, match="stopped"):
        ask(trickling, BODY, stop)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_the_key_goes_nowhere(httpserver, provider, raw, status):
    _, other = raw(lambda connection, number: connection.sendall(http(good("stolen"))))
    target = {"Location": other.url + "/chat/completions"}
    httpserver.expect_request(PATH).respond_with_data("", status, target)
    fails(provider, "redirects to another address")
    assert other.served == 0


@pytest.mark.parametrize("chunked", [True, False])
def test_ten_megabytes_are_given_up(httpserver, provider, chunked):
    def handler(request):
        if chunked:
            return Response(b" " * 65536 for _ in range(160))
        return Response(good("x" * 10_000_000))

    httpserver.expect_request(PATH).respond_with_handler(handler)
    fails(provider, "more than 1 MB")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<!doctype html><title>Sign in</title>", "no JSON: check that base_url"),
        ('{"choices": [', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("\xff\xfe", "no JSON"),
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "holds no text"),
        ('{"choices": []}', "holds no text"),
        ('{"choices": null}', "holds no text"),
        ('{"choices": [null]}', "holds no text"),
        ('{"choices": {"0": 1}}', "holds no text"),
        ('{"choices": [{"message": "hi"}]}', "holds no text"),
        ('{"choices": [{"message": {"content": null}}]}', "holds no text"),
        ('{"choices": [{"message": {"content": {"a": 1}}}]}', "holds no text"),
        ('{"choices": [{"message": {"content": [1, {"text": 2}]}}]}', "is empty"),
        ('{"choices": [{"message": {"content": " "}, "finish_reason": "length"}]}', "thinking_tok"),
        ('{"error": {"message": "boom"}}', "holds no text"),
    ],
)
def test_wrong_documents(httpserver, provider, body, says):
    httpserver.expect_request(PATH).respond_with_data(body.encode("latin-1"))
    fails(provider, says)


@pytest.mark.parametrize("usage", [None, 7, {}, {"prompt_tokens": "many"}, {"prompt_tokens": -1}])
def test_odd_usage_counts_nothing(httpserver, provider, usage):
    httpserver.expect_request(PATH).respond_with_data(good(usage=usage))
    assert ask(provider, BODY).tokens_in == 0


def test_text_in_parts(httpserver, provider):
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    httpserver.expect_request(PATH).respond_with_data(good(parts))
    assert ask(provider, BODY).text == "ab"


def test_a_key_that_comes_back_is_taken_out(httpserver, provider):
    httpserver.expect_request(PATH).respond_with_data(good(f"your key is {KEY}!"))
    assert ask(provider, BODY).text == "your key is [key]!"


@pytest.mark.parametrize(
    ("status", "document", "says"),
    [
        (401, {"error": {"message": f"Incorrect key {KEY[:12]}***"}}, r"key.*401.*CRITIC_TEST_KEY"),
        (403, {"detail": "no"}, "403: no"),
        (402, {"error": "pay"}, "no credit left"),
        (404, {"error": {"message": "model m was retired"}}, "no model 'm'.*retired.*critic.toml"),
        (400, {"message": "response_format"}, "refused the request"),
        (422, {"detail": [{"loc": 1}]}, "refused the request"),
        (418, {"error": {"message": {"deep": 1}}}, "answered 418"),
        (501, [1], "answered 501"),
    ],
)
def test_refusals_say_what_to_do(httpserver, provider, status, document, says):
    httpserver.expect_request(PATH).respond_with_json(document, status)
    said = fails(provider, says)
    assert len(httpserver.log) == 1 and KEY[:12] not in said
    assert status not in (400, 422) or fails(provider, says, FormatRefusedError)


def test_a_certificate_that_is_not_valid(provider):
    problem = client.requests.exceptions.SSLError(f"https://{KEY}")
    assert str(client._failure(problem, provider)).startswith("the server's certificate")


def test_no_connection_in_time(provider):
    problem = client.requests.ConnectTimeout("host 127.0.0.1")
    assert str(client._failure(problem, provider)) == "no connection within 1 s"


def test_no_attempt_is_begun_after_the_end(provider):
    with pytest.raises(CriticError, match="no answer within 90 s"):
        ask(provider, BODY, None, time.monotonic())
