"""A lane's producer: effects of a slice delivered, all of them or, in `exactly_once`, none.

One sender per output partition: batches of one partition are sent one after the other, since concurrent
``send_batch`` calls overtake each other. Sizes are checked here, since ``send_batch`` ignores
``max_request_size``. Every delivery is awaited before the commit: a failed batch does not poison an aiokafka
transaction, whose commit would then succeed without it. After a failure the producer is never used again.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError, MessageSizeTooLargeError

from scoring.units import HOUR_MS
from streams.connection import aiokafka_options
from streams.leaving import leave, start
from streams.letters import LETTER_BYTES_MAX
from streams.message import Message
from streams.settings import Settings
from streams.topics import BATCH_BYTES, DEAD_LETTERS, LANE_INPUTS, LATE_EVENTS

LANE_ID = "-lane-"
"""Between the group and the lane's number in a transactional id; workers have the right to all that begin so."""
UNUSED_MAX_MS = 24 * HOUR_MS
"""A producer is used after so long at the latest: a broker forgets one that opens no transaction for a week
(``transactional.id.expiration.ms``), and refuses its next."""


def transactional_id(settings: Settings, lane: int | str) -> str | None:
    """The id by which a lane's owners fence one another; None without transactions. With a name it fences no lane."""
    if settings.guarantee == "at_least_once":
        return None
    return f"{settings.topic_prefix}{settings.group}{LANE_ID}{lane}"


class DeliveryError(RuntimeError):
    """A record that cannot be produced, with its size and the setting that bounds it."""


class Outbox:
    """Outputs of one lane. ``transactional_id`` None: at least once."""

    def __init__(self, settings: Settings, transactional_id: str | None) -> None:
        self._batch_bytes = settings.batch_bytes
        # What others have sent has the size of their topics, not of our batches: it goes in a batch of its own.
        letters = dict.fromkeys((DEAD_LETTERS, LATE_EVENTS), LETTER_BYTES_MAX)
        sizes = letters | dict.fromkeys(LANE_INPUTS, BATCH_BYTES - 512)
        self._largest = {settings.topic_prefix + topic: size for topic, size in sizes.items()}
        self.transactional = transactional_id is not None
        self._who = f"producer {transactional_id or 'without transactions'}"
        self._pending: dict[asyncio.Future[Any], str] = {}
        """The topic of each delivery to await."""
        self._producer = AIOKafkaProducer(
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            acks="all",
            max_batch_size=settings.batch_bytes,
            max_request_size=settings.batch_bytes + 65_536,  # a batch and the request around it
            request_timeout_ms=settings.slice_deadline_ms,
            retry_backoff_ms=20,  # a transaction's first batch finds the one before still closing
            **aiokafka_options(settings.bootstrap),
        )

    async def start(self) -> None:
        """Connect. A transactional producer fences its lane's former owner and ends that one's transaction."""
        await start(self._producer)

    async def begin(self) -> None:
        """Open the slice's transaction, where there are transactions."""
        if self.transactional:
            await self._producer.begin_transaction()

    async def abort(self) -> None:
        """Give up what was begun, before anything was sent."""
        if self.transactional:
            await self._producer.abort_transaction()

    async def send(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
        """Hand over ``messages`` in order; `delivered` awaits them."""
        builder = self._producer.create_batch()
        for message in messages:
            if not self._append(builder, topic, message):
                await self._send(builder, topic, partition)
                builder = self._producer.create_batch()
                self._append(builder, topic, message)
        if builder.record_count():
            builder.close()
            await self._send(builder, topic, partition)

    async def _send(self, builder: Any, topic: str, partition: int) -> None:
        try:
            self._pending[await self._producer.send_batch(builder, topic, partition=partition)] = topic
        except (KafkaError, IllegalOperation):
            await self.delivered()  # raises why the producer takes no more, such as that it was fenced
            raise

    async def delivered(self) -> dict[tuple[str, int], int]:
        """Await every delivery since the last call; where the last batch to each (topic, partition) begins.

        Raises the first failure after all have ended, so that none is left unawaited.
        """
        pending, self._pending = self._pending, {}
        await asyncio.gather(*pending, return_exceptions=True)
        begun = {}
        for delivery, topic in pending.items():
            try:
                result = delivery.result()
            except MessageSizeTooLargeError as error:
                raise MessageSizeTooLargeError(
                    f"{topic} takes no batch of this size, {self._batch_bytes:,} bytes at most: raise its "
                    "max.message.bytes (salience topics create --configure), or lower SALIENCE_BATCH_BYTES"
                ) from error
            begun[result.topic, result.partition] = result.offset
        return begun

    def _append(self, builder: Any, topic: str, message: Message) -> bool:
        size, most = message.size, self._largest.get(topic, self._batch_bytes - 1_024)
        if size > most:
            raise DeliveryError(
                f"a record of {size:,} bytes for {topic} is larger than a batch of {self._batch_bytes:,}; "
                "raise SALIENCE_BATCH_BYTES and the topic's max.message.bytes"
            )
        appended = builder.append(
            timestamp=message.timestamp_ms,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
        )
        return appended is not None

    async def commit(self) -> None:
        """Commit the transaction; nothing without transactions."""
        if self.transactional:
            await self._producer.commit_transaction()

    async def stop(self) -> None:
        """Close the connections. Aborts nothing: an open transaction is ended by the lane's next owner.

        Where a broker does not answer, its producer is given up: it would wait for deliveries for ever, since
        idempotent batches never expire.
        """
        await leave(self._who, self._producer.stop())
