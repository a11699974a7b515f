"""Who is asked: providers from a TOML file on the server, and those known without one.

A workflow holds a provider's name and names of models. Addresses and the names of the variables
with the keys stay on the server, so no workflow can send a key anywhere.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .secrets import CREDENTIAL, CriticError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).resolve().parent / "data"
JSON_MODES = ("schema", "object", "text")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MODEL = re.compile(r"[\w@~][\w.:/@~+ -]{0,199}")
MOST_MODELS = 16
MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Choice:
    """What travels on a workflow's wire: names only.

    Attributes:
        name: of the provider.
        llms, vlms, aggregator: models instead of the configured ones; empty for those.
    """

    name: str
    llms: tuple[str, ...] = ()
    vlms: tuple[str, ...] = ()
    aggregator: str = ""


@dataclass(frozen=True)
class Provider:
    """An OpenAI-compatible service; the fields of `data/example.toml`. Seconds, pixels, dollars."""

    name: str
    base_url: str = field(repr=False)
    key_env: str = ""
    llms: tuple[str, ...] = ()
    vlms: tuple[str, ...] = ()
    aggregator: str = ""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    total_timeout: float = 120.0
    retries: int = 3
    concurrency: int = 4
    json: str = "schema"
    thinking_tokens: int = 0
    max_tokens_name: str = "max_tokens"
    image_side: int = 768
    prices: dict[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def is_local(self) -> bool:
        """Does it run on this machine?"""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def key(self) -> str:
        """The key, "" where none is needed; CriticError where it is missing."""
        if not self.key_env:
            return ""
        value = os.environ.get(self.key_env, "").strip()
        if not value:
            raise CriticError(
                f"provider {self.name!r} needs a key: set the environment variable "
                f"{self.key_env} for the process that runs ComfyUI and restart it, or choose "
                "another provider"
            )
        # A line break would end the header; other characters cannot stand in one.
        if not value.isascii() or not value.isprintable() or " " in value:
            raise CriticError(
                f"the environment variable {self.key_env} holds something else than a key "
                "(spaces, line breaks or non-ASCII characters): set it again"
            )
        return value

    def cost(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Dollars of one answer, None without a configured price."""
        if model not in self.prices:
            return None
        price_in, price_out = self.prices[model]
        return (tokens_in * price_in + tokens_out * price_out) / 1e6


def is_loopback(host: str) -> bool:
    """Is `host` this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_url(url: Any) -> str:
    """A base URL that keys may be sent to, without its last slash; ValueError if it is none."""
    if not isinstance(url, str):
        raise ValueError("base_url must be a text")
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("base_url is no address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("base_url must begin with https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("base_url must hold no user, password, query or fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("base_url must be https: only 127.0.0.1, ::1 and localhost may be http")
    return url.strip().rstrip("/")


def model_names(value: Any) -> tuple[str, ...]:
    """Names of models from a list, or from a text with commas or line breaks; ValueError."""
    if isinstance(value, str):
        value = re.split(r"[,\n]", value)
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise ValueError("models must be a list of names")
    names = tuple(dict.fromkeys(name.strip() for name in value if name.strip()))
    for name in names:
        # Not repeated: it may be a key or an address in the wrong place.
        if not _MODEL.fullmatch(name) or "://" in name or CREDENTIAL.match(name):
            raise ValueError("one of them is no name of a model")
    if len(names) > MOST_MODELS:
        raise ValueError(f"{len(names)} models: list at most {MOST_MODELS}")
    return names


def _number(low: float, high: float, kind: type = float):
    def check(value: Any):
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise ValueError("must be a number")
        if not low <= value <= high:
            raise ValueError(f"must be {low:g} to {high:g}")
        return kind(value)

    return check


def _one_model(value: Any) -> str:
    names = model_names(value)
    if len(names) != 1:
        raise ValueError("must be one name of a model")
    return names[0]


def _prices(value: Any) -> dict[str, tuple[float, float]]:
    amount = _number(0, 1e6)
    if not isinstance(value, dict):
        raise ValueError('must be a table: "model" = [in, out]')
    for pair in value.values():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("a price is [in, out], dollars per million tokens")
    return {name: (amount(pair[0]), amount(pair[1])) for name, pair in value.items()}


def _one_of(*options: str):
    def check(value: Any) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value

    return check


def _variable(value: Any) -> str:
    if not isinstance(value, str) or (value and not _VARIABLE.fullmatch(value)):
        # Not repeated: a key that was put here by mistake must not reach a log.
        raise ValueError("is the name of an environment variable, not the key itself")
    return value


CHECKS = {
    "base_url": check_url,
    "key_env": _variable,
    "llms": model_names,
    "vlms": model_names,
    "aggregator": _one_model,
    "connect_timeout": _number(0.1, 600),
    "read_timeout": _number(0.1, 3600),
    "total_timeout": _number(0.1, 3600),
    "retries": _number(0, 20, int),
    "concurrency": _number(1, 64, int),
    "json": _one_of(*JSON_MODES),
    "thinking_tokens": _number(0, 100_000, int),
    "max_tokens_name": _one_of("max_tokens", "max_completion_tokens"),
    "image_side": _number(64, 4096, int),
    "prices": _prices,
}


def _fields(name: str, table: Any, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise CriticError(f"{where}: [providers.{name}] must be a table")
    found = {}
    for label, value in table.items():
        if label not in CHECKS:
            hint = "keys belong in an environment variable" if "key" in label.lower() else ""
            known = f"known are {', '.join(CHECKS)}"
            raise CriticError(f"{where}: [providers.{name}] has an unknown field; {hint or known}")
        try:
            found[label] = CHECKS[label](value)
        except ValueError as problem:
            raise CriticError(f"{where}: [providers.{name}] {label}: {problem}") from None
    return found


def _read(path: Path) -> dict[str, dict[str, Any]]:
    where = path.name
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CriticError(f"{where} is larger than {MOST_BYTES} bytes: shorten it")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise CriticError(f"{where} cannot be read: make it a UTF-8 text file") from None
    except tomllib.TOMLDecodeError as problem:
        place = re.search(r"line \d+", str(problem))
        spot = place.group() if place else "its end"
        raise CriticError(f"{where} is no TOML, see {spot}: correct it there") from None
    if document.keys() - {"providers"} or not isinstance(document.get("providers", {}), dict):
        raise CriticError(f"{where} may only hold sections of the form [providers.NAME]")
    tables = document.get("providers", {})
    for name in tables:
        if not _NAME.fullmatch(name):
            raise CriticError(f"{where}: a provider's name is letters, digits, '.', '_', '-'")
    return {name: _fields(name, table, where) for name, table in tables.items()}


def load(path: Path | None = None) -> dict[str, Provider]:
    """All providers by name: the built-in ones, changed and added to by the file at `path`.

    Raises:
        CriticError: the file is there and wrong; the text names the section and the fix.
    """
    tables = _read(DATA / "providers.toml")
    if path is not None and path.is_file():
        for name, table in _read(path).items():
            tables[name] = {**tables.get(name, {}), **table}
    found = {}
    for name, table in tables.items():
        if "base_url" not in table or not (table.get("llms") or table.get("vlms")):
            raise CriticError(f"critic.toml: [providers.{name}] needs base_url and llms")
        table.setdefault("aggregator", (table.get("llms") or table["vlms"])[0])
        found[name] = Provider(name=name, **table)
    return found


def names(path: Path | None = None) -> list[str]:
    """Names for a menu; the built-in ones where the file is wrong."""
    try:
        return list(load(path))
    except CriticError:
        return list(load())


def resolve(choice: Choice, path: Path | None = None) -> Provider:
    """The provider that a workflow names, with its models; CriticError if there is none."""
    known = load(path)
    if choice.name not in known:
        raise CriticError(
            f"no provider is called {choice.name[:40]!r}: choose one of {', '.join(known)}, or "
            "add it to critic.toml on the machine that runs ComfyUI"
        )
    changes = {f: v for f in ("llms", "vlms", "aggregator") if (v := getattr(choice, f))}
    return dataclasses.replace(known[choice.name], **changes)
