"""Answers in odd wrappings: compression, heads of any kind; and nothing of them is written."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import logging
import warnings
import zlib
from collections.abc import Iterator

import pytest

from hires_fusion.critic import roles
from hires_fusion.critic.client import ask
from hires_fusion.critic.secrets import CriticError

from .raw import ANSWER, BODY, KEY, OK, PROMPT, fails, servers, settled


@pytest.fixture
def raw(monkeypatch) -> Iterator:
    with servers(monkeypatch) as start:
        yield start


@pytest.mark.parametrize(
    ("coding", "body", "text"),
    [
        ("gzip", gzip.compress(ANSWER), "fine"),
        ("x-gzip", gzip.compress(ANSWER), "fine"),
        ("GZIP", gzip.compress(ANSWER), "fine"),
        ("deflate", zlib.compress(ANSWER), "fine"),
        ("deflate", zlib.compress(ANSWER)[2:-4], "fine"),
        ("gzip, gzip", gzip.compress(gzip.compress(ANSWER)), "fine"),
        ("identity", ANSWER, "fine"),
        ("", gzip.compress(ANSWER), "fine"),
    ],
)
def test_compression_that_nobody_asked_for_is_undone(raw, coding, body, text):
    head = b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body))
    provider, _ = raw(lambda connection: connection.sendall(OK + head + body))
    assert ask(provider, BODY).text == text


@pytest.mark.parametrize(
    ("coding", "body", "says"),
    [
        ("br", b"\x0b\x02", "compressed its answer in a way"),
        ("zstd", b"(\xb5/\xfd", "compressed its answer in a way"),
        ("gzip, gzip, gzip", b"x", "compressed its answer in a way"),
        ("gzip", ANSWER, "says that it is gzip, and is not"),
        ("gzip", gzip.compress(b" " * 300_000_000, 1), "more than 1 MB"),
        ("deflate", zlib.compress(b" " * 300_000_000, 1), "more than 1 MB"),
        ("gzip", gzip.compress(ANSWER)[:-9], "broke off"),
    ],
)  # fmt: skip
def test_compression_that_cannot_be_undone_is_named(raw, coding, body, says):
    head = b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body))
    provider, _ = raw(lambda connection: connection.sendall(OK + head + body), total_timeout=4)
    fails(provider, says)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -5", b"Content-Length: 5, 7", b"Content-Length: " + b"9" * 5000,
        b"Content-Length: 99999999999999999999", b"Content-Length: five", b": no name",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Content-Type: text/event-stream",
        b"Content-Encoding: \xff\xfe", b"\xff\xfe: x", b"X\x00: 1", b"Location: http://[",
        b"Set-Cookie: a=b; Domain=\xff", b"Connection: \x00", b"Retry-After: " + b"9" * 5000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 301, 429, 503, 999, 204])
def test_a_head_of_any_kind_is_an_answer_or_an_error(raw, head, status):
    line = b"HTTP/1.1 %d X\r\n" % status
    provider, _ = raw(lambda connection: connection.sendall(line + head + b"\r\n\r\n" + ANSWER))
    with contextlib.suppress(CriticError):
        assert ask(provider, BODY).text == "fine"
    done = asyncio.run(roles.decompose(provider, PROMPT))
    assert done.value == [PROMPT] and done.failed
    settled(10**6)


def test_nothing_of_a_call_is_logged_printed_or_warned(raw, caplog, capfd, monkeypatch):
    """Headers without a colon, raised levels, warnings: whatever the libraries would write."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 2)
    own = logging.StreamHandler()
    loggers = [logging.getLogger(name) for name in (
        "urllib3", "urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry", "requests",
        "http.client", "some.instrument",
    )]  # fmt: skip
    for log in loggers:
        monkeypatch.setattr(log, "level", logging.DEBUG)
        log.addHandler(own)
    heads = [
        b"Your key is %s and the host 127.0.0.1\r\nX: 1\r\n" % KEY.encode(),
        b"X: 1\r\n Bearer %s\r\n\tmore\r\n" % KEY.encode(),
        b"Bearer %s: x\r\nno colon\r\n" % KEY.encode(),
    ]
    try:
        for head in heads:
            for status in (b"200 OK", b"401 " + KEY.encode(), b"503 Busy", KEY.encode()):
                message = b"HTTP/1.1 %s\r\n%sContent-Length: 0\r\n\r\n" % (status, head)
                provider, _ = raw(lambda connection, m=message: connection.sendall(m))
                with warnings.catch_warnings(record=True) as warned:
                    warnings.simplefilter("always")
                    with pytest.raises(CriticError):
                        ask(provider, BODY)
                    done = asyncio.run(roles.decompose(provider, PROMPT))
                assert done.value == [PROMPT] and KEY not in done.report()
                assert not [w for w in warned if KEY in str(w.message) or "127.0" in str(w.message)]
    finally:
        for log in loggers:
            log.removeHandler(own)
    written = "".join(capfd.readouterr()) + caplog.text
    assert KEY not in written and "127.0.0.1" not in written and "urllib3" not in written
    logging.getLogger("urllib3.connection").warning("still heard outside of calls")
    assert "still heard" in caplog.text
