"""Several models at once: calls in threads, awaited so that a cancel is seen at once."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .client import THREADS, FormatRefusedError, Reply, ask
from .prompts import roles
from .providers import Provider
from .report import Call
from .secrets import CriticError, scrubbed

Value = TypeVar("Value")
POLL = 0.1  # seconds between two looks at the cancel button
GRACE = 1.0  # seconds that a call may run over its total_timeout before it is abandoned
_slots: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Question(Generic[Value]):
    """A question and how its answer is read.

    Attributes:
        user: a text, or parts of the chat API (text and picture).
        read: the reply's text -> the answer; None asks once more.
        schema: JSON schema of the answer, for servers that can be held to one.
    """

    role: str
    model: str
    user: str | list[dict[str, Any]]
    read: Callable[[str], Value | None]
    schema: dict[str, Any] | None = None


def in_thread(function: Callable[..., Any], *args: Any) -> asyncio.Future:
    """Run in a thread of its own that does not keep the process alive.

    The loop's own executor would make the host wait for a call that nobody wants any more.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(setter: str, value: Any) -> None:
        if not future.done():
            getattr(future, setter)(value)

    def work() -> None:
        try:
            outcome = ("set_result", function(*args))
        except Exception as problem:
            outcome = ("set_exception", problem)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            return  # the loop is closed: the run was cancelled

    threading.Thread(target=work, name=THREADS, daemon=True).start()
    return future


def slots(provider: Provider) -> asyncio.Semaphore:
    """What bounds the answers at once of a provider, over all nodes of a run."""
    known = _slots.setdefault(asyncio.get_running_loop(), {})
    return known.setdefault((provider.name, provider.concurrency), asyncio.Semaphore(
        provider.concurrency
    ))  # fmt: skip


async def call(provider: Provider, body: dict[str, Any], deadline: float) -> Reply:
    """One request's answer before `deadline`, in `time.monotonic()`'s seconds."""
    stop = threading.Event()
    try:
        future = in_thread(ask, provider, body, stop, deadline)
        return await asyncio.wait_for(future, max(0.0, deadline - time.monotonic()) + GRACE)
    except asyncio.TimeoutError:
        raise CriticError(f"no whole answer within {provider.total_timeout:g} s") from None
    except (OSError, RuntimeError, MemoryError):
        raise CriticError(
            "this machine has no thread, file or memory left for the call: close other programs, "
            "or lower concurrency in critic.toml"
        ) from None
    finally:
        stop.set()


def _read(question: Question[Value], text: str, key: str) -> Value | None:
    """The answer in a reply, without the key; None for what cannot be read."""
    try:
        return scrubbed(question.read(text), key) or None
    except Exception:  # a reply must not cost the user's prompt, whatever it does to its reader
        return None


def body_of(provider: Provider, question: Question, messages: list, mode: str) -> dict[str, Any]:
    """The request. `mode`: how JSON is asked for, "text" for not at all."""
    role = roles()[question.role]
    body = {
        "model": question.model,
        "messages": messages,
        "temperature": role.temperature,
        provider.max_tokens_name: role.max_tokens + provider.thinking_tokens,
    }
    if question.schema and mode == "schema":
        form = {"name": question.role, "strict": True, "schema": question.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    elif question.schema and mode == "object":
        body["response_format"] = {"type": "json_object"}
    return body


async def answer(provider: Provider, question: Question[Value]) -> tuple[Value | None, Call]:
    """A model's answer, asked once more where it cannot be read; None where that fails.

    `total_timeout` is for all of it: retries, without JSON mode, and the second asking.
    """
    async with slots(provider):
        return await _answer(provider, question, time.monotonic() + provider.total_timeout)


async def _answer(
    provider: Provider, question: Question[Value], deadline: float
) -> tuple[Value | None, Call]:
    role = roles()[question.role]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": role.system},
        {"role": "user", "content": question.user},
    ]
    mode = provider.json
    start, tokens_in, tokens_out, asked = time.monotonic(), 0, 0, 0
    problem, value = "", None
    try:
        while value is None and asked < 2:
            asked += 1
            try:
                reply = await call(provider, body_of(provider, question, messages, mode), deadline)
            except FormatRefusedError:
                if not question.schema or mode == "text":
                    raise
                # The server may not know response_format: the reply is read with repair anyway.
                mode = "text"
                reply = await call(provider, body_of(provider, question, messages, mode), deadline)
            tokens_in += reply.tokens_in
            tokens_out += reply.tokens_out
            value = await in_thread(_read, question, reply.text, provider.key())
            if value is None:
                problem = "its answer could not be read, asked twice"
                again = roles()["again"].filled(problem="its form was wrong.")
                messages += [
                    {"role": "assistant", "content": reply.text[:2000]},
                    {"role": "user", "content": again},
                ]
    except CriticError as refused:
        problem = str(refused)
    spent = Call(
        question.role,
        question.model,
        "" if value is not None else problem,
        time.monotonic() - start,
        tokens_in,
        tokens_out,
        provider.cost(question.model, tokens_in, tokens_out),
        asked,
    )
    return value, spent


async def watched(work: Coroutine[Any, Any, Value], check: Callable[[], None]) -> Value:
    """Await `work`, looking at `check` every 0.1 s; what it raises ends the work."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            check()
            await asyncio.wait([task], timeout=POLL)
        check()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def ask_all(
    provider: Provider, questions: list[Question[Value]]
) -> tuple[list[tuple[str, Value]], list[Call]]:
    """Ask at once; (model, answer) of those that answered, in order, and all calls."""
    found = await asyncio.gather(*(answer(provider, question) for question in questions))
    answers = [(c.model, value) for value, c in found if value is not None]
    return answers, [c for _, c in found]
