"""Dead letters: read, filtered, and requeued (sent back to the topic they came from) once their cause is mended.

A requeue writes a note beside the letter, so that it is not sent twice; both in one transaction, if the broker has
transactions. A header of the record counts its requeues, and the count is bounded: what fails for the fourth time
fails for a reason that sending it again does not mend.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from streams import topic_admin, topics
from streams.aside import aside
from streams.connection import aiokafka_options
from streams.control import Control, read_control
from streams.control_wire import Consent, Erasure
from streams.decode import Record
from streams.identity import partitioner
from streams.leaving import sending, transaction
from streams.letters import ORIGIN, PREFIX, REQUEUED, TRUNCATED, own_headers
from streams.mendable import MendableError
from streams.message import Headers, size_of
from streams.reading import read_topic
from streams.settings import Settings

NOTE = PREFIX + "note"
"""Header of a note on the dead-letters topic: the letter that was sent back, as ``PARTITION:OFFSET``."""
REQUEUES_MAX = 3
DIGITS_MAX = 18
"""Most digits of a number in the origin, so that it fits the 64 bits of an offset or a time."""
INPUTS = (topics.CLICKS, topics.AD_IMPRESSIONS, topics.ADS, topics.REVIEWS)
"""Topics that letters may be sent back to. The origin is a header: anyone who can write letters can claim any topic."""
STAGES = ("decode", "state", "reroute", "catalogue", "review")
"""Stages at which records are refused."""
RECORD_BYTES_MAX = topics.BATCH_BYTES - 128
"""Largest record to send back, uncompressed: with the header that is added, it fits a batch that an input takes."""
PER_TRANSACTION = 200
BYTES_PER_TRANSACTION = 512 * 1024
"""Letters and bytes per transaction, one letter at least: a link of 53 KB/s, which who reads them needs, takes 10 s for
so many, and brokers end a transaction after 15 (`SALIENCE_TRANSACTION_TIMEOUT_MS`)."""

REQUEUE_ID = "dead-letters-requeue"
"""Transactional id of the requeue, after the topics' prefix: only one runs at a time."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter with its origin. ``requeued``: how often its record was sent back before it came here."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    origin: Mapping[str, str]
    headers: Headers
    requeued: int
    truncated: bool

    @property
    def name(self) -> str:
        """``PARTITION:OFFSET`` on the dead-letters topic."""
        return f"{self.partition}:{self.offset}"

    def told(self, name: str) -> str:
        """A field of the origin: ``stage``, ``error``, ``topic``, ``message``; empty where there is none."""
        return self.origin.get(name, "")

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return size_of(self.key, self.value, self.headers)

    def number(self, name: str) -> int | None:
        """A number of the origin; None where it is not one, or too long: anyone who can write letters can claim any."""
        text = self.told(name)
        return int(text) if text.isdecimal() and len(text) <= DIGITS_MAX else None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are wanted; a field that is not given matches all. ``topic`` is the origin's, without prefix."""

    stage: str | None = None
    error: str | None = None
    topic: str | None = None
    names: Collection[str] = ()

    def chooses(self, letter: Letter, prefix: str) -> bool:
        """Whether ``letter`` matches."""
        pairs = ((self.stage, "stage"), (self.error, "error"), (self.topic and prefix + self.topic, "topic"))
        fits = all(wanted is None or letter.told(name) == wanted for wanted, name in pairs)
        return fits and (not self.names or letter.name in self.names)


def letter_of(record: Record) -> Letter | None:
    """The letter that a record of the topic is; None where it is a note."""
    headers = {name: (value or b"").decode(errors="backslashreplace") for name, value in record.headers}
    if NOTE in headers:
        return None
    own = own_headers(record.headers)
    count = headers.get(REQUEUED, "0")
    return Letter(
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        origin={name.removeprefix(PREFIX): text for name, text in headers.items() if name.startswith(PREFIX)},
        headers=tuple((name, value) for name, value in own if name != REQUEUED),
        requeued=int(count) if count.isascii() and count.isdigit() and len(count) < 4 else REQUEUES_MAX,
        truncated=TRUNCATED in headers,
    )


async def read(settings: Settings, wanted: Filter) -> AsyncGenerator[Letter, None]:
    """The letters that ``wanted`` chooses, partition by partition. Raises `streams.reading.MissingTopicError`."""
    async with aclosing(read_topic(settings.bootstrap, settings.topic_prefix + topics.DEAD_LETTERS)) as batches:
        async for records in batches:
            for record in records:
                letter = letter_of(record)
                if letter is not None and wanted.chooses(letter, settings.topic_prefix):
                    yield letter


async def noted(settings: Settings) -> set[str]:
    """The names of the letters that were sent back."""
    found = set()
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + topics.DEAD_LETTERS):
        for record in records:
            found |= {(value or b"").decode(errors="replace") for name, value in record.headers if name == NOTE}
    return found


def refusal(letter: Letter, sent: Collection[str], prefix: str) -> str:
    """Why a letter is not sent back; empty where it is."""
    if letter.name in sent:
        return "was sent back already"
    if letter.requeued >= REQUEUES_MAX:
        return f"its record was sent back {letter.requeued} times, at most {REQUEUES_MAX}; mend it at its producer"
    if letter.truncated:
        return "only its beginning is here; the record is at its origin"
    if letter.told("topic") not in {prefix + name for name in INPUTS}:
        return f"its origin {letter.told('topic')!r} is none of {', '.join(INPUTS)}"
    if (size := letter.size) > RECORD_BYTES_MAX:
        return f"it has {size:,} bytes, and its topic takes {RECORD_BYTES_MAX:,} as they are; was it compressed?"
    return ""


async def newest_of_ads(settings: Settings) -> dict[bytes | None, int]:
    """The newest offset of each ad on the topic: the last record by its owner, or by a requeue."""
    newest: dict[bytes | None, int] = {}
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + topics.ADS):
        newest |= {record.key: record.offset for record in records}
    return newest


def overtaken(letter: Letter, newest: Mapping[bytes | None, int]) -> str:
    """Why an ad's letter is not sent back: its owner has sent a newer record since. Empty where the letter is newest.

    Sent back, it would become the ad's newest record: a withdrawn ad would be shown again, or an old bid be offered. An
    ad that the topic does not hold was withdrawn, and compaction has removed its tombstone, too.
    """
    offset, last = letter.number("offset"), newest.get(letter.key)
    if last is None:
        return "its owner has said something newer of this ad, which is not on the topic any more: send the ad itself"
    if offset is None or offset < last:
        return f"its owner has said something newer of this ad, at offset {last}"
    return ""


def forgotten(letter: Letter, control: Control) -> str:
    """Why a person's letter is not sent back, by what they have asked for on the control topic; empty where it is.

    A record whose time is not known was sent by the time of its letter.
    """
    person = (letter.key or b"").decode(errors="replace")
    answer, erasure = control.get(Consent, person), control.get(Erasure, person)
    sent_ms = letter.number("timestamp_ms")
    if answer is not None and not answer.granted:
        return "its person refuses to be remembered"
    if erasure is not None and (letter.timestamp_ms if sent_ms is None else sent_ms) <= erasure.told_ms:
        return "its person was erased after it was sent"
    return ""


@dataclass(frozen=True, slots=True)
class Requeued:
    """What a requeue did: how many letters were sent back, and why each of the others was not."""

    sent: int
    refused: dict[str, str]


class RequeueError(MendableError):
    """Some letters were sent back, and others not; the message says what to do."""


async def requeue(settings: Settings, wanted: Filter, *, dry_run: bool = False) -> Requeued:
    """Send the chosen letters to the topic they came from, to the partition of their key, with their own timestamp.

    Letters of people who refuse or were erased are left alone (`forgotten`).

    A dry run creates no producer, since that would fence a requeue under way; and it keeps no letter in memory.

    Raises `RequeueError` where brokers have ended its transaction.
    """
    prefix, refused, count = settings.topic_prefix, dict[str, str](), 0
    counts = await aside(topic_admin.partition_counts, settings.bootstrap, [prefix + name for name in INPUTS])
    letters = _sendable(settings, wanted, counts, refused)
    if dry_run:
        async for _ in letters:
            count += 1
        return Requeued(count, refused)
    transactional = settings.guarantee == "exactly_once"
    to_send = AIOKafkaProducer(
        transactional_id=prefix + REQUEUE_ID if transactional else None,
        transaction_timeout_ms=settings.transaction_timeout_ms,
        acks="all",
        max_request_size=4 * topics.BATCH_BYTES,
        **aiokafka_options(settings.bootstrap),
    )
    async with sending(to_send) as producer, aclosing(_batches(letters)) as batches:
        async for batch in batches:
            try:
                async with transaction(producer) if transactional else nullcontext():
                    await _send(producer, settings, batch, counts)
            except ProducerFenced as error:
                raise RequeueError(
                    f"{count:,} letters were sent back, then brokers ended the transaction: another requeue has begun, "
                    f"or {sum(letter.size for letter in batch):,} bytes took longer than "
                    f"SALIENCE_TRANSACTION_TIMEOUT_MS={settings.transaction_timeout_ms}, as over a slow link. "
                    "Run it again for the others; if it ends here again, raise that for this command"
                ) from error
            count += len(batch)
    return Requeued(count, refused)


async def _batches(letters: AsyncGenerator[Letter, None]) -> AsyncGenerator[list[Letter], None]:
    """The letters of each transaction. Closes ``letters`` at its end."""
    batch, size = list[Letter](), 0
    async with aclosing(letters):
        async for letter in letters:
            if batch and (len(batch) == PER_TRANSACTION or size + letter.size > BYTES_PER_TRANSACTION):
                yield batch
                batch, size = [], 0
            batch.append(letter)
            size += letter.size
    if batch:
        yield batch


async def _sendable(
    settings: Settings, wanted: Filter, there: Collection[str], refused: dict[str, str]
) -> AsyncGenerator[Letter, None]:
    """The chosen letters that may be sent back, to topics that exist; ``refused`` gets why the others may not."""
    sent, missing = await noted(settings), set(wanted.names)
    ads, newest = settings.topic_prefix + topics.ADS, None
    people, control = {settings.topic_prefix + name for name in topics.LANE_INPUTS}, await read_control(settings)
    async with aclosing(read(settings, wanted)) as letters:
        async for letter in letters:
            missing.discard(letter.name)
            if why := refusal(letter, sent, settings.topic_prefix):
                refused[letter.name] = why
            elif letter.told("topic") not in there:
                refused[letter.name] = f"there is no topic {letter.told('topic')}; salience topics create"
            elif letter.told("topic") in people and (why := forgotten(letter, control)):
                refused[letter.name] = why
            elif letter.told("topic") != ads:
                yield letter
            else:
                newest = await newest_of_ads(settings) if newest is None else newest
                if why := overtaken(letter, newest):
                    refused[letter.name] = why
                else:
                    yield letter
    refused |= dict.fromkeys(sorted(missing), "no such letter, or not of what else was asked for")


async def _send(
    producer: AIOKafkaProducer,
    settings: Settings,
    letters: Sequence[Letter],
    counts: Mapping[str, int],
) -> None:
    """Send the records, then a note for each; done when all are delivered."""
    notes = settings.topic_prefix + topics.DEAD_LETTERS
    deliveries = []
    for letter in letters:
        topic = letter.told("topic")
        keyless = (letter.number("partition") or 0) % counts[topic]
        partition = partitioner(counts[topic])(letter.key) if letter.key else keyless
        deliveries.append(
            await producer.send(
                topic,
                letter.value,
                key=letter.key,
                partition=partition,
                timestamp_ms=letter.number("timestamp_ms"),
                headers=[*letter.headers, (REQUEUED, str(letter.requeued + 1).encode())],
            )
        )
    await asyncio.gather(*deliveries)
    deliveries = []
    for letter in letters:
        headers = [(NOTE, letter.name.encode()), (ORIGIN, letter.told("topic").encode())]
        note = await producer.send(notes, b"", key=letter.key or b"", partition=letter.partition, headers=headers)
        deliveries.append(note)
    await asyncio.gather(*deliveries)
