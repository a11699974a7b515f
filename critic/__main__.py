"""`python -m critic example|list|check`: set up the providers of the prompt critic.

Run it in this pack's folder with the Python that runs ComfyUI.

    python -m critic example             write critic.toml, with every field explained
    python -m critic list                providers, their models, and whether their key is set
    python -m critic check NAME          one short question to each model of a provider
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .client import ask
from .providers import DATA, Provider, load, resolve
from .providers import Choice as Named
from .secrets import CriticError

FOLDER = Path("user") / "__hires_fusion"
FILE = "critic.toml"


def default_file(pack: Path | None = None) -> Path | None:
    """critic.toml of the ComfyUI whose custom_nodes holds this pack; None if none does."""
    # Not resolved: the pack may be linked into custom_nodes.
    pack = pack or Path(os.environ.get("PWD", os.getcwd()))
    for folder in (pack, Path(__file__).resolve().parents[1]):
        if folder.parent.name == "custom_nodes":
            return folder.parent.parent / FOLDER / FILE
    return None


def write_example(path: Path) -> str:
    """Write the example to `path`; CriticError where a file is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as sink:
            sink.write((DATA / "example.toml").read_text(encoding="utf-8"))
    except FileExistsError:
        raise CriticError(f"{path} is there already and stays: move it away first") from None
    return f"wrote {path}"


def described(provider: Provider) -> str:
    """A provider in two or three lines, without address and key."""
    key = "no key needed"
    if provider.key_env:
        there = os.environ.get(provider.key_env, "").strip()
        key = f"{provider.key_env} {'is set' if there else 'is NOT set'}"
    lines = [f"{provider.name}: {key}"]
    lines.append(f"    llms: {', '.join(provider.llms)}; aggregator: {provider.aggregator}")
    return "\n".join([*lines, f"    vlms: {', '.join(provider.vlms) or 'none'}"])


def checked(provider: Provider) -> list[str]:
    """A line for each model: what it answered, or why it did not."""
    provider.key()
    lines = []
    for model in dict.fromkeys([*provider.llms, provider.aggregator, *provider.vlms]):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Answer with the word: ready"}],
            provider.max_tokens_name: 16 + provider.thinking_tokens,
        }
        try:
            reply = ask(provider, body)
            lines.append(f"ok      {model}: {reply.seconds:.1f} s")
        except CriticError as problem:
            lines.append(f"FAILED  {model}: {problem}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m critic", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["example", "list", "check"])
    parser.add_argument("name", nargs="?", help="provider to check")
    where = f"the file (default: ComfyUI/{FOLDER.as_posix()}/{FILE})"
    parser.add_argument("--file", type=Path, help=where)
    options = parser.parse_args(arguments)
    path = options.file or default_file()
    try:
        if options.command == "example":
            if path is None:
                raise CriticError(
                    "this folder lies in no ComfyUI/custom_nodes: say where to write with "
                    f"--file ComfyUI/{FOLDER.as_posix()}/{FILE}"
                )
            print(write_example(path))
        elif options.command == "list":
            print("\n".join(described(provider) for provider in load(path).values()))
        else:
            lines = checked(resolve(Named(options.name or ""), path))
            print("\n".join(lines))
            return int(any(line.startswith("FAILED") for line in lines))
    except CriticError as problem:
        print(f"error: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
