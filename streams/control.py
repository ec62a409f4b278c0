"""The control topic: switches that every worker follows, and the writer that the commands use.

`Control` holds the newest message of each key, in the order of the topic. The topic is read whole before the worker is
ready. `Control` changes only on the compute thread and between slices, so it is constant within a slice.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Protocol, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaProducer

from streams.connection import aiokafka_options
from streams.control_wire import (
    KIND_NAMES,
    Consent,
    ControlMessage,
    Erasure,
    HeardConsent,
    HeardErasure,
    decode_control,
    kind_of,
)
from streams.decode import Record, is_plain
from streams.leaving import sending, transaction
from streams.letters import PREFIX
from streams.mendable import MendableError
from streams.message import Message
from streams.privacy.consent import AHEAD_MS
from streams.reading import read_topic
from streams.settings import Settings
from streams.topics import CONTROL
from streams.wire import UNREADABLE

log = structlog.get_logger()

CONTROLS_PER_READ = 5_000
"""Decoded in one call: about 10 ms."""
UPTO = PREFIX + "upto"
"""Header of a tombstone: how far it takes its key's messages back (`ControlMessage.sequence`). Without it, all."""

M = TypeVar("M", bound=ControlMessage)
Listener = Callable[[str, M | None], None]


class ControlFullError(MendableError):
    """More keys than a worker holds."""


class Control:
    """The newest message of each ``kind/name``; no I/O.

    Messages of unknown kinds are skipped, so commands may be newer than workers. A message that is malformed, or whose
    key is not its own, is refused. The message held stays if the new one is refused or does not stand after it
    (`ControlMessage.stands_after`), or is a tombstone that does not reach it (`UPTO`). A message that repeats the one
    held keeps its place in the order.
    """

    def __init__(self, entries_max: int = 1_000_000) -> None:
        """``entries_max``: keys held, mostly consents: about 0.5 GB here, and 0.1 GB in `streams.privacy.requests`."""
        self._entries_max = entries_max
        self._held: dict[str, dict[str, ControlMessage]] = {kind: {} for kind in KIND_NAMES}
        self._listeners: dict[str, list[Callable[[str, ControlMessage | None], None]]] = {}
        self._hidden: set[tuple[str, str]] = set()
        self.next_offset = 0
        """Offset after the last record taken."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def get(self, kind: type[M], name: str) -> M | None:
        """The newest message of ``kind`` for ``name``; None where there is none or it was taken back."""
        return self._held[kind_of(kind)].get(name)  # type: ignore[return-value]  # a kind's messages are of its type

    def all(self, kind: type[M]) -> Mapping[str, M]:
        """The newest messages of ``kind`` by name: the live mapping, not a copy."""
        return self._held[kind_of(kind)]  # type: ignore[return-value]  # a kind's messages are of its type

    def hidden(self, kind: type[M]) -> list[M]:
        """Messages of ``kind`` that stand though a newer record of their key exists: compaction will remove them."""
        return [message for name, message in self.all(kind).items() if (kind_of(kind), name) in self._hidden]

    def on(self, kind: type[M], listener: Listener[M]) -> None:
        """Call ``listener(name, message)`` for each message of ``kind``, at once for those held; None: taken back.

        It is called on the compute thread, in the order of the topic, between slices. An error it raises ends the
        worker. A listener that refuses a message therefore raises nothing, and keeps what it had.
        """
        self._listeners.setdefault(kind_of(kind), []).append(listener)  # type: ignore[arg-type]  # as above
        for name, message in self.all(kind).items():
            listener(name, message)

    def take(self, records: Sequence[Record]) -> int:
        """Take records in order; return how many were refused. Raises `ControlFullError`."""
        refused = 0
        for record in records:
            self.next_offset = record.offset + 1
            kind, _, name = (record.key or b"").decode(errors="replace").partition("/")
            if kind not in KIND_NAMES:
                continue
            try:
                message = None if record.value is None else _dated(read_message(record.key, record.value), record)
                upto = _upto(record) if message is None else None
            except UNREADABLE as error:
                refused += 1  # do not log the error's text: it may quote the record, which may name a person
                log.warning("control message refused", kind=kind, offset=record.offset, error=type(error).__name__)
                continue
            self._set(kind, name, message, upto)
        return refused

    def _set(self, kind: str, name: str, message: ControlMessage | None, upto: int | None) -> None:
        held = self._held[kind]
        before = held.get(name)
        if before is not None and not _stands_after(message, upto, before):
            self._hidden.add((kind, name))
            return
        self._hidden.discard((kind, name))
        if message is None or before is None or not message.repeats(before):
            held.pop(name, None)
        if message is not None:
            if name not in held and len(self) >= self._entries_max:
                raise ControlFullError(
                    f"the control topic has more than {self._entries_max:,} keys; "
                    "raise SALIENCE_CONTROL_ENTRIES_MAX, and see to who writes there"
                )
            held[name] = message
        for listener in self._listeners.get(kind, ()):
            listener(name, message)


def _upto(record: Record) -> int | None:
    """The last `sequence` that a tombstone takes back; None: all of them.

    Raises `ValueError` where its header is no number, or its key is not UTF-8: it would be taken for another key.
    """
    (record.key or b"").decode()
    told = dict(record.headers).get(UPTO)
    return None if told is None else int(told)


def _stands_after(message: ControlMessage | None, upto: int | None, before: ControlMessage) -> bool:
    if message is None:
        return upto is None or before.sequence <= upto
    return message.stands_after(before)


def read_message(key: bytes | None, value: bytes) -> ControlMessage:
    """The message of a record. Raises one of `UNREADABLE` where it is not one, or no user can have its user id.

    An id that begins like the lane's own keys would have those erased.
    """
    message: ControlMessage = decode_control(value)
    if key != message.key and key not in message.former_keys:
        raise ValueError(f"the record's key is {key!r}, expected {message.key!r}")
    if isinstance(message, Consent | Erasure) and not is_plain(message.user_id):
        raise ValueError(f"user_id {message.user_id!r} holds a control character; no user's does")
    return message


def _dated(message: ControlMessage, record: Record) -> ControlMessage:
    """``message``; a consent or erasure is dated at most `AHEAD_MS` after its record came, if the record has a time."""
    if not isinstance(message, Consent | Erasure) or (came_ms := record.timestamp) < 0:
        return message
    heard = HeardErasure if isinstance(message, Erasure) else HeardConsent
    dates = {"time_ms": min(message.time_ms, came_ms + AHEAD_MS), "came_ms": came_ms}
    return heard(**(msgspec.structs.asdict(message) | dates))


class Write(Protocol):
    """Writes ``messages``, then tombstones for ``gone``; returns their offsets once all are delivered."""

    async def __call__(
        self, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()
    ) -> list[int]: ...  # fmt: skip


@asynccontextmanager
async def writing(settings: Settings, transactional_id: str | None = None) -> AsyncIterator[Write]:
    """A writer on the control topic. A tombstone takes back its message and those before it, but none that is newer.

    With a ``transactional_id``, everything written within is one transaction: others read all of it at its end, or
    nothing. An earlier writer with the same id is fenced. Its timeout is that of a slice's transaction, since every
    reader of the topic waits for its end. None: others read each record as it comes.
    """
    topic = settings.topic_prefix + CONTROL
    to_send = AIOKafkaProducer(
        transactional_id=transactional_id,
        transaction_timeout_ms=settings.transaction_timeout_ms,
        acks="all",
        **aiokafka_options(settings.bootstrap),
    )
    async with sending(to_send) as producer:

        async def write(messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()) -> list[int]:
            records = [Message(message.key, msgspec.json.encode(message)) for message in messages]
            records += [Message(one.key, None, ((UPTO, str(one.sequence).encode()),)) for one in gone]
            sent = [
                await producer.send(topic, each.value, key=each.key, partition=0, headers=list(each.headers))
                for each in records
            ]
            return [(await delivery).offset for delivery in sent]

        async with transaction(producer) if transactional_id is not None else nullcontext():
            yield write


async def publish(
    settings: Settings, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()
) -> list[int]:
    """Write ``messages``, then tombstones for ``gone``; return their offsets once all are delivered."""
    async with writing(settings) as write:
        return await write(messages, gone)


async def read_control(settings: Settings, *, committed: bool = True) -> Control:
    """What the control topic says now. Unless ``committed``, open and aborted transactions are read, too.

    Raises `MissingTopicError`.
    """
    control = Control(settings.control_entries_max)
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + CONTROL, committed=committed):
        control.take(records)
    return control
