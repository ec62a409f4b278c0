"""The control topic: switches that every worker follows, and the writer that the commands use.

`Control` holds the newest message of each key, in the order of the topic. It is read whole before the worker is
ready and changed on the compute thread alone, between slices: within a slice it stands still.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaProducer

from streams.compute import Compute
from streams.connection import aiokafka_options
from streams.control_wire import (
    KIND_NAMES,
    Consent,
    ControlMessage,
    Erasure,
    ExperimentSetting,
    decode_control,
    kind_of,
)
from streams.decode import Record, is_plain
from streams.reading import read_topic
from streams.settings import Settings
from streams.topic_feed import TopicFeed
from streams.topics import CONTROL
from streams.wire import UNREADABLE

log = structlog.get_logger()

RECORDS_PER_READ = 5_000
"""Decoded in one call: about 10 ms."""

M = TypeVar("M", bound=ControlMessage)
Listener = Callable[[str, M | None], None]


class ControlFullError(RuntimeError):
    """More keys than a worker holds."""


class Control:
    """The newest message of each ``kind/name``; no I/O.

    A message of an unknown kind is passed over, so that commands may run ahead of workers; one that is malformed, or
    whose key is not its own, is refused and leaves what was there. So does a change of an experiment that another
    overtook; one that is repeated keeps its place in the order.
    """

    def __init__(self, entries_max: int = 1_000_000) -> None:
        """``entries_max``: keys held, consents above all: about 0.5 GB."""
        self._entries_max = entries_max
        self._held: dict[str, dict[str, ControlMessage]] = {kind: {} for kind in KIND_NAMES}
        self._listeners: dict[str, list[Callable[[str, ControlMessage | None], None]]] = {}
        self.next_offset = 0
        """Offset after the last record taken."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def get(self, kind: type[M], name: str) -> M | None:
        """The newest message of ``kind`` for ``name``; None where there is none or it was taken back."""
        return self._held[kind_of(kind)].get(name)  # type: ignore[return-value]  # a kind's messages are of its type

    def all(self, kind: type[M]) -> Mapping[str, M]:
        """The newest messages of ``kind`` by name; the mapping itself, which changes."""
        return self._held[kind_of(kind)]  # type: ignore[return-value]  # a kind's messages are of its type

    def on(self, kind: type[M], listener: Listener[M]) -> None:
        """Call ``listener(name, message)`` for each message of ``kind``, at once for those held; None is taken back.

        Called on the compute thread, in the order of the topic, between slices. What it raises ends the worker: a
        listener that can refuse a message does so itself, and keeps what it had.
        """
        self._listeners.setdefault(kind_of(kind), []).append(listener)  # type: ignore[arg-type]  # as above
        for name, message in self.all(kind).items():
            listener(name, message)

    def take(self, records: Sequence[Record]) -> int:
        """Take records in order; the number of those refused. Raises `ControlFullError`."""
        refused = 0
        for record in records:
            self.next_offset = record.offset + 1
            kind, _, name = (record.key or b"").decode(errors="replace").partition("/")
            if kind not in KIND_NAMES:
                continue
            try:
                message = None if record.value is None else read_message(record.key, record.value)
            except UNREADABLE as error:
                refused += 1  # its error may quote the record, which may name a person
                log.warning("control message refused", kind=kind, offset=record.offset, error=type(error).__name__)
                continue
            self._set(kind, name, message)
        return refused

    def _set(self, kind: str, name: str, message: ControlMessage | None) -> None:
        held = self._held[kind]
        repeated = False
        if isinstance(message, ExperimentSetting) and isinstance(before := held.get(name), ExperimentSetting):
            if not message.stands_after(before):
                return
            repeated = message.repeats(before)
        if not repeated:
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


def read_message(key: bytes | None, value: bytes) -> ControlMessage:
    """The message of a record. Raises one of `UNREADABLE` where it is none, or speaks of nobody who could act.

    A user whose id begins as the lane's own keys do would have those erased.
    """
    message: ControlMessage = decode_control(value)
    if message.key != key:
        raise ValueError(f"the record's key is {key!r}, expected {message.key!r}")
    if isinstance(message, Consent | Erasure) and not is_plain(message.user_id):
        raise ValueError(f"user_id {message.user_id!r} holds a control character; no user's does")
    return message


class ControlFeed(TopicFeed):
    """Keeps ``control`` in step with the topic."""

    def __init__(
        self, settings: Settings, control: Control, compute: Compute, fail: Callable[[BaseException], None]
    ) -> None:
        super().__init__(settings, CONTROL, compute, fail, RECORDS_PER_READ)
        self._control = control

    def take(self, records: Sequence[Record]) -> int:
        """Take a batch; the number of messages that were refused."""
        return self._control.take(records)


async def publish(settings: Settings, messages: Sequence[ControlMessage], gone: Sequence[bytes] = ()) -> list[int]:
    """Write ``messages``, then tombstones for the keys ``gone``; their offsets, once all are delivered."""
    topic = settings.topic_prefix + CONTROL
    records = [(message.key, msgspec.json.encode(message)) for message in messages]
    async with AIOKafkaProducer(acks="all", **aiokafka_options(settings.bootstrap)) as producer:
        sent = [
            await producer.send(topic, value, key=key, partition=0)
            for key, value in [*records, *((key, None) for key in gone)]
        ]
        return [(await delivery).offset for delivery in sent]


async def read_control(settings: Settings) -> Control:
    """What the control topic says now. Raises `MissingTopicError`."""
    control = Control(settings.control_entries_max)
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + CONTROL):
        control.take(records)
    return control
