"""What is done already: the pictures in a folder and the line about each in its rows.jsonl.

A row's line is written when its files lie in their places, and both are on the disk before the
next step; so whatever is killed, a row is either done or not there.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .rows import Row, clipped, safe

JOURNAL = "rows.jsonl"
INDEX = "index.csv"
PART = ".part-"


class FolderError(OSError):
    """The folder for the results cannot be used; the message says why in one line."""


class Record:
    """The results in a folder, for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = (folder / JOURNAL).open("a+b")
        except OSError as problem:
            raise FolderError(f"{folder}: {problem.strerror}") from problem
        lock(self.file, folder)
        self.done: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self.read()
        for left in folder.glob(PART + "*"):
            left.unlink()

    def read(self) -> None:
        """Take the lines that are whole; one that a kill tore is cut off."""
        self.file.seek(0)
        whole = 0
        for line in self.file:
            if not line.endswith(b"\n"):
                break
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if all((self.folder / name).is_file() for name in entry["files"]):
                    self.done[entry["key"]] = entry
            whole += len(line)
        self.file.truncate(whole)

    def finish(self, row: Row, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Save what a row made, and that it is done. FolderError if the disk is full."""
        saved: list[str] = []
        try:
            for name, content in named(row, outcome["files"]):
                self.save(name, content)
                saved.append(name)
            for number, content in enumerate(outcome.get("previews") or [], 1):
                kind = ".png" if content.startswith(b"\x89PNG") else ".jpg"
                (self.folder / "previews").mkdir(exist_ok=True)
                self.save(f"previews/{row.name}_{number:03d}{kind}", content)
            entry = {
                "key": row.key,
                "number": row.number,
                "settings": dict(row.settings),
                "files": saved,
                "texts": outcome.get("texts") or {},
                "seconds": round(outcome["seconds"], 3),
            }
            at = self.file.seek(0, os.SEEK_END)
            try:
                self.file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                self.file.flush()
                os.fsync(self.file.fileno())
            except OSError:
                self.file.truncate(at)
                raise
        except OSError as problem:
            raise FolderError(why(problem, self.folder)) from problem
        self.done[row.key] = entry
        self.failed.pop(row.key, None)
        return entry

    def save(self, name: str, content: bytes) -> None:
        """A whole file, or none."""
        part = self.folder / (PART + name.replace("/", "-"))
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.folder / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def index(self, rows: Iterable[Row]) -> Path:
        """Write index.csv: one line for every row of the table, in its order."""
        settings: dict[str, None] = {}
        for entry in self.done.values():
            settings |= dict.fromkeys(entry["settings"])
        names = ["number", "status", "files", "seconds", "error", *settings]
        path = self.folder / INDEX
        with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(names)
            for row in rows:
                values = (row.settings.get(name, "") for name in settings)
                lines.writerow([*self.told(row), *values])
        return path

    def told(self, row: Row) -> list[Any]:
        """Number, status, files, seconds and error of a row."""
        if row.key in self.done:
            entry = self.done[row.key]
            return [row.number, "done", " ".join(entry["files"]), entry["seconds"], ""]
        reason = row.problem or self.failed.get(row.key)
        return [row.number, "failed" if reason else "open", "", "", reason or ""]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what `path` is to hold, whole or not at all; FolderError in one line."""
    part = path.parent / (PART + path.name)
    try:
        yield part
        os.replace(part, path)
    except OSError as problem:
        raise FolderError(why(problem, path.parent)) from problem
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def named(row: Row, files: Iterable[tuple]) -> Iterable[tuple[str, bytes]]:
    """A name for each file: the row's, and where it has several the node's title and a number."""
    files = list(files)
    for number, (title, kind, _, content) in enumerate(files, 1):
        more = f"_{clipped(safe(title), 30)}_{number}" if len(files) > 1 else ""
        yield row.name + more + re.sub(r"[^\w.]", "", kind), content


def why(problem: OSError, folder: Path) -> str:
    """One line about what went wrong on the disk, and the remedy."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder} is full: free some space and give the same command again, it goes on"
    return f"{problem.filename or folder}: {problem.strerror}"


def lock(file: Any, folder: Path) -> None:
    """FolderError if another process writes there; the system lets go of it when we end."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        def take() -> None:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:

        def take() -> None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    try:
        take()
    except OSError:
        raise FolderError(f"another run writes into {folder}: wait for it, or give --out") from None
