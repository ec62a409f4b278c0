"""Dead letters: refused records as they came, with headers that tell their origin and why (as Kafka Connect does)."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from streams.decode import Record
from streams.message import Headers, Message
from streams.topics import BATCH_BYTES

PREFIX = "salience."
REQUEUED = PREFIX + "requeued"
"""Header of a record that was sent back: how often."""
REROUTED = PREFIX + "rerouted"
"""Header of a record that came in the wrong partition and was sent on to its own."""
ORIGIN = PREFIX + "topic"
"""Header of a letter: the topic that its record came from."""
TRUNCATED = PREFIX + "truncated"
"""Header of a letter whose record was too large and is cut: its whole size in bytes. The origin says where it is."""
LETTER_BYTES_MAX = 2 * BATCH_BYTES - 4_096
"""Largest letter: what its topic takes, less the batch's overhead. An input of the full size and its origin fit."""
EXCERPT_BYTES = 1_024
"""How much of the key, and of the value, is kept of a record that does not fit."""
_TRAVEL = (REQUEUED, REROUTED)
"""Those of our headers that belong to a record; all others describe a letter."""


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

    The record's time is a header. If the letter itself had that time, retention could delete it at once.
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
    """The record's headers without ours that describe a letter.

    So a letter that was sent back and is refused again gets its new origin, and no producer can have its letters taken
    for notes, or for cut ones.
    """
    return tuple((name, value) for name, value in headers if name in _TRAVEL or not name.startswith(PREFIX))
