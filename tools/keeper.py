"""Run a command and end it, with all its children, when whoever asked for it is gone.

    python keeper.py COMMAND …

Standard input has to be a pipe from the one who asks: the system closes it in whatever way that
process ends, a `kill -9` too, which no handler of its own would see. Who kills it may kill its
children as well, us among them (Ray does), so a process that is no child of it waits for that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def wait_for_the_end() -> None:
    """Return when nobody is left at the other end of the pipe."""
    while os.read(0, 4096):
        pass


def kill(child: subprocess.Popen) -> None:
    """Without processes that fork, on Windows, a thread of ours has to do."""
    wait_for_the_end()
    child.kill()


def main() -> int:
    """The command's exit code."""
    if hasattr(os, "setpgid") and os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # or it would kill the group of whoever asked
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    for sign in (signal.SIGINT, signal.SIGTERM):  # the child gets them too, and decides
        signal.signal(sign, signal.SIG_IGN)
    if hasattr(os, "fork"):
        if os.fork() == 0:
            wait_for_the_end()
            os.killpg(0, signal.SIGKILL)  # whoever is left of us all
    else:
        threading.Thread(target=kill, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
