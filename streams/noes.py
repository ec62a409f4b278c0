"""Refusals of consent: each counts, whatever its device's clock or another field of its event says. No I/O."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from streams.columns import Event
from streams.wire import UNREADABLE, Click, Id

if TYPE_CHECKING:
    from streams.decode import Record


class _No(Struct, frozen=True, gc=False):
    user_id: Annotated[Id, Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z")]
    consent: bool
    time_ms: Any = None


_decode = msgspec.json.Decoder(_No).decode


def no_in(record: "Record", latest_ms: int, ahead_ms: int) -> int | None:
    """The time of the refusal in ``record``, UTC epoch ms, as of `believed`; None where its key's user makes none.

    A time that is none is taken for the record's.
    """
    try:
        no = _decode(record.value or b"")
    except UNREADABLE:
        return None
    if no.consent or no.user_id.encode() != record.key:
        return None
    is_time = type(no.time_ms) is int and no.time_ms >= 0
    return _believed_ms(no.time_ms if is_time else latest_ms + 1, record.timestamp, latest_ms, ahead_ms)


def believed(event: Event, sent_ms: int, latest_ms: int, ahead_ms: int) -> Event:
    """A refusal of consent; if its device's clock is too far ahead, dated by its record (``sent_ms``, -1: unknown).

    So it counts whatever that clock says, and has the same time whenever it is read.
    """
    time_ms = _believed_ms(event.time_ms, sent_ms, latest_ms, ahead_ms)
    changes = {"time_ms": time_ms}
    if isinstance(event, Click) and event.impression_time_ms is not None:
        changes["impression_time_ms"] = min(event.impression_time_ms, time_ms)
    return msgspec.structs.replace(event, **changes)


def _believed_ms(time_ms: int, sent_ms: int, latest_ms: int, ahead_ms: int) -> int:
    came_ms = latest_ms if sent_ms < 0 else min(sent_ms, latest_ms)
    return time_ms if time_ms <= min(came_ms + ahead_ms, latest_ms) else came_ms
