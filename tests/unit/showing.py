"""Impressions as the referee of experiments reads them off their topic."""

import sys
from collections.abc import Iterable

import msgspec

from scoring.policies import arm_tag
from streams.experiments.referee import Referee
from streams.placement_ids import placement_id
from streams.topics import AD_IMPRESSIONS
from streams.wire import UNREADABLE
from tests.builders import Record


class _Whose(msgspec.Struct):
    user_id: str


def placed(user: str, *arms: tuple[int, int]) -> str:
    """The id of a placement that was made for ``user``, in ``arms`` by the numbers of their experiments."""
    return placement_id(0, user.encode(), (0, 0)) + arm_tag([*arms])


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
