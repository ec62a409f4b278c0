"""Records set aside, as they came, with headers that say where from and why (as Kafka Connect does)."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from streams.decode import Record
from streams.message import Headers, Message
from streams.topics import BATCH_BYTES

PREFIX = "salience."
REQUEUED = PREFIX + "requeued"
"""Header of a record sent back: how often."""
REROUTED = PREFIX + "rerouted"
"""Header of a record that came in the wrong partition and was sent on to its own."""
ORIGIN = PREFIX + "topic"
"""Header of a letter: the topic that its record came from."""
TRUNCATED = PREFIX + "truncated"
"""Header of a letter whose record was too large for it: what it had, in bytes. The origin says where the rest is."""
LETTER_BYTES_MAX = 2 * BATCH_BYTES - 4_096
"""Of a letter: what its topic takes, less the batch's own bytes. An input of the full size and its origin fit."""
EXCERPT_BYTES = 1_024
"""Kept of the key and the value of a record that does not fit."""
_TRAVEL = (REQUEUED, REROUTED)
"""Of our headers those that a record brings along; the others say something of a letter."""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """Where a record on ``dead-letters`` came from; travels as its headers, beside the raw key, value and time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    stage: str
    error: str
    message: str


def letter(record: Record, stage: str, error: str, message: str) -> Message:
    """The record with its origin.

    Its time is among the headers: a letter dated as the record was would be deleted with the topic's oldest.
    """
    origin = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        stage=stage,
        error=error,
        message=message,
    )
    told = tuple((f"{PREFIX}{name}", str(value).encode()) for name, value in msgspec.structs.asdict(origin).items())
    whole = Message(record.key, record.value, (*own_headers(record.headers), *told))
    if whole.size <= LETTER_BYTES_MAX:
        return whole
    return Message(
        record.key and record.key[:EXCERPT_BYTES],
        record.value and record.value[:EXCERPT_BYTES],
        (*told, (TRUNCATED, str(whole.size).encode())),
    )


def own_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The record's headers without those of ours that are said of letters.

    The origin of a letter that was sent back and is refused again is the new one; and no producer may have its letters
    taken for notes, or for cut short.
    """
    return tuple((name, value) for name, value in headers if name in _TRAVEL or not name.startswith(PREFIX))
