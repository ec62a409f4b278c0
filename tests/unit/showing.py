"""Impressions as the referee of experiments reads them off their topic."""

import sys
from collections.abc import Iterable

import msgspec

from streams.experiments.referee import Referee
from streams.topics import AD_IMPRESSIONS
from streams.wire import UNREADABLE
from tests.builders import Record


class _Whose(msgspec.Struct):
    user_id: str


def record_of(value: bytes | None, offset: int = 0) -> Record:
    """A value under its user's key, of a record that does not tell when it was sent."""
    try:
        key = msgspec.json.decode(value or b"", type=_Whose).user_id.encode()
    except UNREADABLE:
        key = b""
    return Record(AD_IMPRESSIONS, 0, offset, -1, key, value)


def see(referee: Referee, values: Iterable[bytes | None]) -> None:
    """Let the referee read ``values``, each under its user's key and however they are dated."""
    referee.take_impressions([record_of(value, offset) for offset, value in enumerate(values)], sys.maxsize)
