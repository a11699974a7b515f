"""`python -m tools run WORKFLOW` and `python -m tools table TABLE WORKFLOW`; see
docs/automation.md. Installed as a package the same command is called `hires-fusion`.
"""

from __future__ import annotations

import sys

NEEDED = "pillow psutil requests tqdm websocket-client"


def main() -> int:
    """The command; its exit code. A package that it lacks is one line, and the remedy."""
    try:
        from .runs.cli import main as command

        return command()
    except ModuleNotFoundError as problem:
        if (problem.name or "").split(".")[0] == __package__.split(".")[0]:
            raise
        print(f"error: {problem.name} is missing: pip install {NEEDED}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
