"""Recorded logs as ads and events, whatever their format.

A format is a module here with one function, ``read(directory: Path) -> Log``. It opens the files, states the
rule by which each field of a wire message comes from the log (where the log does not say, the field keeps its
default, or is invented by a rule that says so), and raises `LogError` where a file is not what it expects.
`kuairand` is the example. Replay, training and benchmarks take any `Log`, so they take the new format with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.wire import Ad, Click, Impression, Tone

Event = Impression | Click


SHOWN_MAX = 200
"""Characters of a value that an error quotes."""


class LogError(ValueError):
    """A log that is not what its format says: which file and line, the value there, and what was expected."""


def shown(value: object) -> str:
    """A value as an error quotes it: whole, or as much as can be read at a glance."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


@dataclass(frozen=True, slots=True)
class Log:
    """What was on offer, and what happened: ``events`` stand in the order of `in_order`.

    ``tones``: what was told of reviews as they came, where there were any, by time.
    """

    ads: Sequence[Ad]
    events: Sequence[Event]
    tones: Sequence[Tone] = ()


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events by time; of one millisecond impressions come before clicks, and otherwise the given order stays."""
    return sorted(events, key=lambda event: (event.time_ms, isinstance(event, Click)))
