"""Who answered, how long it took, how many tokens, what it cost; warnings first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Call:
    """One question to one model. `cost` in dollars, None without a configured price."""

    role: str
    model: str
    problem: str = ""  # empty: it answered
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    asked: int = 1

    def line(self) -> str:
        """One line of the report."""
        name = f"{self.role}: {self.model}"
        if self.problem:
            return f"{name}: FAILED after {self.seconds:.1f} s: {self.problem}"
        parts = [f"{self.seconds:.1f} s", f"{self.tokens_in} + {self.tokens_out} tokens"]
        if self.asked > 1:
            parts.append(f"asked {self.asked} times")
        if self.cost is not None:
            parts.append(f"${self.cost:.5f}")
        return f"{name}: {', '.join(parts)}"


@dataclass
class Outcome(Generic[Value]):
    """What a role came to. `warnings` are shown on the node; `failed`: no model answered."""

    value: Value
    calls: list[Call] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failed: bool = False

    def report(self) -> str:
        """The report as text."""
        lines = [f"WARNING: {warning}" for warning in self.warnings]
        lines += [call.line() for call in self.calls]
        if len(self.calls) > 1:
            lines.append(self.total())
        return "\n".join(lines)

    def total(self) -> str:
        """Sums over all calls. Calls run side by side, so their seconds add up to more than the
        wait."""
        calls = self.calls
        answered = sum(not call.problem for call in calls)
        tokens = sum(c.tokens_in for c in calls), sum(c.tokens_out for c in calls)
        text = f"{answered} of {len(calls)} calls answered, {tokens[0]} + {tokens[1]} tokens"
        costs = [call.cost for call in calls if call.cost is not None]
        if costs:
            unknown = sum(call.cost is None and not call.problem for call in calls)
            text += f", ${sum(costs):.5f}" + (f" and {unknown} without a price" if unknown else "")
        return text
