"""The events and ads that the benchmarks feed: the same for everyone with the same numbers.

Users are drawn by Zipf's law: user ``n`` acts with a chance proportional to ``1 / (n + 1) ** exponent``. With exponent
1, of 50,000 the busiest makes one event in eleven; with 0 all are alike, and hardly anyone acts twice in a slice. Three
events in four are impressions. Ads take turns, so that nobody sees one twice within a second: that would be filtered.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from scoring.arrays import Ints
from streams import topic_admin, topics
from streams.columns import Event, source_of
from streams.identity import partitioner
from streams.wire import Ad, Click, EventKind, Impression, encode_json

START_MS = 1_700_000_000_000
"""A moment in November 2023; each event comes a millisecond after the one before."""
ANSWERED_AFTER_MS = 5_000
CLICK_SHARE = 0.25
KINDS: tuple[EventKind, ...] = ("click", "click", "click", "view", "view", "cart", "purchase")
SURFACES = ("home", "search", "item", "cart")
BATCH_BYTES = 65_536
"""Of a produced batch: what a producer that lingers a few milliseconds sends."""
UNDELIVERED_MAX = 64
"""Batches on their way at once: 4 MB."""
KEPT_FOR_EVER = {topics.RETENTION: "-1"}


@dataclass(frozen=True, slots=True)
class Load:
    """How many events of how many users, for how many ads; the first event at ``start_ms``."""

    events: int = 500_000
    users: int = 50_000
    ads: int = 20_000
    seed: int = 1
    exponent: float = 1.0
    start_ms: int = START_MS

    def user_numbers(self) -> Ints:
        """The user of each event ``[E]``, from 0, the busiest."""
        chances = np.arange(1.0, self.users + 1) ** -self.exponent
        upto = np.cumsum(chances) / chances.sum()
        drawn = np.searchsorted(upto, np.random.default_rng([self.seed, 0]).random(self.events), side="right")
        return np.minimum(drawn, self.users - 1).astype(np.int64)

    def stream(self) -> Iterator[tuple[int, Event]]:
        """Every event with its user's number, in order of time."""
        rng = np.random.default_rng([self.seed, 1])
        ads = np.resize(rng.permutation(self.ads), self.events).tolist()
        is_click = (rng.random(self.events) < CLICK_SHARE).tolist()
        chosen = rng.integers(1 << 30, size=self.events).tolist()
        for at, user in enumerate(self.user_numbers().tolist()):
            make = _click if is_click[at] else _impression
            yield user, make(f"{self.seed}-{at:08d}", user_id(user), ad_id(ads[at]), self.start_ms + at, chosen[at])

    def catalogue(self) -> Iterator[Ad]:
        """Every ad."""
        rng = np.random.default_rng([self.seed, 2])
        for number, (bid, price) in enumerate(rng.integers(1, 1_000, size=(self.ads, 2)).tolist()):
            yield Ad(
                ad_id=ad_id(number),
                campaign_id=f"campaign-{number % 500}",
                advertiser_id=f"advertiser-{number % 100}",
                bid_micros=1_000 * bid,
                category=f"c{number % 20}/s{number % 200}",
                brand=f"b{number % 300}",
                price_micros=100_000 * price,
                tags=(f"t{number % 7}", f"t{number % 31}"),
            )


def user_id(number: int) -> str:
    return f"user-{number:06d}"


def ad_id(number: int) -> str:
    return f"ad-{number:06d}"


def _impression(name: str, user: str, ad: str, time_ms: int, chosen: int) -> Impression:
    return Impression(
        event_id=f"i-{name}",
        user_id=user,
        ad_id=ad,
        time_ms=time_ms,
        placement_id=f"0-{time_ms & 0xFFFFF:x}-{chosen:016x}",
        slot=chosen % 10,
        surface=SURFACES[chosen % len(SURFACES)],
    )


def _click(name: str, user: str, ad: str, time_ms: int, chosen: int) -> Click:
    return Click(
        event_id=f"c-{name}",
        user_id=user,
        ad_id=ad,
        time_ms=time_ms,
        kind=KINDS[chosen % len(KINDS)],
        viewed_s=chosen % 200 / 10,
        impression_time_ms=time_ms - ANSWERED_AFTER_MS,
        surface=SURFACES[chosen % len(SURFACES)],
    )


async def fill(load: Load, bootstrap: str, prefix: str, lanes: int) -> int:
    """Make the topics under ``prefix`` and produce ads and events; the bytes of the events' values."""
    configs = {topics.CLICKS: KEPT_FOR_EVER, topics.AD_IMPRESSIONS: KEPT_FOR_EVER}  # they are of a fixed date
    await asyncio.to_thread(topic_admin.create, bootstrap, lanes, prefix, configs=configs)
    partition_of = partitioner(lanes)
    lane_of = [partition_of(user_id(user).encode()) for user in range(load.users)]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES) as producer:
        batches = _Batches(producer)
        for ad in load.catalogue():
            await batches.add(prefix + topics.ADS, 0, ad.ad_id.encode(), encode_json(ad), START_MS)
        of_ads = batches.value_bytes
        for user, event in load.stream():
            topic = prefix + topics.LANE_INPUTS[source_of(event)]
            await batches.add(topic, lane_of[user], event.user_id.encode(), encode_json(event), event.time_ms)
        await batches.finish()
    return batches.value_bytes - of_ads


class _Batches:
    """Batches being built, one per partition, and those on their way."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._building: dict[tuple[str, int], Any] = {}
        self._sent: list[asyncio.Future[object]] = []
        self.value_bytes = 0

    async def add(self, topic: str, partition: int, key: bytes, value: bytes, time_ms: int) -> None:
        self.value_bytes += len(value)
        builder = self._building.get((topic, partition))
        if builder is not None:
            if builder.append(timestamp=time_ms, key=key, value=value) is not None:
                return
            await self._send(topic, partition)
        builder = self._building[topic, partition] = self._producer.create_batch()
        assert builder.append(timestamp=time_ms, key=key, value=value) is not None

    async def _send(self, topic: str, partition: int) -> None:
        builder = self._building.pop((topic, partition))
        builder.close()
        self._sent.append(await self._producer.send_batch(builder, topic, partition=partition))
        if len(self._sent) >= UNDELIVERED_MAX:
            await self._delivered()

    async def _delivered(self) -> None:
        sent, self._sent = self._sent, []
        await asyncio.gather(*sent)

    async def finish(self) -> None:
        """Send what is left, and wait until all is delivered."""
        for topic, partition in list(self._building):
            await self._send(topic, partition)
        await self._delivered()
