"""`make serve`: ComfyUI with this pack, for use by hand, with the models of one's own ComfyUI."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from tools.host import HostError, find_host
from tools.server import model_paths, start_server


def main() -> int:
    """Serve on HRF_PORT until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        port = int(os.environ.get("HRF_PORT") or 8188)
        host = find_host()
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as paths:
            paths.write(model_paths(host))
            paths.flush()
            extra = ["--extra-model-paths-config", paths.name, "--preview-method", "auto"]
            with start_server(host=host, port=port, extra_args=extra) as server:
                print(f"{server.url}  (Ctrl-C stops it; what it saves goes with it)", flush=True)
                server.process.wait()
                print(f"error: ComfyUI ended:\n{server.tail()}", file=sys.stderr)
                return 1
    except (HostError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
