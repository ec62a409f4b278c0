"""Steady pace: an engine's events per second, its first tenth aside, while it warms up."""

from collections.abc import Sequence

WARM_UP_SHARE = 0.1

Sample = tuple[float, int]
"""Seconds on a monotonic clock, and the events done by then."""


def pace(samples: Sequence[Sample]) -> float:
    """Events per second from the first sample past the first tenth of all events until the last sample.

    Where a run is so short that this is one and the same, from the sample before.
    """
    last_s, events = samples[-1]
    at = next(at for at, (_, done) in enumerate(samples) if done >= WARM_UP_SHARE * events)
    first_s, before = samples[min(at, len(samples) - 2)]
    return (events - before) / (last_s - first_s)
