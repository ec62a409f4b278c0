"""The reader of reviews: learns from rated reviews as they come, and publishes the tone of each ad and brand.

It is one process beside the workers. It keeps its state on ``review-state``, with the offset up to which it has read:
the next reader goes on from there, even when the reviews have left their topic. It writes in this order:

1. dead letters
2. its state, which includes the tones that it is about to publish
3. ``tones``

If 2 was written and 3 was not, the next reader publishes those tones. In `exactly_once` the three are one transaction.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError, ProducerFenced

from streams.aside import aside
from streams.clock import tick_ms
from streams.dead_letters import Filter, read
from streams.decode import Record
from streams.fetching import Batches, fetch
from streams.followed import Followed
from streams.lanes.outbox import UNUSED_MAX_MS, Outbox
from streams.leaving import at_work, leave
from streams.mendable import MendableError
from streams.message import Message
from streams.reading import groupless, log_ends, partitions_of, read_topic
from streams.reviews import REVIEWS_ID
from streams.reviews.reviewer import STAGE, Reviewer
from streams.reviews.state import AT, StateError, known
from streams.settings import Settings
from streams.topic_admin import found
from streams.topics import ADS, DEAD_LETTERS, REVIEW_STATE, REVIEWS, TONES
from streams.wire import Tone, encode_json

log = structlog.get_logger()

POLL_MS = 500
RECORDS_PER_READ = 1_000
"""At most a second's work: a review takes a fifth of a millisecond."""
SILENT_MS = 30_000
"""Without an answer for so long, reviews count as not read. A broker answers twice a second, also without records."""
OVERTAKEN = "reviews have left their topic before they were learnt from"
ANOTHER = "{} is another topic of that name: start again, what was learnt begins anew"


class ReviewError(MendableError):
    """The reader cannot go on; the message says what to do."""


class ReviewFeed:
    """A reader: a context manager that restores the state on entry, and may then `run`. Only one may run at a time."""

    def __init__(
        self,
        settings: Settings,
        on_news: Callable[[Sequence[Tone]], None],
        outbox: Callable[[Settings, str | None], Outbox] = Outbox,
    ) -> None:
        self._settings, self._on_news, self._outbox_of = settings, on_news, outbox
        self._prefix = settings.topic_prefix
        self._outbox: Outbox
        self._reviews, self._reviews_id = TopicPartition(self._prefix + REVIEWS, 0), ""
        names = [self._prefix + name for name in (ADS, REVIEWS, TONES, REVIEW_STATE)]
        self._followed = Followed(settings.bootstrap, names)
        self.end = 0
        """End of the reviews' topic at the start: the reader publishes nothing before it has read up to there."""
        self.reviewer = Reviewer()
        self._answers: list[int | None] = []
        """When each partition was answered about, by a clock of aiokafka's that may go back: a change is an answer."""
        self._answered_ms = self._wrote_ms = tick_ms()
        self._at = [Message(AT, None)]
        """The last record of the state as it stands; before there is one, that there is none."""

    def unwell(self) -> str:
        """Why reviews are not read now; empty while they are."""
        silent_ms = tick_ms() - self._answered_ms
        return f"no broker has answered for {silent_ms / 1000:.0f} s" if silent_ms > SILENT_MS else ""

    async def __aenter__(self) -> Self:
        """Take over from the reader before. Raises `MissingTopicError`, `ReviewError`, and `TopicsError` where no
        broker answers.
        """
        await self._followed.check()  # before anything is read
        self._reviews_id = await self._identify()
        transactional = self._settings.guarantee == "exactly_once"
        self._outbox = self._outbox_of(self._settings, self._prefix + REVIEWS_ID if transactional else None)
        try:
            await self._begin()  # first: it ends the open transaction of the reader before
            await self._recover()
        except BaseException:
            await self._outbox.stop()
            raise
        return self

    async def _begin(self) -> None:
        """Connect, and fence the reader before."""
        try:
            await self._outbox.start()
        except KafkaConnectionError:
            raise
        except KafkaError as error:
            if not self._outbox.transactional:
                raise
            raise ReviewError(
                f"the broker opens no transaction for {self._prefix}{REVIEWS_ID}: {error}. A broker without "
                "transactions, such as the embedded one, wants SALIENCE_GUARANTEE=at_least_once"
            ) from error

    async def __aexit__(self, *_: object) -> None:
        await self._followed.leave()
        await self._outbox.stop()

    async def _identify(self) -> str:
        """The id of the reviews' topic."""
        bootstrap, name = self._settings.bootstrap, self._reviews.topic
        for each in (name, self._prefix + REVIEW_STATE):
            if (count := len(await aside(partitions_of, bootstrap, each))) != 1:
                raise ReviewError(f"{each} has {count} partitions, expected 1; look closer: salience topics check")
        return (await aside(found, bootstrap, [name]))[name].id

    async def _recover(self) -> None:
        """Restore the state from the topics. State from which no reader can go on is deleted there."""
        settings, bootstrap = self._settings, self._settings.bootstrap
        async for records in read_topic(bootstrap, self._prefix + TONES):
            self.reviewer.take_told(records)
        held: dict[bytes, bytes | None] = {}
        async for records in read_topic(bootstrap, self._prefix + REVIEW_STATE):
            held |= {record.key or b"": record.value for record in records}
        self.end = (await log_ends(bootstrap, [self._reviews]))[self._reviews]  # after: no state is ahead of it
        async for dead in read(settings, Filter(stage=STAGE, topic=REVIEWS)):
            self.reviewer.take_letter(dead.told("offset"), dead.told("timestamp_ms"), self.end)
        standing = {key: value for key, value in held.items() if value is not None}
        if not standing:
            return
        try:
            self.reviewer.go_on(await asyncio.to_thread(known, standing, self._reviews_id, self.end))
            self._at = [Message(AT, standing[AT])]
        except StateError as error:
            log.warning("what was learnt of reviews is refused, it begins anew", reason=str(error))
            keys = sorted(standing, key=lambda key: key != AT)  # first the record that names the others
            await self._write({REVIEW_STATE: [Message(key, None) for key in keys]})

    async def run(self, *, follow: bool = True, on_read: Callable[[int], None] = lambda _: None) -> None:
        """Read, learn, publish: until cancelled, or with ``follow`` False until the end that there was at the start.

        ``on_read`` gets the offset reached; at that end it counts transaction markers, too. Raises `ReviewError`, also
        without ``follow`` where no broker answers any more, `streams.followed.MadeAnewError` where a topic was made
        anew, or deleted, `streams.followed.MorePartitionsError`, and `streams.topic_admin.ShutOutError`.
        """
        bootstrap = self._settings.bootstrap
        ads = await aside(partitions_of, bootstrap, self._prefix + ADS)
        offered = await log_ends(bootstrap, ads)
        # "none": else it would skip in silence what retention takes from a reader that is behind
        async with at_work(groupless(bootstrap, auto_offset_reset="none")) as consumer:
            consumer.assign([*ads, self._reviews])
            await self._seek(consumer, ads)
            while not await _reached(consumer, offered):  # ads first: reviews of unknown ads do not count for a tone
                self._take(await self._read(consumer, ads, follow=follow))
            while True:
                batches = await self._read(consumer, [*ads, self._reviews], follow=follow)
                letters = await asyncio.to_thread(self._take, batches)
                caught_up = await _reached(consumer, {self._reviews: self.end})
                await _whole(self._tell(letters, caught_up=caught_up))
                on_read(max(self.reviewer.next_offset, self.end if caught_up else 0))
                if caught_up and not follow:
                    return

    async def _seek(self, consumer: AIOKafkaConsumer, ads: Sequence[TopicPartition]) -> None:
        await consumer.seek_to_beginning(*ads)
        first, wanted = (await consumer.beginning_offsets([self._reviews]))[self._reviews], self.reviewer.begin
        if first > wanted > 0:
            log.warning(OVERTAKEN, first=first, expected=wanted)
        consumer.seek(self._reviews, max(first, wanted))

    async def _seek_anew(self, consumer: AIOKafkaConsumer, beyond: Mapping[TopicPartition, int]) -> None:
        """Go on where topics begin now that no longer hold the offsets that they were asked for."""
        for tp, first in (await consumer.beginning_offsets([*beyond])).items():
            if tp == self._reviews:
                if first <= beyond[tp]:
                    raise ReviewError(ANOTHER.format(tp.topic))
                log.warning(OVERTAKEN, first=first, expected=beyond[tp])
            consumer.seek(tp, first)

    async def _read(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, follow: bool) -> Batches:
        """What has come; who follows waits for brokers for ever."""
        bootstrap = self._settings.bootstrap
        self._followed.look(consumer, partitions)
        try:
            batches = await fetch(consumer, partitions, bootstrap, timeout_ms=POLL_MS, max_records=RECORDS_PER_READ)
        except OffsetOutOfRangeError as error:
            batches = {}
            await self._seek_anew(consumer, error.args[0])
        answers = [consumer.last_poll_timestamp(tp) for tp in partitions]
        if answers != self._answers:
            self._answers, self._answered_ms = answers, tick_ms()
        if not follow and (silent := self.unwell()):
            raise ReviewError(f"{silent}; start again when one does: it goes on from what is told until now")
        return batches

    def _take(self, batches: Mapping[TopicPartition, list[Record]]) -> list[Message]:
        letters: list[Message] = []
        for tp, records in batches.items():
            if tp != self._reviews:
                self.reviewer.take_ads(records)
            elif records[0].offset < self.reviewer.next_offset:
                raise ReviewError(ANOTHER.format(tp.topic))
            else:
                letters += self.reviewer.take(records)
        return letters

    async def _tell(self, letters: Sequence[Message], *, caught_up: bool) -> None:
        """Write the effects of what was read, in order. While catching up no state or tones: they would be outdated."""
        told: list[Message] = []
        state: list[Message] = []
        tones: list[Tone] = []
        if caught_up:
            told = [Message(key, None) for key in self.reviewer.gone()]
            tones = self.reviewer.news()
            told += [Message(tone.key, encode_json(tone)) for tone in tones]
            state = await asyncio.to_thread(self.reviewer.state, self._reviews_id)
            self._at = [record for record in state if record.key == AT] or self._at
            if tick_ms() - self._wrote_ms >= UNUSED_MAX_MS:
                state = state or self._at
        await self._write({DEAD_LETTERS: letters, REVIEW_STATE: state, TONES: told})
        if tones:
            self._on_news(tones)

    async def _write(self, messages: Mapping[str, Sequence[Message]]) -> None:
        """Write all messages, topic by topic: each topic's when those of the one before are delivered."""
        if not any(messages.values()):
            return
        try:
            await self._outbox.begin()
            for name, of_topic in messages.items():
                await self._outbox.send(self._prefix + name, 0, of_topic)
                await self._outbox.delivered()
            await self._outbox.commit()
            self._wrote_ms = tick_ms()
        except ProducerFenced as error:
            raise ReviewError(
                "another reader of reviews has begun, or this one stood still for SALIENCE_TRANSACTION_TIMEOUT_MS; "
                "start one, and one alone"
            ) from error


async def _reached(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Do ``work``; a cancellation meanwhile waits until it is done, so that no transaction stays open.

    It does not wait for brokers that are away: the next reader ends what this one leaves.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await leave("a reader of reviews, while it wrote", task)
        raise
