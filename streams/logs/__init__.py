"""Recorded logs as ads and events, whatever their format.

A format is a module here with one function, ``read(directory: Path) -> Log``: it opens the files, states the
rule by which each field of a wire message comes from the log (where the log does not say, the field keeps its
default, or is invented by a rule that says so), and raises `LogError` where a file is not what it expects.
`kuairand` is the example. Whatever takes a `Log` (replay, training, benchmarks) then takes the new format.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.wire import Ad, Click, Impression

Event = Impression | Click


class LogError(ValueError):
    """A file of a log that is not what its format says."""

    def __init__(self, file: Path, line: int, value: object, expected: str) -> None:
        super().__init__(f"{file}, line {line}: {value!r}; expected {expected}")


@dataclass(frozen=True, slots=True)
class Log:
    """What was on offer and what happened.

    ``events`` stand in the order of `in_order`; whoever builds a log by hand passes them through it.
    """

    ads: Sequence[Ad]
    events: Sequence[Event]


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events by time; of one millisecond impressions come before clicks, and otherwise the given order stays."""
    return sorted(events, key=lambda event: (event.time_ms, isinstance(event, Click)))
