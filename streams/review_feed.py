"""Reviews as they come: read, learnt from where they are rated, and how each ad and brand sounds put on ``tones``.

One process beside the workers. It keeps nothing: at its start it reads all reviews that there are, in the topic's
order, and knows what it would if it had never ended; what it then says is published where it differs from what stands
there. Ads of the catalogue and their brands are heard: of no more does it remember how they sound. Reviews of others
teach, too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from scoring.ids import id64
from scoring.sentiment import Sentiment, ToneWatch
from scoring.tones import MEMORY
from streams.connection import aiokafka_options
from streams.dead_letters import Filter, read
from streams.decode import Record, Refusal
from streams.fetching import Batches, fetch
from streams.letters import letter
from streams.message import Message
from streams.reading import log_ends, partitions_of, read_topic
from streams.settings import Settings
from streams.topics import ADS, DEAD_LETTERS, REVIEWS, TONES
from streams.wire import UNREADABLE, Ad, Review, Tone, encode_json

STAGE = "review"
"""Of its dead letters."""
POLL_MS = 500
RECORDS_PER_READ = 1_000
"""A second's work at most: a review takes a fifth of a millisecond."""
STEP = 0.01
"""A tone that has moved by less, and has not turned, is not worth a record."""
SURER = 1.5
"""But one is that rests on so many times the reviews, up to those that it remembers: models go by their number."""

IDS_MAX = 100_000
"""Reviews by whose ids one is told that comes again: 10 MB. What is sent again after so many others is heard again."""

_review = msgspec.json.Decoder(Review).decode
_ad = msgspec.json.Decoder(Ad).decode
_tone = msgspec.json.Decoder(Tone).decode


class Reviewer:
    """What reviews have taught, and what is to be said of it. No clock, no broker."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._sentiment, self._watch = Sentiment(), ToneWatch()
        self._ids_max = ids_max
        self._ids: dict[int, None] = {}
        """Of the reviews of every ad, those read last, oldest first."""
        self._brands: dict[str, str] = {}
        """Of ads that are offered."""
        self._withdrawn = True
        """Whether ads may have gone since it was last asked."""
        self._turned: dict[bytes, int] = {}
        self._news: dict[bytes, Tone] = {}
        self._told: dict[bytes, Tone] = {}
        self.reviews = self.refused = self.repeated = 0
        self.turned = {"ad": 0, "brand": 0}
        """Turns that were said for the first time."""
        self.letters_to = -1
        """Offset of the newest review that has a dead letter."""

    def take_ads(self, records: Sequence[Record]) -> None:
        """Learn the brands of ads, and which are withdrawn."""
        for record in records:
            if record.value is None:
                self._withdrawn = True
                self._brands.pop((record.key or b"").decode(errors="replace"), None)
                continue
            with contextlib.suppress(*UNREADABLE):  # the workers make it a dead letter
                self.offer(_ad(record.value))

    def offer(self, ad: Ad) -> None:
        """Learn the brand of an ad."""
        self._brands[ad.ad_id] = ad.brand

    def take_told(self, records: Sequence[Record]) -> None:
        """Learn what stands on ``tones``. What is none, of another version or another hand, is said anew."""
        for record in records:
            with contextlib.suppress(*UNREADABLE):
                tone = _tone(record.value or b"")
                self._told[tone.key] = tone

    def take(self, records: Sequence[Record]) -> Iterator[Message]:
        """Read reviews, each once; dead letters of those that are none and have none yet."""
        for record in records:
            try:
                review = _read(record)
            except UNREADABLE as error:
                self.refused += 1
                if record.offset > self.letters_to:
                    yield letter(record, STAGE, *Refusal.of(error))
                continue
            if self._new(review):
                self.hear(review)
            else:
                self.repeated += 1

    def _new(self, review: Review) -> bool:
        """Whether it is none of those remembered; then it is one of them."""
        number = id64(f"{review.ad_id}\n{review.review_id}")
        if number in self._ids:
            return False
        self._ids[number] = None
        if len(self._ids) > self._ids_max:
            del self._ids[next(iter(self._ids))]
        return True

    def hear(self, review: Review) -> None:
        """Take a review: learn from its stars, and what it says of its ad and brand."""
        self.reviews += 1
        chance = self._sentiment.predict_one(review.text)
        if review.positive is not None:
            self._sentiment.learn_one(review.text, review.positive)
        brand = self._brands.get(review.ad_id)
        if brand is not None:
            self._hear("ad", review.ad_id, chance, review.time_ms)
        if brand:
            self._hear("brand", brand, chance, review.time_ms)

    def _hear(self, of: Literal["ad", "brand"], name: str, chance: float, time_ms: int) -> None:
        heard = f"{of}/{name}"
        turned, tone = self._watch.update(heard, chance), self._watch.tone(heard)
        key = heard.encode()
        if turned:
            self._turned[key] = time_ms
        elif key not in self._turned and key in self._told and (before := self._told[key].turned_ms) is not None:
            self._turned[key] = before  # by a review that the topic no longer holds
        self._news[key] = Tone(
            of=of,
            name=name,
            reviews=tone.reviews,
            tone=round(tone.mean, 4),
            turned_ms=self._turned.get(key),
            time_ms=time_ms,
        )

    def gone(self) -> list[bytes]:
        """Keys of tones that are to go, of ads that are offered no more; brands keep theirs."""
        if not self._withdrawn:
            return []
        self._withdrawn = False
        known = self._told | self._news
        keys = [key for key, tone in known.items() if tone.of == "ad" and tone.name not in self._brands]
        for key in keys:
            for of in (self._told, self._news, self._turned):
                of.pop(key, None)
        return keys

    def news(self) -> list[Tone]:
        """Tones that differ from what was said of them last."""
        out = [tone for key, tone in self._news.items() if _worth_saying(tone, self._told.get(key))]
        for tone in out:
            before = self._told.get(tone.key)
            self.turned[tone.of] += tone.turned_ms is not None and (
                before is None or before.turned_ms != tone.turned_ms
            )
            self._told[tone.key] = tone
        self._news.clear()
        return out


async def _reached(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    return all([await consumer.position(tp) >= end for tp, end in ends.items()])


def _read(record: Record) -> Review:
    """The review that a record is. Raises `ValueError`."""
    review = _review(record.value or b"")
    if record.key != review.ad_id.encode():
        raise ValueError(f"key {record.key!r} is not the ad_id {review.ad_id!r}")
    return review


def _worth_saying(tone: Tone, told: Tone | None) -> bool:
    if told is None or tone.turned_ms != told.turned_ms or abs(tone.tone - told.tone) >= STEP:
        return True
    return min(tone.reviews, MEMORY) >= SURER * told.reviews


class ReviewFeed:
    """Runs until cancelled, or until all that was there has been read (``follow`` False)."""

    def __init__(self, settings: Settings, on_news: Callable[[Sequence[Tone]], None]) -> None:
        self._settings, self._on_news = settings, on_news
        self.reviewer = Reviewer()

    async def run(self, *, follow: bool = True) -> None:
        """Read, learn, publish. Raises `streams.reading.MissingTopicError`."""
        settings = self._settings
        bootstrap, prefix = settings.bootstrap, settings.topic_prefix
        async for records in read_topic(bootstrap, prefix + TONES):
            self.reviewer.take_told(records)
        async for dead in read(settings, Filter(stage=STAGE, topic=REVIEWS)):
            self.reviewer.letters_to = max(self.reviewer.letters_to, int(dead.told("offset")))
        ads, reviews = (partitions_of(bootstrap, prefix + name) for name in (ADS, REVIEWS))
        ends, offered = await log_ends(bootstrap, reviews), await log_ends(bootstrap, ads)
        options, idempotent = aiokafka_options(bootstrap), settings.guarantee == "exactly_once"
        async with (
            AIOKafkaConsumer(
                isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest", **options
            ) as consumer,
            AIOKafkaProducer(acks="all", enable_idempotence=idempotent, **options) as producer,
        ):
            consumer.assign([*ads, *reviews])
            await consumer.seek_to_beginning()
            while not await _reached(consumer, offered):  # of ads that are not known yet no review would be heard
                self._take(await self._read(consumer, ads))
            while True:
                batches = await self._read(consumer, [*ads, *reviews])
                letters = await asyncio.to_thread(self._take, batches)
                caught_up = await _reached(consumer, ends)
                await self._publish(producer, letters)
                if caught_up:
                    await self._tell(producer, self.reviewer.gone(), self.reviewer.news())
                if caught_up and not follow and not batches:
                    return

    async def _read(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> Batches:
        bootstrap = self._settings.bootstrap
        return await fetch(consumer, partitions, bootstrap, timeout_ms=POLL_MS, max_records=RECORDS_PER_READ)

    def _take(self, batches: Mapping[TopicPartition, list[Record]]) -> list[Message]:
        letters: list[Message] = []
        for tp, records in batches.items():
            if tp.topic.endswith(ADS):
                self.reviewer.take_ads(records)
            else:
                letters += self.reviewer.take(records)
        return letters

    async def _publish(self, producer: AIOKafkaProducer, letters: list[Message]) -> None:
        topic = self._settings.topic_prefix + DEAD_LETTERS
        sent = [await producer.send(topic, each.value, key=each.key, headers=list(each.headers)) for each in letters]
        for delivery in sent:
            await delivery

    async def _tell(self, producer: AIOKafkaProducer, gone: list[bytes], tones: list[Tone]) -> None:
        topic = self._settings.topic_prefix + TONES
        sent = [await producer.send(topic, None, key=key) for key in gone]
        sent += [await producer.send(topic, encode_json(tone), key=tone.key) for tone in tones]
        for delivery in sent:
            await delivery
        if tones:
            self._on_news(tones)
