"""`python -m tools.package [FOLDER]`: what the Registry would get, listed or copied to FOLDER.

By the rule of `comfy node pack`: the files that git tracks, less what `.comfyignore` names in
gitignore syntax. Git itself reads the patterns.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools.host import ROOT, HostError

IGNORED = ".comfyignore"


def tracked(root: Path, *options: str) -> list[str]:
    """Files that git tracks in `root`, posix paths from there; HostError where there is no git."""
    git = ["git", "-C", str(root), "-c", "safe.directory=*", "ls-files", "-z", "--cached"]
    try:
        done = subprocess.run([*git, *options], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        raise HostError("packing needs git: install it") from None
    if done.returncode:
        raise HostError(f"packing needs a git checkout: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name]


def packed(root: Path = ROOT) -> list[str]:
    """Files of the package, sorted posix paths from `root`."""
    left_out = set(tracked(root, "--ignored", "--exclude-from", str(root / IGNORED)))
    # What git tracks and somebody has just deleted is in no package.
    return sorted(n for n in set(tracked(root)) - left_out if (root / n).exists())


def unpack(folder: Path, root: Path = ROOT) -> Path:
    """Copy the package into `folder`, as an installer would leave it there; `folder`."""
    for name in packed(root):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
    return folder


def main() -> None:
    """Command line."""
    try:
        if sys.argv[1:]:
            print(f"{len(packed())} files in {unpack(Path(sys.argv[1]))}")
            return
        sizes = {name: (ROOT / name).stat().st_size for name in packed()}
    except (HostError, OSError) as problem:
        sys.exit(f"error: {problem}")
    for name, size in sizes.items():
        print(f"{size:10,}  {name}")
    print(f"{sum(sizes.values()):10,}  bytes in {len(sizes)} files")


if __name__ == "__main__":
    main()
