"""`python -m tools run WORKFLOW` and `python -m tools table TABLE WORKFLOW`; see
docs/automation.md. Installed as a package the same command is called `hires-fusion`.
"""

from __future__ import annotations

import sys

from .runs.cli import main

if __name__ == "__main__":
    sys.exit(main())
