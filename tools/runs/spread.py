"""Give rows to servers as they become free; nothing is lost, nothing is given twice.

No queue: there are never more rows in flight than servers, and the table is read as they end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ..client import NoServer
from .rows import Row

Hand = TypeVar("Hand")
Ref = TypeVar("Ref")
Outcome = dict[str, Any]
MOST_LOSSES = 3


def spread(
    rows: Iterable[Row],
    hands: Iterable[Hand],
    start: Callable[[Hand, Row], Ref],
    wait: Callable[[list[Ref]], tuple[Ref, Outcome]],
) -> Iterator[tuple[Row, Outcome]]:
    """(row, outcome) of every row, as they end.

    start: begin a row at a server; wait: one of those begun that has ended, and its outcome
    (see `Worker.run`; `lost` is a server's loss that retries did not cure, `again` one that is
    over). A server that is gone gets no more rows, and its row goes to another; NoServer when
    none is left.
    """
    idle, again = deque(hands), deque[tuple[Row, int]]()
    busy: dict[Ref, tuple[Hand, Row, int]] = {}
    rest = iter(rows)
    last = "no server was given"
    while True:
        while idle:
            row, losses = again.popleft() if again else (next(rest, None), 0)
            if row is None:
                break
            hand = idle.popleft()
            busy[start(hand, row)] = (hand, row, losses)
        if not busy:
            if idle:
                return
            raise NoServer(last)
        ref, outcome = wait(list(busy))
        hand, row, losses = busy.pop(ref)
        if "gone" in outcome:
            last = outcome["gone"]
        else:
            idle.append(hand)
        if reason := outcome.get("gone") or outcome.get("again"):
            if losses + 1 < MOST_LOSSES:
                again.append((row, losses + 1))
                continue
            outcome = {"error": f"{MOST_LOSSES} servers were lost with it; the last: {reason}"}
        elif "lost" in outcome:
            outcome = {"error": f"its server was lost again and again: {outcome['lost']}"}
        yield row, outcome
