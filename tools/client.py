"""Run a workflow in API format on a ComfyUI server and get its files, times and errors.

Why not `comfy run` of comfy-cli: 23 packages with two analytics clients among them, no seconds
per node, no progress of nodes inside an expansion, no interrupt; websocket-client gives all four.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import requests
import websocket

Prompt = Mapping[str, Mapping[str, Any]]
PREVIEW = (1).to_bytes(4, "big")
FILE_KINDS = ("images", "latents", "gifs", "audio")


class Address(Protocol):
    """Anything that says where a server answers (tools.server.Server does)."""

    url: str


class Progress(NamedTuple):
    """State of the node that runs now. `node` may be one inside an expansion of `display`."""

    node: str
    display: str
    value: float
    maximum: float


class PromptError(RuntimeError):
    """A workflow was refused, or one of its nodes failed."""


class NoServer(PromptError):
    """Nobody answers at the address, or the connection was lost while the workflow ran."""


@dataclass
class Result:
    """What became of one queued workflow."""

    prompt_id: str
    outputs: dict[str, dict] = field(default_factory=dict)  # node id -> what the page is shown
    timings: dict[str, float] = field(default_factory=dict)  # node id (expanded too) -> seconds
    display: dict[str, str] = field(default_factory=dict)  # node id -> node of the workflow
    cached: set[str] = field(default_factory=set)  # workflow nodes that did not run again
    error: str | None = None
    interrupted: bool = False

    def files(self, node: str) -> list[dict[str, str]]:
        """Files that a node saved, as the server names them."""
        shown = self.outputs.get(node, {})
        return [file for kind in FILE_KINDS for file in shown.get(kind) or []]

    def raise_for_error(self) -> Result:
        """Self, or PromptError if it failed or was interrupted."""
        if self.error or self.interrupted:
            raise PromptError(self.error or "interrupted")
        return self


def ask(server: Address, method: str, path: str, **more: Any) -> requests.Response:
    """Answer of the server; PromptError, in one line, if there is none."""
    try:
        return requests.request(method, server.url + path, **{"timeout": 60, **more})
    except requests.RequestException as problem:
        raise _nobody(server, problem) from problem


def _nobody(server: Address, problem: Exception) -> NoServer:
    """The error of a server that doesn't answer; libraries wrap the reason in many words."""
    reason: BaseException = problem
    while inner := reason.__cause__ or reason.__context__:
        reason = inner
    words = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    words = textwrap.shorten(words, 120, placeholder=" …") or type(reason).__name__
    return NoServer(
        f"no ComfyUI answers at {server.url} ({words}): "
        "start it, for instance by `make serve`, or correct the address"
    )


def _checked(answer: requests.Response) -> requests.Response:
    """The answer, if the server could do what was asked of it."""
    if not answer.ok:
        path = urlsplit(answer.url).path
        raise PromptError(f"the server answered {answer.status_code} {answer.reason} to {path}")
    return answer


def _json(answer: requests.Response) -> dict:
    """The JSON object in an answer."""
    with contextlib.suppress(ValueError):
        if isinstance(found := answer.json(), dict):
            return found
    text = textwrap.shorten(answer.text, 200, placeholder=" …")
    raise PromptError(f"the server answered {answer.status_code}: {text}")


def queue(
    server: Address,
    prompt: Prompt,
    client_id: str,
    png_info: Mapping[str, Any] | None = None,
    patience: float = 60,
) -> str:
    """Queue a workflow; its id. PromptError with the server's reasons if it is refused.

    png_info: what the server's saving nodes write into each PNG beside the workflow, as JSON;
    patience: seconds in which the server has to answer.
    """
    body = {"prompt": prompt, "client_id": client_id}
    if png_info:
        body["extra_data"] = {"extra_pnginfo": png_info}
    answer = ask(server, "POST", "/prompt", json=body, timeout=patience)
    reply = _json(answer)
    # The host runs what it can of a graph that is wrong in part; half a result helps nobody.
    if reply.get("node_errors") or not answer.ok:
        if "prompt_id" in reply:
            cancel(server, reply["prompt_id"])
        raise PromptError(_refusal(reply, prompt))
    return reply["prompt_id"]


def interrupt(server: Address) -> None:
    """Stop the workflow that runs now."""
    _checked(ask(server, "POST", "/interrupt", json={}, timeout=30))


def cancel(server: Address, prompt_id: str) -> None:
    """Stop a workflow of ours, whether it runs already or still waits."""
    _checked(ask(server, "POST", "/queue", json={"delete": [prompt_id]}, timeout=30))
    # With the id, lest it stops what somebody else has running there.
    _checked(ask(server, "POST", "/interrupt", json={"prompt_id": prompt_id}, timeout=30))


def fetch(server: Address, file: Mapping[str, str], patience: float = 60) -> bytes:
    """Content of a file that a node saved."""
    return _checked(ask(server, "GET", "/view", params=file, timeout=patience)).content


def definitions(server: Address, classes: Iterable[str], patience: float = 60) -> dict[str, dict]:
    """What the server tells of those node classes (inputs, outputs); it may lack some of them."""
    known = _json(_checked(ask(server, "GET", "/object_info", timeout=patience)))
    return {name: known[name] for name in classes if name in known}


def forget(server: Address, prompt_id: str) -> None:
    """Drop the server's record of an ended workflow."""
    _checked(ask(server, "POST", "/history", json={"delete": [prompt_id]}, timeout=30))


def title_of(prompt: Prompt, node: str) -> str:
    """Title of a node, else its class, else its id."""
    entry = prompt.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type") or node


def submit(
    server: Address,
    prompt: Prompt,
    on_progress: Callable[[Progress], None] | None = None,
    timeout: float = 1800,
    *,
    on_preview: Callable[[bytes], None] | None = None,
    on_queued: Callable[[str], None] | None = None,
    png_info: Mapping[str, Any] | None = None,
    patience: float = 60,
) -> Result:
    """Queue a workflow and wait until it is done, failed or interrupted.

    A refused workflow raises PromptError, an absent or lost server, or one that does not answer
    for `patience` seconds, NoServer; a failed node is in `Result.error`. The wait
    interrupts the server when it is itself interrupted (Ctrl-C) or runs out of time.
    on_preview gets the JPEG or PNG files of unfinished pictures, where the server sends them;
    on_queued the workflow's id; png_info: see `queue`.
    """
    client_id = uuid.uuid4().hex
    address = f"ws{server.url.removeprefix('http')}/ws?clientId={client_id}"
    try:
        socket = websocket.create_connection(address, timeout=patience)
    except (websocket.WebSocketException, OSError, ValueError) as problem:
        raise _nobody(server, problem) from problem
    try:
        result = Result(queue(server, prompt, client_id, png_info, patience))
        if on_queued:
            on_queued(result.prompt_id)
        follower = _Follower(server, prompt, result, on_progress, on_preview, patience)
        try:
            follower.follow(socket, time.monotonic() + timeout)
        except (KeyboardInterrupt, TimeoutError):
            with contextlib.suppress(PromptError):
                cancel(server, result.prompt_id)
            raise
    finally:
        socket.close()
    result.outputs = _history(server, result.prompt_id, patience).get("outputs", {})
    return result


@dataclass
class _Follower:
    """Reads what a server tells of one workflow into `result`."""

    server: Address
    prompt: Prompt
    result: Result
    on_progress: Callable[[Progress], None] | None
    on_preview: Callable[[bytes], None] | None
    patience: float
    running: str | None = None
    since: float = 0.0

    def follow(self, socket: websocket.WebSocket, deadline: float) -> None:
        """Return when the workflow has ended."""
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError("the workflow did not end in time")
            socket.settimeout(5)
            try:
                text = socket.recv()
            except websocket.WebSocketTimeoutException:
                # A message may be lost when the server swaps sockets; the history is never wrong.
                if _history(self.server, self.result.prompt_id, self.patience):
                    return
                continue
            except (websocket.WebSocketException, OSError) as problem:
                raise NoServer(f"lost the server while the workflow ran ({problem})") from problem
            if isinstance(text, bytes):
                # Two big-endian numbers, the message's kind and the picture's, then a file.
                if self.on_preview and text[:4] == PREVIEW:
                    self.on_preview(text[8:])
                continue
            message = json.loads(text or "{}")
            data = message.get("data") or {}
            if data.get("prompt_id") == self.result.prompt_id and self.read(message["type"], data):
                return

    def read(self, kind: str, data: Mapping[str, Any]) -> bool:
        """Take one message; whether it was the last."""
        result = self.result
        match kind:
            case "execution_cached":
                result.cached.update(data.get("nodes", []))
            case "executing":
                now, node = time.monotonic(), data.get("node")
                if self.running is not None:
                    spent = result.timings.get(self.running, 0.0)
                    result.timings[self.running] = spent + now - self.since
                if node is None:
                    return True
                self.running, self.since = node, now
                result.display[node] = data.get("display_node") or node
            case "progress_state" if self.on_progress:
                for state in data["nodes"].values():
                    if state["state"] == "running" and state["node_id"] == self.running:
                        shown = state.get("display_node_id") or self.running
                        self.on_progress(
                            Progress(self.running, shown, state["value"], state["max"])
                        )
            case "execution_error":
                node = data.get("node_id", "?")
                kind = data.get("node_type", "")
                title = title_of(self.prompt, result.display.get(node, node))
                reason = str(data.get("exception_message", "")).strip()
                result.error = f"{title} ({kind}, node {node}): {reason}"
            case "execution_interrupted":
                result.interrupted = True
        return False


def _history(server: Address, prompt_id: str, patience: float) -> dict:
    """The server's record of an ended workflow ({} before that)."""
    answer = ask(server, "GET", f"/history/{prompt_id}", timeout=patience)
    return _json(_checked(answer)).get(prompt_id, {})


def _refusal(reply: Mapping[str, Any], prompt: Prompt) -> str:
    """One line per reason why a workflow was refused."""
    reasons = [
        f"{title_of(prompt, node)} ({entry.get('class_type', '')}, node {node}): "
        f"{problem['message']}: {problem.get('details', '')}"
        for node, entry in (reply.get("node_errors") or {}).items()
        for problem in entry.get("errors", [])
    ]
    general = reply.get("error") or {}
    if isinstance(general, dict):
        general = f"{general.get('message', '')} {general.get('details', '')}".strip()
    return "\n".join(reasons) or str(general)
