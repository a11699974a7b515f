"""One chat completion over HTTP: retried, bounded in time and size, silent about keys.

urllib3's Retry decides whether and when to ask again; the loop around it is ours, so that a wait
can be cancelled, the whole call has one time limit, and no library logs an address.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.util.retry import Retry

from .bodies import MOST_WIRE, body_of, content_of
from .line import THREADS, Adapter, Line
from .providers import Provider
from .secrets import CriticError, clean_message, without_key

__all__ = ["THREADS", "FormatRefusedError", "Reply", "RetryableError", "ask"]
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


class RetryableError(Exception):
    """A failed attempt that may be made again: status, or None where no answer came."""

    def __init__(self, message: str, response: Any = None, error: Exception | None = None):
        super().__init__(message)
        self.response = response
        self.error = error


class FormatRefusedError(CriticError):
    """The server refused the request itself (400 or 422), which JSON mode may have caused."""


@dataclass(frozen=True)
class Reply:
    """A model's answer. Tokens are those that the server counted, 0 where it did not say."""

    text: str
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    attempts: int = 1


class _Bearer(requests.auth.AuthBase):
    """Sets the key, or nothing; being there keeps requests from looking into a .netrc file."""

    def __init__(self, key: str):
        self.key = key

    def __call__(self, request):
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def ask(
    provider: Provider,
    body: dict[str, Any],
    stop: threading.Event | None = None,
    deadline: float | None = None,
) -> Reply:
    """POST a chat completion and return its answer.

    Args:
        body: the request as the API takes it: `model`, `messages` and so on.
        stop: ends the call early when set.
        deadline: end of the call in `time.monotonic()`'s seconds; `total_timeout` from now on
            where it is None.

    Raises:
        CriticError: no usable answer; the text says why and what to do.
    """
    stop = stop or threading.Event()
    key = provider.key()
    start = time.monotonic()
    policy = Retry(
        total=provider.retries,
        allowed_methods={"POST"},
        status_forcelist=RETRIED,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        backoff_max=20,
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    deadline = start + provider.total_timeout if deadline is None else deadline
    attempts = 0
    with Line(deadline, stop, MOST_WIRE) as line, requests.Session() as session:
        session.auth = _Bearer(key)
        # A proxy of the environment has no business between us and this machine.
        session.trust_env = not provider.is_local
        for scheme in ("https://", "http://"):
            session.mount(scheme, Adapter(line))
        while True:
            attempts += 1
            try:
                document = _post(session, provider, body, key, line)
                break
            except RetryableError as problem:
                failed = problem
            policy = _next(policy, failed, attempts)
            _wait(_pause(policy, failed.response), str(failed), provider, line)
    text, tokens_in, tokens_out = content_of(document)
    seconds = time.monotonic() - start
    return Reply(without_key(text, key), seconds, tokens_in, tokens_out, attempts)


def _wait(seconds: float, problem: str, provider: Provider, line: Line) -> None:
    """Wait for the next attempt; CriticError where it would come too late, or at a stop."""
    if time.monotonic() + seconds >= line.deadline:
        raise CriticError(
            f"{problem}, and the next attempt would be after {seconds:.0f} s: beyond "
            f"total_timeout ({provider.total_timeout:g} s) in critic.toml"
        )
    if line.stop.wait(seconds):
        raise CriticError("stopped")


def _next(policy: Retry, problem: RetryableError, attempts: int) -> Retry:
    """The policy after one more failure; CriticError when it gives up."""
    try:
        return policy.increment("POST", "", response=problem.response, error=problem.error)
    except (MaxRetryError, HTTPError):
        times = "once" if attempts == 1 else f"{attempts} times"
        raise CriticError(f"{problem} (asked {times})") from None


def _pause(policy: Retry, response: Any) -> float:
    """Seconds until the next attempt."""
    try:
        asked = policy.get_retry_after(response) if response is not None else None
    except (InvalidHeader, ValueError, OverflowError, TypeError):
        asked = None
    return policy.get_backoff_time() if asked is None else asked


def _post(
    session: requests.Session, provider: Provider, body: dict[str, Any], key: str, line: Line
) -> dict[str, Any]:
    """One attempt; the answer's JSON object."""
    left = line.deadline - time.monotonic()
    if left <= 0:
        raise CriticError(f"no answer within {provider.total_timeout:g} s")
    timeout = (min(provider.connect_timeout, left), min(provider.read_timeout, left))
    raw, failure = b"", None
    line.begin()
    try:
        with session.post(
            f"{provider.base_url}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            line.answered()
            raw = body_of(response, line)
    except CriticError as refused:
        failure = refused
    except Exception as problem:  # whatever a server's answer does to the libraries
        failure = _failure(problem, provider, line)
    if failure is not None:
        # Raised out here, it carries no other exception, whose text would name the host.
        raise failure
    status = response.status_code
    if status in RETRIED:
        message = _server_text(raw, provider, key)
        raise RetryableError(f"the server answered {status}{message}", response.raw)
    if status != 200:
        raise _refusal(status, raw, provider, str(body.get("model")), key)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise CriticError(
            "the server's answer is no JSON: check that base_url in critic.toml is that of an "
            "OpenAI-compatible API (most end in /v1)"
        ) from None
    if not isinstance(document, dict):
        raise CriticError("the server's answer is no JSON object")
    return document


def _failure(problem: Exception, provider: Provider, line: Line | None = None) -> Exception:
    """What a failed connection means: an error, or one more attempt."""
    if line is not None and line.over:
        if line.stop.is_set():
            return CriticError("stopped")
        if line.left < 0:
            return CriticError("the server sent more than an answer takes: given up")
        return CriticError(
            f"no whole answer within {provider.total_timeout:g} s: raise total_timeout in "
            "critic.toml, or choose a faster model"
        )
    if isinstance(problem, requests.exceptions.SSLError):
        return CriticError("the server's certificate is not valid: nothing was sent")
    if isinstance(problem, requests.ConnectTimeout):
        error = ConnectTimeoutError("connect")
        return RetryableError(f"no connection within {provider.connect_timeout:g} s", error=error)
    timed_out = (requests.ReadTimeout, ReadTimeoutError, TimeoutError)
    if isinstance(problem, timed_out) or "Read timed out" in str(problem):
        # Not made again: the model may have answered, and be paid for it.
        return CriticError(
            f"no byte for {provider.read_timeout:g} s, or no answer within "
            f"{provider.total_timeout:g} s: raise read_timeout or total_timeout in critic.toml, "
            "or choose a faster model"
        )
    if provider.is_local and "refused" in str(problem):
        # Nothing listens there: to ask again would only take time.
        return CriticError(
            "nothing answers at this provider's port: start its server on this machine, or set "
            f"base_url of [providers.{provider.name}] in critic.toml"
        )
    message = "the server could not be reached, or broke off: check the network"
    return RetryableError(message, error=ProtocolError("connection"))


def _server_text(raw: bytes, provider: Provider, key: str) -> str:
    """`: message` of an error document, cleaned, or nothing."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(document, dict) and name in document:
            document = document[name]
    if isinstance(document, dict):
        document = document.get("message", "")
    if not isinstance(document, str):
        return ""
    return f": {text}" if (text := clean_message(document, key, provider.base_url)) else ""


def _refusal(status: int, raw: bytes, provider: Provider, model: str, key: str) -> CriticError:
    """What a final status means, and what to do."""
    said = _server_text(raw, provider, key)
    if 300 <= status < 400:
        return CriticError(
            "the server redirects to another address, which is refused: set the final address "
            f"as base_url of [providers.{provider.name}] in critic.toml"
        )
    if status in (401, 403):
        variable = provider.key_env or "none; set key_env in critic.toml"
        return CriticError(
            f"the server does not accept the key ({status}{said}): check the environment "
            f"variable with the key ({variable}) and restart ComfyUI"
        )
    if status == 402:
        return CriticError(f"the account has no credit left ({status}{said})")
    if status == 404:
        return CriticError(
            f"the provider knows no model {model!r} ({status}{said}): name another in Critic "
            f"Provider, or change [providers.{provider.name}] in critic.toml"
        )
    if status in (400, 422):
        return FormatRefusedError(f"the server refused the request ({status}{said})")
    return CriticError(f"the server answered {status}{said}")
