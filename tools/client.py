"""Run a workflow in API format on a ComfyUI server and get its files, times and errors.

Why not `comfy run` of comfy-cli: 23 packages with two analytics clients among them, no seconds
per node, no progress of nodes inside an expansion, no interrupt; websocket-client gives all four.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import requests
import websocket

Prompt = Mapping[str, Mapping[str, Any]]
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


def queue(server: Address, prompt: Prompt, client_id: str) -> str:
    """Queue a workflow; its id. PromptError with the server's reasons if it is refused."""
    body = {"prompt": prompt, "client_id": client_id}
    answer = requests.post(f"{server.url}/prompt", json=body, timeout=60)
    try:
        reply = answer.json()
    except ValueError:
        raise PromptError(f"the server answered {answer.status_code}: {answer.text}") from None
    # The host runs what it can of a graph that is wrong in part; half a result helps nobody.
    if reply.get("node_errors") or not answer.ok:
        if "prompt_id" in reply:
            interrupt(server)
        raise PromptError(_refusal(reply, prompt))
    return reply["prompt_id"]


def interrupt(server: Address) -> None:
    """Stop the workflow that runs now."""
    requests.post(f"{server.url}/interrupt", json={}, timeout=30).raise_for_status()


def fetch(server: Address, file: Mapping[str, str]) -> bytes:
    """Content of a file that a node saved."""
    answer = requests.get(f"{server.url}/view", params=file, timeout=60)
    answer.raise_for_status()
    return answer.content


def title_of(prompt: Prompt, node: str) -> str:
    """Title of a node, else its class, else its id."""
    entry = prompt.get(node, {})
    return entry.get("_meta", {}).get("title") or entry.get("class_type") or node


def submit(
    server: Address,
    prompt: Prompt,
    on_progress: Callable[[Progress], None] | None = None,
    timeout: float = 1800,
) -> Result:
    """Queue a workflow and wait until it is done, failed or interrupted.

    A refused workflow and a lost server raise; a failed node is in `Result.error`. The wait
    interrupts the server when it is itself interrupted (Ctrl-C) or runs out of time.
    """
    client_id = uuid.uuid4().hex
    socket = websocket.create_connection(
        f"ws://{urlsplit(server.url).netloc}/ws?clientId={client_id}", timeout=30
    )
    try:
        result = Result(queue(server, prompt, client_id))
        try:
            _follow(socket, server, prompt, result, on_progress, time.monotonic() + timeout)
        except (KeyboardInterrupt, TimeoutError):
            interrupt(server)
            raise
    finally:
        socket.close()
    result.outputs = _history(server, result.prompt_id).get("outputs", {})
    return result


def _follow(
    socket: websocket.WebSocket,
    server: Address,
    prompt: Prompt,
    result: Result,
    on_progress: Callable[[Progress], None] | None,
    deadline: float,
) -> None:
    """Read the server's messages into `result` until the workflow has ended."""
    running, since = None, 0.0
    socket.settimeout(5)
    while True:
        if time.monotonic() > deadline:
            raise TimeoutError("the workflow did not end in time")
        try:
            text = socket.recv()
        except websocket.WebSocketTimeoutException:
            # A message may be lost when the server swaps sockets; the history is never wrong.
            if _history(server, result.prompt_id):
                return
            continue
        except (websocket.WebSocketException, OSError) as problem:
            raise PromptError(f"lost the server while the workflow ran ({problem})") from problem
        if not isinstance(text, str) or not text:
            continue  # binary messages are previews
        message = json.loads(text)
        data = message.get("data") or {}
        if data.get("prompt_id") != result.prompt_id:
            continue
        match message["type"]:
            case "execution_cached":
                result.cached.update(data.get("nodes", []))
            case "executing":
                now, node = time.monotonic(), data.get("node")
                if running is not None:
                    result.timings[running] = result.timings.get(running, 0.0) + now - since
                if node is None:
                    return
                running, since = node, now
                result.display[node] = data.get("display_node") or node
            case "progress_state" if on_progress:
                for state in data["nodes"].values():
                    if state["state"] == "running" and state["node_id"] == running:
                        shown = state.get("display_node_id") or running
                        on_progress(Progress(running, shown, state["value"], state["max"]))
            case "execution_error":
                node = data.get("node_id", "?")
                kind = data.get("node_type", "")
                title = title_of(prompt, result.display.get(node, node))
                reason = str(data.get("exception_message", "")).strip()
                result.error = f"{title} ({kind}, node {node}): {reason}"
            case "execution_interrupted":
                result.interrupted = True


def _history(server: Address, prompt_id: str) -> dict:
    """The server's record of an ended workflow ({} before that)."""
    answer = requests.get(f"{server.url}/history/{prompt_id}", timeout=60)
    answer.raise_for_status()
    return answer.json().get(prompt_id, {})


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
