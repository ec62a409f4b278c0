"""Records to columns: decode, validate, and set aside what fails as a dead letter with its origin."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.events import EVENT, VIEWED_LONG_MS, Events, Kind, Source
from scoring.ids import id64
from scoring.rows import RowStore
from streams import wire

Event = wire.Impression | wire.Click


class Record(Protocol):
    """What we use of an aiokafka ``ConsumerRecord``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


_DECODERS: dict[int, Callable[[bytes], Event]] = {
    Source.IMPRESSION: msgspec.json.Decoder(wire.Impression).decode,
    Source.CLICK: msgspec.json.Decoder(wire.Click).decode,
}
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
"""What a user's key must not hold: the lane row's key begins with NUL. As a pattern on the wire type it would cost
3 µs an event, five times the decoding; after ``isprintable`` it costs 0.1."""
_KINDS = {"click": Kind.CLICKED, "view": Kind.VIEWED, "cart": Kind.CARTED, "purchase": Kind.PURCHASED}


@dataclass(slots=True)
class Decoded:
    """``events``: what may be applied, in order. ``dead``: refused records with stage, error class and message.

    ``misplaced``: records whose key belongs to another partition, to be sent there. ``places``: each event's record.
    """

    events: Events
    places: list[int] = field(default_factory=list)
    dead: list[tuple[Record, str, str, str]] = field(default_factory=list)
    misplaced: list[Record] = field(default_factory=list)


def decode(
    records: Sequence[Record],
    sources: npt.NDArray[np.uint8],
    store: RowStore,
    *,
    latest_ms: int,
    belongs_here: Callable[[bytes], bool],
) -> Decoded:
    """Decode ``records`` in order; rows are made for new users.

    ``latest_ms``: now + tolerance, the newest time that an event may have. ``belongs_here(key)``: whether the
    partitioner puts the key in this lane; asked once per user, since the answer is the same ever after.
    """
    events: list[Event] = []
    kept: list[int] = []
    offsets: list[int] = []
    rows: list[int] = []
    out = Decoded(np.zeros(0, dtype=EVENT))
    for place, (record, source) in enumerate(zip(records, sources.tolist(), strict=True)):
        try:
            event = _DECODERS[source](record.value or b"")
            key = event.user_id.encode()
            _check(event, key, record.key, latest_ms)
        except (msgspec.MsgspecError, ValueError) as error:
            out.dead.append((record, "decode", type(error).__name__, str(error)))
            continue
        row = store.find(key)
        if row < 0:
            if not belongs_here(key):
                out.misplaced.append(record)
                continue
            row = store.row_of(key)
        events.append(event)
        kept.append(source)
        offsets.append(record.offset)
        rows.append(row)
        out.places.append(place)
    out.events = columns(events, rows)
    out.events["source"] = kept
    out.events["offset"] = offsets
    return out


def _check(event: Event, user: bytes, key: bytes | None, latest_ms: int) -> None:
    """What the type cannot say. Raises `ValueError` with the value, the expectation and the fix."""
    if not event.user_id.isprintable() and _CONTROL.search(user):
        raise ValueError(f"user_id {event.user_id!r} holds a control character; give every user a plain id")
    if user != key:
        raise ValueError(f"the record's key is {key!r}, expected the event's user_id; key both topics by user")
    if event.time_ms > latest_ms:
        raise ValueError(f"time_ms {event.time_ms} is in the future (at most {latest_ms}); check the producer's clock")
    if isinstance(event, wire.Click) and event.impression_time_ms is not None and event.impression_time_ms > latest_ms:
        raise ValueError(
            f"impression_time_ms {event.impression_time_ms} is in the future (at most {latest_ms}); "
            "check the producer's clock"
        )


def columns(events: Sequence[Event], rows: Sequence[int]) -> Events:
    """Wire events as ``[E]`` of `EVENT`, in order; ``rows`` are the users' rows.

    Offsets are the positions, and the stream's time is the newest so far: as if each had come when it happened.
    """
    out = np.zeros(len(events), dtype=EVENT)
    if not events:
        return out
    surfaces: dict[str, int] = {"": 0}
    out["time_ms"] = [event.time_ms for event in events]
    out["stream_ms"] = np.maximum.accumulate(out["time_ms"])
    out["ad"] = [id64(event.ad_id) for event in events]
    out["event"] = [id64(event.event_id) for event in events]
    out["offset"] = np.arange(len(events))
    out["row"] = rows
    out["surface"] = [
        surfaces[name] if (name := event.surface) in surfaces else surfaces.setdefault(name, _surface(name))
        for event in events
    ]
    clicks = [(place, event) for place, event in enumerate(events) if isinstance(event, wire.Click)]
    out["kind"], out["source"], out["shown_ms"] = Kind.SHOWN, Source.IMPRESSION, out["time_ms"]
    out["slot"] = [-1 if isinstance(event, wire.Click) or event.slot is None else event.slot for event in events]
    if clicks:
        at = [place for place, _ in clicks]
        out["source"][at] = Source.CLICK
        out["kind"][at] = [_kind(event) for _, event in clicks]
        out["viewed_ms"][at] = [round(1000 * (event.viewed_s or 0)) for _, event in clicks]
        out["value_micros"][at] = [event.value_micros for _, event in clicks]
        out["shown_ms"][at] = [
            event.time_ms if event.impression_time_ms is None else event.impression_time_ms for _, event in clicks
        ]
    return out


def _kind(click: wire.Click) -> Kind:
    if click.kind == "view" and 1000 * (click.viewed_s or 0) >= VIEWED_LONG_MS:
        return Kind.VIEWED_LONG
    return _KINDS[click.kind]


def _surface(name: str) -> int:
    """A surface as 1 to 65,535."""
    return 1 + id64(name) % 65_535
