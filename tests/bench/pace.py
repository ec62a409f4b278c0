"""Steady pace: what an engine does per second, its first tenth aside, while it warms up."""

from collections.abc import Sequence

WARM_UP_SHARE = 0.1

Sample = tuple[float, int]
"""Seconds on a monotonic clock, and the events done by then."""


def warm(samples: Sequence[Sample]) -> int:
    """The place of the first sample past the first tenth of all events; the last but one where that is the last."""
    _, events = samples[-1]
    at = next(at for at, (_, done) in enumerate(samples) if done >= WARM_UP_SHARE * events)
    return min(at, len(samples) - 2)


def pace(samples: Sequence[Sample], at: int | None = None) -> float:
    """Events per second from the sample ``at``, by default the first that is `warm`, until the last."""
    first_s, before = samples[warm(samples) if at is None else at]
    last_s, events = samples[-1]
    return (events - before) / (last_s - first_s)
