"""The critic's nodes on a real server, with models that answer, fail, stall and echo the key."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tools.client import PromptError, fetch, interrupt, submit
from tools.host import PACK_NAME
from tools.server import Server, start_server

KEY = "sk-host-4f9a8b7c6d5e4f3a2b1c0d9e8f"
MINE = "a red hot-air balloon over snowy mountains, at sunset"
ROLES = {"break the request up": "decompose", "turn a short idea": "tags", "picture": "critique"}


class Models:
    """An OpenAI-compatible service on this machine. It echoes the key wherever it can."""

    def __init__(self, http: HTTPServer):
        self.address = f"127.0.0.1:{http.port}"
        self.asked: list[str] = []
        self.mode = "good"
        self.released = threading.Event()  # ends what stalls
        http.expect_request("/v1/chat/completions").respond_with_handler(self.handle)

    def handle(self, request) -> Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        body = json.loads(request.data)
        system = body["messages"][0]["content"].lower()
        role = next(role for sign, role in ROLES.items() if sign in system)
        self.asked.append(role)
        if self.mode == "stall":
            self.released.wait(50)
        if self.mode == "down" or body["model"] == "gone":
            echo = f"model {body['model']} is gone; key {KEY} at http://{self.address}/v1"
            return Response(json.dumps({"error": {"message": echo}}), 404)
        echo = "".join(f"&#{ord(c)};" for c in KEY) if self.mode == "hidden" else KEY
        answer = {
            "decompose": json.dumps({"components": ["a red balloon", "mountains", echo]}),
            "tags": json.dumps(
                {"positive": ["vivid colours", f"key {echo}", "rim light"], "negative": ["fog"]}
            ),
            "critique": "<think>hm</think><issues>the balloon is blue</issues>"
            f"<refined>one red balloon {echo}, snowy peaks</refined>",
        }[role]
        usage = {"prompt_tokens": 50, "completion_tokens": 20}
        return Response(json.dumps({"choices": [{"message": {"content": answer}}], "usage": usage}))


class Listener:
    """All that the server tells its pages."""

    def __init__(self, server: Server):
        self.messages: list[bytes] = []
        self.socket = websocket.create_connection(server.url.replace("http", "ws") + "/ws")
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            try:
                message = self.socket.recv()
            except (websocket.WebSocketException, OSError):
                return
            self.messages.append(message if isinstance(message, bytes) else message.encode())

    def texts(self) -> list[str]:
        """What was shown on nodes: `node id, text`."""
        time.sleep(0.5)  # for messages on their way
        shown = [m for m in self.messages if m[:4] == b"\0\0\0\3"]
        return [m[8:].decode(errors="replace") for m in shown]


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    with HTTPServer(threaded=True) as http:
        yield Models(http)


@pytest.fixture(scope="module")
def critic(models) -> Iterator[Server]:
    """A server whose environment has the key and whose user folder has critic.toml."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRITIC_HOST_KEY", KEY)
        with start_server(extra_args=["--verbose", "DEBUG"]) as running:
            folder = running.base / "user" / "__hires_fusion"
            folder.mkdir(exist_ok=True)
            (folder / "critic.toml").write_text(
                f'[providers.here]\nbase_url = "http://{models.address}/v1"\n'
                'key_env = "CRITIC_HOST_KEY"\nllms = ["good"]\nvlms = ["good"]\nretries = 0\n'
                "[providers.here.prices]\ngood = [1, 1]\n"
                f'[providers.keyless]\nbase_url = "http://{models.address}/v1"\n'
                'key_env = "CRITIC_UNSET_KEY"\nllms = ["good"]\n'
            )
            yield running


@pytest.fixture(autouse=True)
def good(models) -> None:
    models.mode = "good"
    models.asked.clear()
    models.released.clear()


def node(kind: str, **inputs: Any) -> dict:
    return {"class_type": kind, "inputs": inputs}


def provider(name: str = "here", **models: str) -> dict:
    empty = {"llms": "", "vlms": "", "aggregator": ""}
    return node("HRF_CriticProvider", provider=name, **(empty | models))


def show(prompt: dict, **links: list) -> dict:
    return prompt | {name: node("PreviewAny", source=link) for name, link in links.items()}


def texts(result: Any, *names: str) -> list[str]:
    result.raise_for_error()
    return [result.outputs[name]["text"][0] for name in names]


def whole(refresh: int = 0, prompt: str = MINE, **models: str) -> dict:
    """CritiCore on a picture, with its outputs shown and the picture saved."""
    graph = {
        "demo": node("HRF_LoadDemoModel"),
        "provider": provider(**models),
        "image": node("EmptyImage", width=64, height=48, batch_size=1, color=0xFF8000),
        "core": node(
            "HRF_CritiCore",
            prompt=prompt,
            provider=["provider", 0],
            preset="hq_preference",
            image=["image", 0],
            clip=["demo", 1],
            refresh=refresh,
        ),
        "save": node("SaveImage", images=["image", 0], filename_prefix="critic"),
    }
    names = ("merged", "positive", "negative", "refined", "issues", "report")
    return show(graph, **{name: ["core", i] for i, name in enumerate(names)})


def test_the_whole_critic_and_its_cache(critic, models):
    result = submit(critic, whole())
    merged, positive, negative, refined, issues, report = texts(
        result, "merged", "positive", "negative", "refined", "issues", "report"
    )
    assert sorted(models.asked) == ["critique", "decompose", "tags"]
    assert merged.startswith("one red balloon [key], ") and positive.startswith(MINE)
    assert refined == "one red balloon [key], snowy peaks" and issues == "the balloon is blue"
    assert "blurry" in negative and negative.endswith("fog")
    assert "tags: good: " in report and "50 + 20 tokens, $0.00007" in report

    submit(critic, whole()).raise_for_error()
    assert len(models.asked) == 3, "unchanged inputs asked again"
    submit(critic, whole(refresh=1)).raise_for_error()
    assert len(models.asked) == 6


def test_the_composite_equals_the_same_graph_by_hand(critic):
    role = {"prompt": MINE, "provider": ["provider", 0], "refresh": 0}
    graph = {name: part for name, part in whole().items() if name in ("demo", "provider", "image")}
    graph |= {
        "parts": node("HRF_DecomposePrompt", **role),
        "tags": node("HRF_ExpandTags", **role, preset="hq_preference", clip=["demo", 1]),
        "look": node("HRF_CritiqueImage", **role, image=["image", 0], components=["parts", 0]),
        "merge": node(
            "HRF_MergePrompt",
            prompt=MINE,
            refined=["look", 0],
            tags=["tags", 0],
            clip=["demo", 1],
            max_tokens=0,
        ),
    }
    graph = show(graph, hand=["merge", 0], parts_shown=["parts", 0], each=["parts", 1])
    result = submit(critic, graph)
    composed = submit(critic, whole())
    assert texts(result, "hand") == texts(composed, "merged")
    assert texts(result, "parts_shown")[0].splitlines() == ["a red balloon", "mountains", "[key]"]
    assert len(result.outputs["each"]["text"]) == 3


def test_when_all_fail_the_prompt_is_unchanged_and_the_next_run_asks_again(critic, models):
    mine = f"  {MINE} (red:1.2),\nunchanged "
    heard = Listener(critic)
    models.mode = "down"
    result = submit(critic, whole(prompt=mine))
    merged, positive, refined, report = texts(result, "merged", "positive", "refined", "report")
    assert merged == positive == refined == mine
    assert "WARNING: no model answered, the prompt is unchanged" in report
    assert "model good is gone" in report and "critic.toml" in report
    warned = [text for text in heard.texts() if text.startswith("coreWarning: no model answered")]
    assert warned[-1].count("Warning: no model answered") == 3, "on the node that the user sees"
    assert "HiRes Fusion, tags: no model answered" in critic.log.read_text()

    models.mode = "good"
    merged = texts(submit(critic, whole(prompt=mine)), "merged")[0]
    assert merged.startswith("one red balloon")
    assert heard.texts()[-1].startswith("core") and "no model" not in heard.texts()[-1]
    heard.socket.close()


def test_partial_failure_uses_what_came_back(critic):
    result = submit(critic, whole(llms="gone, good"))
    positive, report = texts(result, "positive", "report")
    assert positive.startswith(MINE) and "tags: gone: FAILED" in report
    assert "left out for the budget" in report and "vivid colours" in report  # it did answer
    assert "1 of 2 models did not answer" in report


def test_nothing_that_a_run_writes_holds_the_key_or_the_address(critic, models):
    """Pictures, history, log, database, messages to the page, node definitions."""
    heard = Listener(critic)
    result = submit(critic, whole(refresh=7, llms="gone, good"))
    models.mode = "hidden"
    hidden = submit(critic, whole(refresh=11))
    assert texts(hidden, "refined") == ["one red balloon [key], snowy peaks"]
    models.mode = "down"
    submit(critic, whole(refresh=8))
    (file,) = result.files("save")
    picture = Image.open(io.BytesIO(fetch(critic, file)))
    assert "HRF_CritiCore" in picture.info["prompt"]
    config = critic.base / "user" / "__hires_fusion" / "critic.toml"
    written = {
        "history": json.dumps(critic.get_json("/history")).encode(),
        "object_info": json.dumps(critic.get_json("/object_info")).encode(),
        "messages": b"\n".join(heard.messages),
        "picture": json.dumps({k: str(v) for k, v in picture.info.items()}).encode(),
    }
    for path in critic.base.rglob("*"):
        if path.is_file() and path != config and "custom_nodes" not in path.parts[:-2]:
            written[str(path.relative_to(critic.base))] = path.read_bytes()
    assert {"history", "server.log"} <= written.keys()
    assert any(name.endswith(".png") for name in written)
    assert b"Warning" in written["messages"] and b"HRF_CritiCore" in written["history"]
    for name, content in written.items():
        assert KEY.encode() not in content and KEY[8:24].encode() not in content, name
        assert models.address.encode() not in content, name
        assert "".join(f"&#{ord(c)};" for c in KEY[8:24]).encode() not in content, name
    heard.socket.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "nobody"}, "provider is the text 'nobody', .*: choose from together"),
        ({"name": "keyless"}, "set the environment variable CRITIC_UNSET_KEY"),
        ({"llms": "https://evil.example/v1"}, "no name of a model"),
        ({"aggregator": "a, b"}, "aggregator takes one model"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_runs(critic, models, changes, says):
    graph = whole() | {"provider": provider(**changes)}
    with pytest.raises(PromptError) as caught:
        submit(critic, graph)
    assert len(re.findall(says, str(caught.value))) == 1, "said once, not for every input"
    assert not models.asked


def test_an_empty_prompt_is_an_error(critic):
    result = submit(critic, whole(prompt="  "))
    assert "the prompt is empty: write" in result.error


def test_a_cancel_does_not_wait_for_several_calls(critic, models):
    models.mode = "stall"
    pressed: list[float] = []

    def cancel() -> None:
        end = time.monotonic() + 40
        while len({*models.asked}) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        pressed.append(time.monotonic())
        interrupt(critic)

    threading.Thread(target=cancel).start()
    result = submit(critic, whole(refresh=9, llms="one, two, three"))
    waited = time.monotonic() - pressed[0]
    models.released.set()
    assert result.interrupted and waited < 30
    assert {"decompose", "tags"} == {*models.asked}, "both nodes asked at once"
    models.mode = "good"
    assert texts(submit(critic, whole(refresh=10)), "issues") == ["the balloon is blue"]


def test_a_verdict_of_another_node_that_takes_long_to_read_holds_up_nothing(critic):
    """Once 17 seconds in which the server answered nothing."""
    verdict = "!\n" * 15_000 + "[" * 40 + "," * 2500 + "<refined>one (red:1.4) balloon</refined>"
    graph = {
        "text": node("PrimitiveStringMultiline", value=verdict),
        "look": node("HRF_CritiqueImage", prompt=MINE, critique=["text", 0], refresh=0),
    }
    start = time.monotonic()
    result = submit(critic, show(graph, refined=["look", 0]))
    assert texts(result, "refined") == ["one red balloon"] and time.monotonic() - start < 30


def test_a_verdict_from_another_node_needs_no_provider(critic, models):
    verdict = "<issues>too dark</issues><refined>one balloon, noon</refined>"
    graph = {
        "text": node("PrimitiveStringMultiline", value=verdict),
        "look": node("HRF_CritiqueImage", prompt=MINE, critique=["text", 0], refresh=0),
        "merge": node("HRF_MergePrompt", prompt=MINE, refined=["look", 0], max_tokens=0),
    }
    result = submit(critic, show(graph, merged=["merge", 0], issues=["look", 1]))
    assert texts(result, "merged", "issues") == ["one balloon, noon", "too dark"]
    del graph["look"]["inputs"]["critique"]
    assert "connect provider and image" in submit(critic, show(graph, m=["merge", 0])).error
    assert not models.asked


def test_criticore_without_a_picture_and_with_a_verdict(critic, models):
    graph = whole()
    del graph["core"]["inputs"]["image"]
    merged, refined, issues = texts(submit(critic, graph), "merged", "refined", "issues")
    assert models.asked == ["tags"] or not models.asked  # the tags may be known from before
    assert merged.startswith("a red hot-air balloon over snowy mountains") and refined == MINE
    assert issues == ""
    graph["text"] = node("PrimitiveStringMultiline", value="two boats, sea")
    graph["core"]["inputs"]["critique"] = ["text", 0]
    assert texts(submit(critic, graph), "merged")[0].startswith("two boats, ")
    assert "critique" not in models.asked


def test_the_config_lies_where_the_host_serves_nothing(critic):
    for name in ("__hires_fusion/critic.toml", "../__hires_fusion/critic.toml"):
        quoted = name.replace("/", "%2F")
        with pytest.raises(OSError, match=r"HTTP Error 4|404|403|400"):
            critic.get_json(f"/userdata/{quoted}")
    # Where the node reads is where the command writes.
    from hires_fusion.critic.__main__ import default_file

    path = default_file(critic.base / "custom_nodes" / PACK_NAME)
    assert path is not None and path.is_file() and "[providers.here]" in path.read_text()
