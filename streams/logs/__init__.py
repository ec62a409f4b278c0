"""Recorded logs as ads and events, whatever their format.

A format is a module here with one function, ``read(directory: Path) -> Log``. It opens the files, states the
rule by which each field of a wire message comes from the log (where the log does not say, the field keeps its
default, or is invented by a rule that says so), and raises `LogError` where a file is not what it expects.
Times are UTC epoch milliseconds: one that tells of another unit (`SECONDS`) is no time.
`kuairand` is the example. Replay, training and benchmarks take any `Log`, so they take the new format with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streams.columns import Event
from streams.wire import Ad, Click, Tone

SHOWN_MAX = 200
"""Characters of a value that an error quotes."""


SECONDS = range(946_684_800, 4_102_444_800)
"""Seconds of the years 2000 to 2100. Read as milliseconds they are days of January and February 1970, of which no log
is: such a time is in seconds. Microseconds of these years exceed the latest time that the wire takes, in 2100."""
LATEST_MS = SECONDS.stop * 1_000
"""The latest time that the wire takes."""
EXPECTED_TIME = (
    "milliseconds of UTC since 1970, as 1700000000000 for November 2023: "
    "multiply seconds by 1,000, divide microseconds by 1,000"
)


class LogError(ValueError):
    """A log that is not what its format says: which file and line, the value there, and what was expected."""


def mistimed(message: Ad | Event | Tone) -> dict[str, int]:
    """The times of a message, by field, that no log may hold: a log with one of them is refused whole."""
    told = {name: getattr(message, name) for name in times_of(type(message))}
    return {
        name: time_ms
        for name, time_ms in told.items()
        if time_ms is not None and (time_ms in SECONDS or not 0 <= time_ms <= LATEST_MS)
    }


def times_of(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a kind of message that are times."""
    return tuple(name for name in kind.__struct_fields__ if name.endswith("_ms"))


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
