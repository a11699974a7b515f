"""Providers: only names in a workflow, keys in the environment, addresses on the server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hires_fusion.critic import __main__ as command
from hires_fusion.critic import providers
from hires_fusion.critic.providers import Choice, Provider, check_url, load, resolve
from hires_fusion.critic.secrets import CriticError, clean_message, without_key

KEY = "sk-4f9a8b7c6d5e4f3a2b1c"


def written(folder, text):
    path = folder / "critic.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_five_names_need_no_file(tmp_path):
    known = load(tmp_path / "missing.toml")
    assert list(known) == ["together", "openai", "openrouter", "ollama", "local"]
    assert {p.name for p in known.values() if p.is_local} == {"ollama", "local"}
    assert all(p.key_env for p in known.values() if not p.is_local)
    assert all(p.llms and p.vlms and p.aggregator for p in known.values())


def test_a_file_changes_single_fields_and_adds_names(tmp_path):
    path = written(
        tmp_path,
        '[providers.openai]\nllms = ["one"]\n[providers.openai.prices]\none = [1, 2.5]\n'
        '[providers.mine]\nbase_url = "https://a.example/v1/"\nllms = ["x", "y"]\n',
    )
    known = load(path)
    assert known["openai"].llms == ("one",) and known["openai"].key_env == "OPENAI_API_KEY"
    assert known["openai"].cost("one", 1000, 2000) == pytest.approx(0.006)
    assert known["openai"].cost("two", 1000, 2000) is None
    assert known["mine"].base_url == "https://a.example/v1" and known["mine"].aggregator == "x"
    assert "a.example" not in repr(known["mine"])
    assert providers.names(path)[-1] == "mine"


def test_the_example_is_read_and_never_overwritten(tmp_path, capsys):
    path = tmp_path / "user" / "critic.toml"
    assert command.main(["example", "--file", str(path)]) == 0
    assert {"lmstudio", "my-service"} <= load(path).keys()
    assert command.main(["example", "--file", str(path)]) == 1
    assert "stays" in capsys.readouterr().out
    shown = (providers.DATA / "example.toml").read_text(encoding="utf-8")
    assert all(f"{field} =" in shown for field in providers.CHECKS if field != "prices")
    defaults = Provider("x", "https://x.example")
    for field in ("connect_timeout", "retries", "concurrency", "image_side", "thinking_tokens"):
        assert f"{field} = {getattr(defaults, field):g} " in shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[providers.x", "no TOML"),
        ("[providers.x]\na = = 1", "line 2"),
        ("\xff", "[providers.NAME]|no TOML"),
        ("a = 1", r"\[providers.NAME\]"),
        ("providers = 1", r"\[providers.NAME\]"),
        ("providers.x = 1", "must be a table"),
        ("[providers.'a b']", "name is letters"),
        ("[providers.x]\nllms = ['a']", "needs base_url"),
        ("[providers.x]\nbase_url = 'https://a.example'", "needs base_url and llms"),
        ("[providers.x]\nurl = 'https://a.example'", "known are base_url"),
        (f"[providers.x]\napi_key = '{KEY}'", "keys belong in an environment variable"),
        (f"[providers.openai]\nkey_env = '{KEY}'", "not the key itself"),
        ("[providers.openai]\nretries = true", "must be a number"),
        ("[providers.openai]\nretries = 1.5", "must be a number"),
        ("[providers.openai]\nretries = 99", "0 to 20"),
        ("[providers.openai]\nllms = 'https://a.example'", "no name of a model"),
        (f"[providers.openai]\nllms = ['{KEY}']", "no name of a model"),
        ("[providers.openai]\nllms = [1]", "list of names"),
        ("[providers.openai]\naggregator = 'a, b'", "one name"),
        ("[providers.openai]\njson = 'yes'", "one of schema"),
        ("[providers.openai]\nprices = 1", "must be a table"),
        ("[providers.openai.prices]\na = 1", "dollars per million"),
        (f"[providers.openai]\nllms = [{', '.join(repr(str(i)) for i in range(20))}]", "at most"),
        ("#" * (providers.MOST_BYTES + 1), "shorten"),
    ],
)
def test_a_wrong_file_names_the_place_and_the_fix(tmp_path, text, says):
    path = written(tmp_path, text)
    with pytest.raises(CriticError, match=says) as caught:
        load(path)
    assert KEY not in str(caught.value) and "a.example" not in str(caught.value)
    assert providers.names(path) == list(load())


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "critic.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CriticError, match="UTF-8"):
        load(path)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "http://192.168.1.5:11434/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "https://user:secret@api.example.com/v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1#x",
        "https://",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "api.example.com",
        "https://[::1",
        "https://a.example:port",
        "",
        7,
    ],
)
def test_an_address_that_must_not_get_a_key(url):
    with pytest.raises(ValueError, match="base_url"):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["https://a.example/v1/", "http://127.0.0.1:1/v1", "http://[::1]:8", "http://localhost"]
)
def test_an_address_that_may(url):
    assert check_url(url) == url.rstrip("/")


def test_a_choice_is_resolved(tmp_path):
    found = resolve(Choice("openai", llms=("a", "b"), aggregator="c"))
    assert found.llms == ("a", "b") and found.aggregator == "c" and found.vlms
    with pytest.raises(CriticError, match="choose one of together, openai"):
        resolve(Choice("https://evil.example"))


def test_a_missing_key_says_what_to_set(monkeypatch):
    provider = load()["openai"]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CriticError, match="set the environment variable OPENAI_API_KEY"):
        provider.key()
    for bad in ("a b", "ab\nc", "schlüssel"):
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(CriticError, match="something else than a key") as caught:
            provider.key()
        assert bad not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert provider.key() == KEY and load()["local"].key() == ""


def test_messages_are_cleaned():
    text = (
        f"bad key {KEY}, or sk-4f9a8b7***, see https://x.example/keys \x1b[31m of api.example.com"
    )
    cleaned = clean_message(text, KEY, "https://api.example.com/v1")
    assert cleaned == "bad key [key], or [key]***, see [address] [31m of [address]"
    assert clean_message("x " * 400).endswith("…") and len(clean_message("x " * 400)) <= 300
    assert clean_message("at localhost", "", "http://localhost:1/v1") == "at localhost"


@given(st.text("abcdef0123456789", min_size=8, max_size=40), st.text(max_size=20), st.text())
def test_no_run_of_a_key_is_left(key, before, after):
    for shown in (key, key[:9], key[-8:]):
        left = without_key(f"{before}{shown}{after}", key)
        assert not any(key[i : i + 8] in left for i in range(len(key) - 7))


def test_short_keys_are_no_secrets():
    assert without_key("no key", "no") == "no key"


def test_the_command_lists_without_keys_and_addresses(monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
    monkeypatch.setattr(command, "default_file", lambda: None)
    assert command.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "OPENAI_API_KEY is set" in shown and "TOGETHER_API_KEY is NOT set" in shown
    assert KEY not in shown and "://" not in shown
    assert command.main(["check", "nobody"]) == 1
    assert command.main(["example"]) == 1 and "--file" in capsys.readouterr().out


def test_the_command_finds_comfyui(tmp_path, monkeypatch):
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "hires-fusion"
    expected = tmp_path / "ComfyUI" / "user" / "__hires_fusion" / "critic.toml"
    assert command.default_file(pack) == expected
    monkeypatch.setenv("PWD", str(pack))
    assert command.default_file() == expected


def test_the_command_checks_every_model(httpserver, tmp_path, capsys):
    def handler(request):
        from werkzeug import Response

        model = json.loads(request.data)["model"]
        if model == "gone":
            return Response('{"error": {"message": "no such model"}}', 404)
        return Response(json.dumps({"choices": [{"message": {"content": "ready"}}]}))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(handler)
    url = httpserver.url_for("/v1")
    path = written(tmp_path, f'[providers.t]\nbase_url = "{url}"\nllms = ["good", "gone"]\n')
    assert command.main(["check", "t", "--file", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "ok      good" in shown and "FAILED  gone" in shown and url not in shown
    assert command.main(["check", "t", "--file", str(path)]) == 1
    path = written(tmp_path, f'[providers.t]\nbase_url = "{url}"\nllms = ["good"]\n')
    assert command.main(["check", "t", "--file", str(path)]) == 0
