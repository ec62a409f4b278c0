"""Recorded logs as ads and events, whatever their format.

A format is a module here with one function, ``read(directory: Path) -> Log``. It opens the files, and raises `LogError`
where one is not what it expects. Its docstring states the rule by which each field of a wire message comes from the
log; a field that the log does not have keeps its default, or is invented by a rule that says so. Times are UTC epoch
milliseconds: a time in another unit (`SECONDS`) is refused. `kuairand` is the example. Replay, training and benchmarks
take any `Log`, and so any new format.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streams.columns import Event
from streams.mendable import MendableError
from streams.wire import Ad, Click, Tone

SHOWN_MAX = 200
"""Characters of a value that an error quotes."""


SECONDS = range(946_684_800, 4_102_444_800)
"""Times in seconds of the years 2000 to 2100. Read as milliseconds they would be in January and February 1970, when
no log was made: so such a time is in seconds. Microseconds of these years exceed the wire's latest time, in 2100."""
LATEST_MS = SECONDS.stop * 1_000
"""The latest time that the wire takes."""
EXPECTED_TIME = (
    "milliseconds of UTC since 1970, as 1700000000000 for November 2023: "
    "multiply seconds by 1,000, divide microseconds by 1,000"
)


class LogError(MendableError, ValueError):
    """A log does not follow its format; the message has the file and line, the value there, and what was expected."""


def mistimed(message: Ad | Event | Tone) -> dict[str, int]:
    """The times of a message, by field, that no log may hold: one of them makes the whole log invalid."""
    told = {name: getattr(message, name) for name in times_of(type(message))}
    return {
        name: time_ms
        for name, time_ms in told.items()
        if time_ms is not None and (time_ms in SECONDS or not 0 <= time_ms <= LATEST_MS)
    }


def times_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of the fields of a kind of message that are times."""
    return tuple(name for name in kind.__struct_fields__ if name.endswith("_ms"))


def shown(value: object) -> str:
    """A value as an error quotes it: whole, or its first `SHOWN_MAX` characters."""
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


@dataclass(frozen=True, slots=True)
class Log:
    """What was on offer, and what happened: ``events`` are in the order of `in_order`.

    ``tones``: the tones of reviews by time, as they were published, if there were any.
    """

    ads: Sequence[Ad]
    events: Sequence[Event]
    tones: Sequence[Tone] = ()


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events by time; within one millisecond impressions come before clicks, and otherwise the given order stays."""
    return sorted(events, key=lambda event: (event.time_ms, isinstance(event, Click)))
