"""`python -m tools.release VERSION`: write the next version into pyproject.toml and CHANGELOG.md.

What stood under "Unreleased" becomes that version's, dated today. Nothing is committed or sent.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

from tools.host import ROOT

VERSION = re.compile(r'^version = "(\d+)\.(\d+)\.(\d+)"$', re.M)
HEADING = "## Unreleased\n"


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers; ValueError if it is none of three."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ValueError(f"{version!r} is no version: write it as 1.2.3")
    return tuple(map(int, version.split(".")))


def release(version: str, root: Path = ROOT, today: datetime.date | None = None) -> None:
    """Set the version of the checkout at `root`.

    Raises:
        ValueError: it is no version, not above the present one, or nothing is under "Unreleased".
    """
    wanted = numbers(version)
    project, log = root / "pyproject.toml", root / "CHANGELOG.md"
    settings, changes = project.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")
    found = VERSION.search(settings)
    if not found:
        raise ValueError('pyproject.toml has no line like version = "1.2.3"')
    present = tuple(map(int, found.groups()))
    if wanted <= present:
        raise ValueError(f"{version} is not above {'.'.join(map(str, present))}")
    head, heading, rest = changes.partition(HEADING)
    news = rest.split("\n## ")[0]
    if not heading or not news.strip():
        raise ValueError('CHANGELOG.md has nothing under "## Unreleased": say what changed')
    day = (today or datetime.date.today()).isoformat()
    project.write_text(VERSION.sub(f'version = "{version}"', settings, count=1), encoding="utf-8")
    log.write_text(f"{head}## {version}, {day}\n{rest}", encoding="utf-8")


def main() -> None:
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit("error: which version? python -m tools.release 1.2.3")
    try:
        release(sys.argv[1])
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
    print(f"{sys.argv[1]}: look at the change, commit it, and push it to publish")


if __name__ == "__main__":
    main()
