"""The command line: what it takes, what it prints, how it exits."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..client import NoServer, Progress, PromptError, title_of
from ..host import PACK_NAME, ROOT, HostError, find_host, is_host, python_of
from . import cluster, graphs, rows, settings, sheet
from .record import FolderError, Record
from .rows import Row, TableError
from .spread import spread
from .worker import Gone, Worker

DONE, FAILED, USAGE, MACHINE, STOPPED = 0, 1, 2, 3, 130
EXITS = """exit codes: 0 all done; 1 a run was refused or failed; 2 the command, the workflow or the
table is wrong; 3 no server, a lost one, a full disk, or a package missing; 130 stopped by Ctrl-C"""
URL = "http://127.0.0.1:8188"


def parser() -> argparse.ArgumentParser:
    """What can be asked."""
    made = argparse.ArgumentParser(prog="hires-fusion", description=__doc__, epilog=EXITS)
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="a workflow, once or for every combination", epilog=EXITS)
    table = commands.add_parser("table", help="a workflow for each line of a CSV", epilog=EXITS)
    table.add_argument("table", type=Path, help="CSV; a column is an input to set")
    for command in (run, table):
        add = command.add_argument
        add("workflow", type=Path, help="workflow in API format, or a graph without surprises")
        add("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", dest="settings",
            help="node by title or id; given again for the same input it is a grid")  # fmt: skip
        add("--server", action="append", metavar="URL", help=f"ComfyUI to use ({URL})")
        add("--out", type=Path, help="folder for the results (out/NAME)")
        add("--previews", action="store_true", help="keep previews, of nodes and while sampling")
        add("--timeout", type=positive, default=3600.0, help="seconds a run may take (3600)")
        add("--patience", type=positive, default=60.0, help="seconds a server may be silent (60)")
    add = table.add_argument
    add("--ray", nargs="?", const="", metavar="ADDRESS",
        help="several servers: on this machine, or on the Ray cluster there")  # fmt: skip
    add("--servers", type=int, help="how many to start (one per GPU; without a GPU, one)")
    add("--cpu", action="store_true", help="the servers that are started use no GPU")
    add("--comfyui", type=Path, help="the ComfyUI to start (as `make serve` finds it)")
    add("--server-args", default="", help="further flags for the servers that are started")
    return made


def positive(text: str) -> float:
    """A number of seconds."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("it takes a number of seconds above 0")
    return number


def address(url: str) -> str:
    """A server's address, with what people leave out."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


def launch(args: argparse.Namespace) -> dict[str, Any]:
    """How a server is started: the user's ComfyUI with its packs, models and inputs."""
    host = args.comfyui.absolute() if args.comfyui else find_host()
    if not is_host(host):
        raise HostError(f"--comfyui {host} is no ComfyUI folder (no main.py with comfy/ in it)")
    packs = {
        path.name: path.resolve()
        for path in sorted((host / "custom_nodes").iterdir())
        if path.is_dir() and path.name[0] not in "._" and not path.name.endswith(".disabled")
    }
    if (ROOT / "nodes").is_dir() and ROOT.resolve() not in packs.values():
        packs[PACK_NAME] = ROOT
    extra = ["--input-directory", str(host / "input"), *shlex.split(args.server_args)]
    told = {"host": host, "python": python_of(host), "packs": packs, "models": str(host)}
    return told | {"extra_args": extra}


class Bar:
    """Rows done, and what the one that runs is at."""

    def __init__(self, total: int | None, name: str) -> None:
        # disable=None: only on a terminal.
        self.bar = tqdm(total=total, desc=name, unit="row", disable=None, dynamic_ncols=True)
        self.prompt: Any = {}

    def step(self, progress: Progress) -> None:
        """Show a node's progress."""
        title = title_of(self.prompt, progress.display)
        self.bar.set_postfix_str(f"{title} {progress.value:g}/{progress.maximum:g}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.bar.write(text, file=sys.stderr)


class Job:
    """One command: its rows, its servers, its folder."""

    def __init__(self, args: argparse.Namespace, stack: ExitStack) -> None:
        self.args, self.stack = args, stack
        self.is_table = args.command == "table"
        self.workflow = graphs.read(args.workflow)
        self.given = [settings.split(text) for text in args.settings]
        keys = [key for key, _ in self.given]
        if self.is_table:
            if doubled := {key for key in keys if keys.count(key) > 1}:
                raise TableError(f"--set {min(doubled)} twice: in a table, several values are rows")
            keys += rows.columns(args.table)
        self.keys = list(dict.fromkeys(keys))
        source = args.table if self.is_table else args.workflow
        self.folder = args.out or Path("out") / source.stem
        self.options = {
            "patience": args.patience,
            "timeout": args.timeout,
            "previews": args.previews,
        }

    def lines(self) -> Iterable[dict[str, Any]]:
        """What each row sets."""
        return rows.table(self.args.table) if self.is_table else settings.grid(self.given)

    def hands(self) -> tuple[list, Callable, Callable, Callable[[list[str]], dict]]:
        """Servers, how a row begins at one, how to wait for one, how to ask about nodes."""
        urls = [address(url) for url in self.args.server or []]
        if self.is_table and self.args.ray is not None:
            spec = {**self.options, "launch": {} if urls else launch(self.args)}
            board = self.stack.enter_context(cluster.connected(self.args.ray or None))
            if board:
                print(f"dashboard: {board}", file=sys.stderr)
            many = cluster.Hands(urls, self.args.servers, spec, self.args.cpu)
            self.stack.callback(many.close)
            many.on_loss = lambda reason: self.bar.say(f"a server is gone: {reason}")
            return many.actors, many.start, many.wait, many.info
        if len(urls) > 1:
            raise TableError("several servers share a table with --ray: add it")
        if self.is_table and (self.args.servers or self.args.comfyui or self.args.cpu):
            raise TableError("servers are started with --ray: add it, or give --server URL")
        one = Worker(urls[0] if urls else URL, **self.options)
        self.stack.callback(one.close)
        one.on_progress = lambda progress: self.bar.step(progress)

        def start(hand: Worker, row: Row) -> Row:
            self.bar.prompt = row.prompt
            return row

        def wait(refs: list[Row]) -> tuple[Row, dict[str, Any]]:
            row = refs[0]
            info = {"name": row.name, "settings": dict(row.settings)}
            return row, one.run(row.prompt or {}, info)

        return [one], start, wait, one.info

    def run(self) -> int:
        """Carry it out; the exit code."""
        record = Record(self.folder)
        hands, start, wait, ask = self.hands()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has one of its own
        classes = graphs.classes(self.workflow)
        info = ask(classes)
        if graphs.is_graph(self.workflow):
            prompt = graphs.to_prompt(self.workflow, info)
        else:
            prompt = self.workflow
            for node, entry in prompt.items():
                if entry["class_type"] not in info:
                    raise graphs.WorkflowError(
                        f"{title_of(prompt, node)!r} (node {node}) is a {entry['class_type']}, "
                        "which this server doesn't have: install its pack"
                    )
        common = dict(self.given) if self.is_table else {}
        rows.check(prompt, info, self.keys)

        def every() -> Iterator[Row]:
            return rows.rows(prompt, info, self.lines(), common)

        if not self.is_table:  # of the command line every value is right, or nothing is drawn
            for row in every():
                if row.problem:
                    raise settings.SettingError(row.problem)
        total = sum(1 for _ in self.lines())
        self.bar = Bar(total, self.folder.name)
        try:
            self.draw(record, spread(self.open(record, every()), hands, start, wait))
        finally:
            self.bar.bar.close()
            if self.is_table or total > 1:
                self.summarise(record, every)
        bad = sum(1 for row in every() if row.key not in record.done)
        if bad:
            print(f"{bad} of {total} not done", file=sys.stderr)
        return FAILED if bad else DONE

    def open(self, record: Record, every: Iterable[Row]) -> Iterator[Row]:
        """Rows that are to be drawn: a table's that are done already, and bad ones, are not."""
        for row in every:
            if row.problem:
                self.failed(record, row, row.problem)
            elif self.is_table and row.key in record.done:
                self.bar.bar.update()
            else:
                yield row

    def draw(self, record: Record, outcomes: Iterable[tuple[Row, dict[str, Any]]]) -> None:
        """Keep what comes."""
        for row, outcome in outcomes:
            if "full" in outcome:
                raise FolderError(f"the server's disk is full: {outcome['full']}")
            if "error" in outcome:
                self.failed(record, row, outcome["error"])
                continue
            entry = record.finish(row, outcome)
            for reason in outcome["mishaps"]:
                self.bar.say(f"row {row.number}, after a loss: {reason}")
            self.bar.bar.update()
            if not self.is_table:
                for name in entry["files"]:
                    self.bar.bar.write(str(self.folder / name))
            for title, words in entry["texts"].items():
                self.bar.bar.write(f"{title}: {words}")

    def failed(self, record: Record, row: Row, reason: str) -> None:
        """Report a bad row and go on."""
        record.done.pop(row.key, None)
        record.failed[row.key] = reason
        self.bar.bar.update()
        number = f"row {row.number}: " if self.is_table else ""
        self.bar.say(f"error: {number}{reason}")

    def summarise(self, record: Record, every: Callable[[], Iterator[Row]]) -> None:
        """The index and the contact sheets."""
        pictures = (
            (self.folder / name, " ".join(f"{k}={v}" for k, v in row.settings.items()))
            for row in every()
            for name in record.done.get(row.key, {}).get("files", [])[:1]
            if Path(name).suffix.lower() in sheet.PICTURES
        )
        made = [record.index(every()), *sheet.sheets(self.folder, pictures)]
        print(*made, sep="\n")


def main(argv: list[str] | None = None) -> int:
    """The command; its exit code."""
    args = parser().parse_args(argv)
    try:
        with ExitStack() as stack:
            return Job(args, stack).run()
    except (TableError, settings.SettingError, graphs.WorkflowError) as problem:
        code, reason = USAGE, str(problem)
    except (NoServer, ConnectionError, Gone, HostError, OSError) as problem:
        code, reason = MACHINE, str(problem)
    except PromptError as problem:
        code, reason = FAILED, str(problem)
    except KeyboardInterrupt:
        code, reason = STOPPED, "stopped"
        if args.command == "table":
            reason += ": the same command goes on"
    print(f"error: {reason}", file=sys.stderr)
    return code
