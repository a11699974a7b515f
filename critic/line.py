"""The wire of one call: cut at its deadline, at a stop and beyond its size, and silent.

Time-outs of a socket begin anew with every byte, so a server that trickles outlasts them all: in
its status line, headers, interim answers, chunk sizes or trailers. So each byte is counted here,
and the socket is shut down from outside when the call is over, whatever waits on it.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import sys
import threading
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

THREADS = "critic-call"  # beginning of the names of the threads that call
POLL = 0.1  # seconds between two looks at `stop`
MOST_HEAD = 128 * 1024  # bytes before the body: interim answers, status line, headers
_here = threading.local()


class Line:
    """Holds the sockets of a call, and cuts them.

    Args:
        deadline: in `time.monotonic()`'s seconds.
        stop: ends the call when set.
        most: bytes of one attempt's body, chunk sizes and trailers included.
    """

    def __init__(self, deadline: float, stop: threading.Event, most: int):
        self.deadline, self.stop, self.most = deadline, stop, most
        self.left = MOST_HEAD
        self._twins: list[socket.socket] = []
        self._connections: list[Any] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"{THREADS}-watch", daemon=True)

    def __enter__(self) -> Line:
        _silence()
        self._watcher.start()
        _here.calls = getattr(_here, "calls", 0) + 1
        return self

    def __exit__(self, *_: Any) -> None:
        _here.calls -= 1
        self._done.set()
        self._watcher.join()
        self._drop()

    @property
    def late(self) -> bool:
        """Is the deadline over?"""
        return time.monotonic() >= self.deadline

    @property
    def over(self) -> bool:
        """Shall nothing more be sent or read?"""
        return self.stop.is_set() or self.late or self.left < 0

    def begin(self) -> None:
        """A new attempt."""
        self._drop()
        self.left = MOST_HEAD

    def answered(self) -> None:
        """The head of the final answer is here: from now on its body counts."""
        self.left = self.most

    def take(self, count: int) -> None:
        """Count what came; OSError when the call is over."""
        self.left -= count
        if self.over:
            raise OSError("the call is over")

    def hold(self, sock: socket.socket, connection: Any) -> None:
        """Cut `sock` too when the call is over, and close the connection that uses it."""
        # A second handle on the socket: TLS takes the first one away from us.
        with self._lock:
            self._twins.append(sock.dup())
            self._connections.append(connection)
        if self.over:
            self._cut()

    def _watch(self) -> None:
        while not self._done.wait(POLL):
            if self.over:
                # Again and again: a socket may be made while another is cut.
                self._cut()

    def _cut(self) -> None:
        with self._lock:
            for twin in self._twins:
                try:
                    twin.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by the other side already

    def _drop(self) -> None:
        with self._lock:
            for twin in self._twins:
                twin.close()
            # urllib3 loses sight of some, as of one with an interim answer as its last.
            for connection in self._connections:
                connection.close()
            self._twins.clear()
            self._connections.clear()


class _Measured(io.RawIOBase):
    """A socket's file whose bytes are counted."""

    def __init__(self, raw: io.RawIOBase, line: Line):
        self.raw, self.line = raw, line

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any) -> int | None:
        self.line.take(0)
        count = self.raw.readinto(view)
        self.line.take(count or 0)
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


def _connected(connection: Any, line: Line) -> socket.socket:
    """A connected socket that the line holds from before it connects."""
    host = connection.host.strip("[]")
    try:
        found = socket.getaddrinfo(host, connection.port, 0, socket.SOCK_STREAM)
    except socket.gaierror as problem:
        raise NameResolutionError(host, connection, problem) from None
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            wait = line.deadline - time.monotonic()
            if isinstance(connection.timeout, (int, float)):
                wait = min(wait, connection.timeout)
            sock.settimeout(max(wait, 0.001))
            line.hold(sock, connection)
            sock.connect(address)
            sock.settimeout(connection.timeout)
            return sock
        except OSError as failed:
            sock.close()
            problem = failed
            if line.over:
                break
    if isinstance(problem, TimeoutError):
        raise ConnectTimeoutError(connection, "no connection in time") from None
    raise NewConnectionError(connection, f"no connection: {problem}") from None


def _guarded(pool: Any, line: Line) -> Any:
    """A pool's class whose connections run over `line`."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: Any, debuglevel: int = 0, *rest: Any, **named: Any):
            super().__init__(sock, 0, *rest, **named)
            self.fp = io.BufferedReader(_Measured(self.fp.detach(), line))

    class Connection(pool.ConnectionCls):
        # http.client prints what it sends, with the key, where somebody raises its own level.
        debuglevel = 0
        response_class = Answer

        def _new_conn(self) -> socket.socket:
            if "socks" in pool.ConnectionCls.__module__:
                sock = super()._new_conn()
                line.hold(sock, self)
            else:
                sock = _connected(self, line)
            sys.audit("http.client.connect", self, self.host, self.port)
            return sock

    return type("Pool", (pool,), {"ConnectionCls": Connection})


class Adapter(HTTPAdapter):
    """requests' way to servers, over one line."""

    def __init__(self, line: Line):
        self.line = line
        super().__init__()

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self._guard(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **named)
        if not known:
            self._guard(manager)
        return manager

    def _guard(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: _guarded(pool, self.line)
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


class _Silent(logging.Filter):
    """Drops what libraries log in our calls: it names hosts, and what servers wrote."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_here, "calls", 0)


_SILENT = _Silent()


def _silence() -> None:
    # All of them: a record passes the filters of its own logger and of every handler, no others.
    loggers = [log for log in logging.root.manager.loggerDict.values() if hasattr(log, "handlers")]
    for log in (logging.root, *loggers):
        for place in (log, *log.handlers):
            place.addFilter(_SILENT)
