"""A part of the noise schedule, as the host's nodes name it: from start_percent to end_percent."""

from __future__ import annotations

from typing import Any, NamedTuple


class Span(NamedTuple):
    """From one place of the schedule to another: 0 is pure noise, 1 the finished picture.

    Places are the host's percents, so of a flow model they count with its shift.
    """

    start: float = 0.0
    end: float = 1.0

    def holds(self, model_sampling: Any, sigma: float) -> bool:
        """Whether a noise level lies in it. The start belongs to it, the end does not, so that
        of two spans that meet one holds."""
        first, last = map(model_sampling.percent_to_sigma, self)
        return last < sigma <= first


WHOLE = Span()


def span(start_percent: float, end_percent: float) -> Span:
    """The part of the schedule between two places.

    Raises:
        ValueError: there is nothing between them.
    """
    if not 0 <= start_percent < end_percent <= 1:
        raise ValueError(
            f"start_percent {start_percent:g} and end_percent {end_percent:g} leave nothing "
            "between them: choose both from 0 to 1, and the end above the start"
        )
    return Span(start_percent, end_percent)
