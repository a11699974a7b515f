"""The servers of a table as Ray actors: Ray places them, restarts them, runs rows again, and
carries their files. https://docs.ray.io
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..host import HostError
from .rows import Row
from .worker import Worker

# Ray reports its use to its makers unless told not to.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError
except ImportError:
    ray = None

TRIES = 3  # of a row whose server is lost
STARTS = 5  # tries; each gets 30 s from Ray, which a machine with much to do exceeds
BACK = 120.0  # seconds that an actor may take to come back
DEPTH = __name__.count(".")
PACKAGE = Path(__file__).resolve().parents[DEPTH - 1]


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[str]:
    """A Ray of our own on this machine, or the cluster at `address`; the dashboard's URL or ''."""
    if ray is None:
        raise HostError('Ray is missing: pip install "ray[default]", or leave --ray out')
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    more: dict[str, Any]
    if address:
        reachable(address)
        more = {"address": address, "runtime_env": {"py_modules": [str(PACKAGE)]}}
    else:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        more = {}
    context = begun(more)
    try:
        yield f"http://{context.dashboard_url}" if context.dashboard_url else ""
    finally:
        ray.shutdown()


def reachable(address: str) -> None:
    """HostError at once if nobody listens there; Ray would try for a quarter of an hour."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto": Ray looks for one on this machine
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as problem:
        raise HostError(f"no Ray answers at {address}: {problem}") from None


def begun(options: Mapping[str, Any]) -> Any:
    """Ray's context; HostError in one line if it does not start."""
    for left in reversed(range(STARTS)):
        try:
            return ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except Exception as problem:  # it raises that very class where 30 s were too few
            first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            if not left or "timed out" not in first:
                if "address" in options:  # Ray gives its token to no address by itself
                    where = f"answer at {options['address']}"
                    first += " (one that asks for a token: RAY_AUTH_MODE=token)"
                else:
                    where = "start"
                raise HostError(f"Ray does not {where}: {first}") from None
            ray.shutdown()
    raise AssertionError("unreachable")


class Hands:
    """Actors, each with one server.

    urls: servers to attach to; else `count` are started (None: one per GPU, or one on the CPU),
    as `options` say (see `Worker`).
    """

    def __init__(
        self, urls: list[str], count: int | None, options: Mapping[str, Any], cpu: bool = False
    ) -> None:
        gpus = 0 if cpu or urls else int(ray.cluster_resources().get("GPU", 0))
        if gpus and count and count > gpus:
            raise HostError(f"the cluster has {gpus} GPUs: give --servers {gpus} or less, or --cpu")
        actor = ray.remote(Worker).options(
            num_cpus=0,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_concurrency=2,  # so that it can be told to stop while it runs a row
            scheduling_strategy="SPREAD",
        )
        options = dict(options)
        if urls:
            self.actors = [actor.remote(**{**options, "url": url}) for url in urls]
        else:
            launch = {**options["launch"], "cpu": not gpus}
            number = count or gpus or 1
            self.actors = [actor.remote(**{**options, "launch": launch}) for _ in range(number)]
        self.busy: dict[Any, Any] = {}
        self.on_loss: Callable[[str], None] = lambda reason: None  # a server is gone for good

    def info(self, classes: list[str]) -> dict[str, Any]:
        """What one of the servers tells of those node classes: the first that answers."""
        refs = [actor.info.remote(classes) for actor in self.actors]
        reason = ""
        while refs:
            [ref], refs = ray.wait(refs)
            try:
                return ray.get(ref)
            except RayError as problem:
                reason = told(problem)
        raise HostError(reason)

    def start(self, actor: Any, row: Row) -> Any:
        """Begin a row; the reference to its outcome. Ray runs it again if the server is lost."""
        run = actor.run.options(max_task_retries=TRIES - 1, retry_exceptions=[ConnectionError])
        ref = run.remote(row.prompt, {"name": row.name, "settings": dict(row.settings)})
        self.busy[ref] = actor
        return ref

    def wait(self, refs: list[Any]) -> tuple[Any, dict[str, Any]]:
        """One that has ended, and what came of it."""
        [ref], _ = ray.wait(refs, num_returns=1)
        actor = self.busy.pop(ref)
        try:
            outcome = ray.get(ref)
        except RayActorError as problem:
            outcome = {"again" if self.back(actor) else "gone": told(problem)}
        except RayError as problem:
            outcome = {"lost": told(problem)}
        if "gone" in outcome:
            self.on_loss(outcome["gone"])
        return ref, outcome

    def back(self, actor: Any) -> bool:
        """Whether an actor whose process died is there again, which Ray sees to."""
        deadline = time.monotonic() + BACK
        while time.monotonic() < deadline:
            try:
                return ray.get(actor.here.remote(), timeout=BACK)
            except (ActorDiedError, GetTimeoutError):
                return False
            except RayActorError:
                time.sleep(0.5)
        return False

    def close(self) -> None:
        """Stop what runs, and the servers that were started."""
        with contextlib.suppress(RayError):
            ray.wait([actor.close.remote() for actor in self.actors], num_returns=len(self.actors),
                     timeout=30)  # fmt: skip
        for actor in self.actors:
            ray.kill(actor)


def told(problem: BaseException) -> str:
    """The last line of an error, which Ray puts below the traceback."""
    cause = getattr(problem, "cause", None) or problem
    lines = str(cause).strip().splitlines()
    return lines[-1 if cause is problem else 0] if lines else type(problem).__name__
