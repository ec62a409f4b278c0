"""Reviews followed through a broker: tones on their topic, dead letters, and nothing said twice."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import Producer
from structlog.testing import capture_logs

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from scoring.ids import id64
from scoring.rates import RATES_DIM, TONED
from streams.clock import wall_ms
from streams.decode import Record
from streams.followed import MadeAnewError
from streams.lanes.outbox import Outbox
from streams.letters import PREFIX
from streams.message import Message
from streams.reading import read_topic
from streams.reviews.feed import OVERTAKEN, ReviewError, ReviewFeed
from streams.reviews.reviewer import Reviewer
from streams.wire import Decision, Review, Tone, encode_json
from tests.builders import START_MS, ad, impression
from tests.integration.lanes import DEADLINE_S, GUARANTEES, Shop, play, recreate, shop_on
from tests.integration.test_commands import at, salience
from tests.integration.test_lane_recovery import delete_before
from tests.integration.workers import Worker, until
from tests.unit.test_review_feed import records, stream

pytestmark = pytest.mark.integration

SHOP = [ad("shoe", brand="acme"), ad("boot", brand="acme")]


def raw(reviews: Sequence[Review]) -> list[tuple[str, bytes, bytes, int]]:
    """As a producer sends them today."""
    return [("reviews", one.ad_id.encode(), encode_json(one), wall_ms()) for one in reviews]


def command(shop: Shop, *words: str) -> list[str]:
    at = ("--bootstrap", shop.settings.bootstrap, "--prefix", shop.settings.topic_prefix)
    return [sys.executable, "-m", "streams.cli", "reviews", "follow", *words, *at]


async def once(shop: Shop) -> tuple[list[Tone], str]:
    """What one look at all that is there says, as JSON and to people."""
    made = await asyncio.to_thread(
        subprocess.run,
        command(shop, "--once", "--json"),
        env=os.environ | {"SALIENCE_GUARANTEE": shop.settings.guarantee},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return [msgspec.json.decode(line, type=Tone) for line in made.stdout.splitlines()], made.stderr


async def tones(shop: Shop) -> dict[bytes, Tone]:
    """What stands on the topic."""
    return {key: msgspec.json.decode(value, type=Tone) for key, value in await shop.read("tones") if value is not None}


async def followed(feed: ReviewFeed, *, follow: bool = True) -> None:
    """A reader from its beginning to its end."""
    async with feed:
        await feed.run(follow=follow)


async def letters(shop: Shop) -> list[tuple[str, str]]:
    """Stage and error of every dead letter."""
    batches = read_topic(shop.settings.bootstrap, shop.settings.topic_prefix + "dead-letters")
    headers = [dict(record.headers) async for records in batches for record in records]
    return [tuple(each[PREFIX + name].decode() for name in ("stage", "error")) for each in headers]  # type: ignore[misc] # of two


def test_a_turn_is_told_once_and_a_reader_goes_on_where_it_stood(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(400)), ("reviews", b"shoe", b"{", wall_ms())])
        said, people = await once(shop)
        assert {tone.key for tone in said} == {b"ad/shoe", b"brand/acme"}
        assert "400 reviews read, 1 refused" in people
        assert "has turned" not in people
        assert await letters(shop) == [("review", "DecodeError")]

        await shop.publish(raw(stream(50, share=0.1, seed=2, first=400)))
        said, people = await once(shop)
        assert "brand acme has turned" in people
        found = await tones(shop)
        assert found == {tone.key: tone for tone in said}
        turned_ms = found[b"brand/acme"].turned_ms
        assert turned_ms is not None
        assert START_MS + 400 <= turned_ms < START_MS + 450

        said, people = await once(shop)
        assert (said, len(await letters(shop))) == ([], 1)
        assert "has turned" not in people

        await shop.publish(raw(stream(50, share=0.1, seed=3, first=450)))
        said, people = await once(shop)
        assert {tone.turned_ms for tone in said if tone.of == "brand"} == {turned_ms}
        assert "has turned" not in people

    play(scenario)


def test_a_broker_without_idempotent_producers_is_read_as_well_where_no_more_is_asked_of_it(
    embedded: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(embedded, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(40)), ("reviews", b"shoe", b"{", wall_ms())])
        said: list[Tone] = []
        await followed(ReviewFeed(shop.settings, said.extend), follow=False)
        assert {tone.key: tone for tone in said} == await tones(shop)
        assert await letters(shop) == [("review", "DecodeError")]

    play(scenario)


def test_a_reader_on_a_broker_without_transactions_says_which_guarantee_it_wants(
    embedded: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(embedded, topic_prefix, tmp_path, "at_least_once")
        asked = shop.settings.model_copy(update={"guarantee": "exactly_once"})
        with pytest.raises(ReviewError, match=r"no transaction.*SALIENCE_GUARANTEE=at_least_once"):
            await followed(ReviewFeed(asked, lambda _: None), follow=False)

    play(scenario)


def never_ended(*batches: Sequence[Review]) -> list[list[Tone]]:
    """What one reader that has never ended says after each of ``batches``."""
    one = Reviewer()
    for each in SHOP:
        one.offer(each)
    said, first = [], 0
    for batch in batches:
        list(one.take(records(batch, first=first)))
        first += len(batch)
        said.append(one.news())
    return said


@GUARANTEES
def test_a_reader_goes_on_to_the_last_bit_where_the_one_before_stood_though_its_reviews_are_gone(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    batches = stream(400), stream(50, share=0.1, seed=2, first=400)
    first, second = never_ended(*batches)

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish([*SHOP, *raw(batches[0])])
        said, people = await once(shop)
        assert (said, "begins with the first review there is, up to review 400" in people) == (first, True)
        await asyncio.to_thread(delete_before, kafka.bootstrap, f"{topic_prefix}reviews", 400)
        await shop.publish(raw(batches[1]))
        said, people = await once(shop)
        assert said == second
        assert "goes on after what 400 taught, up to review 450" in people
        assert "50 reviews read" in people
        assert (await once(shop))[0] == []

    play(scenario)


def test_a_reader_says_that_it_has_read_what_was_there_where_that_ends_in_a_transaction(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([*SHOP])
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"{topic_prefix}requeue"})
        producer.init_transactions()
        producer.begin_transaction()
        for one in stream(5):
            producer.produce(f"{topic_prefix}reviews", encode_json(one), one.ad_id)
        producer.commit_transaction()
        _, people = await once(shop)
        assert "up to review 6" in people  # the marker is one
        assert "has read what was there" in people

    play(scenario)


class _Dies(Outbox):
    """Before it has sent any tone."""

    async def send(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
        if topic.endswith("tones"):
            raise KafkaConnectionError("the broker is gone")
        await super().send(topic, partition, messages)


@GUARANTEES
def test_what_a_reader_did_not_come_to_tell_the_next_one_tells(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    ((*first,),) = never_ended(stream(30))

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish([*SHOP, *raw(stream(30))])
        said: list[Tone] = []
        with pytest.raises(KafkaConnectionError):
            await followed(ReviewFeed(shop.settings, said.extend, _Dies), follow=False)
        assert said == []
        assert bool(await shop.read("review-state")) is (guarantee == "at_least_once")
        for tell in (first, []):
            said.clear()
            await followed(ReviewFeed(shop.settings, said.extend), follow=False)
            assert said == tell
        assert await tones(shop) == {tone.key: tone for tone in first}

    play(scenario)


def test_a_reader_of_a_topic_that_is_made_anew_says_so_and_begins_anew(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ((*_, acme),) = never_ended(stream(20, share=0.1, seed=3))

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(100)), ("reviews", b"shoe", b"{", wall_ms())])
        reading = ReviewFeed(shop.settings, lambda _: None)
        following = asyncio.create_task(followed(reading))
        try:
            await until(lambda: _reads(shop, following), "its state")
            await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix, "reviews")
            await shop.publish([("reviews", b"shoe", b"{", wall_ms()), *raw(stream(20, share=0.1, seed=3))])
            # by its records or by its id, whichever is seen first
            with pytest.raises((ReviewError, MadeAnewError), match=r"is another topic of that name|made anew"):
                await asyncio.wait_for(following, DEADLINE_S)
        finally:
            following.cancel()
        said, people = await once(shop)
        assert "what was learnt of reviews is refused, it begins anew" in people
        assert "of another topic of reviews" in people
        assert "begins with the first review there is" in people
        assert acme in said
        assert len(await letters(shop)) == 2  # one of either topic
        said, people = await once(shop)
        assert (said, "goes on after what 21 taught" in people) == ([], True)

    play(scenario)


async def _reads(shop: Shop, following: "asyncio.Task[None]") -> bool:
    assert not following.done()
    return bool(await shop.read("review-state"))


def test_a_reader_that_begins_ends_the_one_before(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([*SHOP, *raw(stream(10))])
        former = asyncio.create_task(followed(ReviewFeed(shop.settings, lambda _: None)))
        try:
            await until(lambda: _reads(shop, former), "its state")
            await followed(ReviewFeed(shop.settings, lambda _: None), follow=False)
            await shop.publish(raw(stream(10, first=10)))
            with pytest.raises(ReviewError, match="another reader of reviews has begun"):
                await asyncio.wait_for(former, DEADLINE_S)
        finally:
            former.cancel()

    play(scenario)


class _WhileItStarts(Reviewer):
    """Of a shop that publishes another ad when its ads are being read."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._topic, self._waiting = shop.settings.topic_prefix + "ads", [SHOP[1]]
        self._producer = Producer({"bootstrap.servers": shop.settings.bootstrap})

    def take_ads(self, records: Sequence[Record]) -> None:
        super().take_ads(records)
        while self._waiting:
            one = self._waiting.pop()
            self._producer.produce(self._topic, encode_json(one), one.ad_id)
            self._producer.flush()


def test_an_ad_that_is_published_while_the_reader_starts_is_known(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([SHOP[0], *raw(stream(5))])
        said: list[Tone] = []
        feed = ReviewFeed(shop.settings, said.extend)
        feed.reviewer = _WhileItStarts(shop)
        following, numbers = asyncio.create_task(followed(feed)), itertools.count(100)

        async def heard() -> bool:
            assert not following.done()
            await shop.publish(raw(stream(1, ad_id="boot", first=next(numbers))))
            return b"ad/boot" in {tone.key for tone in said}

        try:
            await until(heard, "the tone of the new ad")
        finally:
            following.cancel()

    play(scenario)


def test_a_worker_goes_by_reviews_and_its_receipt_holds_when_they_have_changed(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """What it was told by then is in the receipt; ads and brands that nobody has reviewed are told nothing of."""
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    ads = [*SHOP, ad("sock")]
    found: list[Decision] = []

    async def scenario() -> None:
        good, bad = stream(30, share=1.0), stream(30, ad_id="boot", share=0.0, first=30)
        await shop.publish([*ads, *raw([*good, *bad])])
        await once(shop)
        with Worker(shop, tmp_path / "log") as worker:

            async def decided() -> bool:
                await shop.publish([impression("user-1", "shoe", wall_ms())])
                decisions = [value for _, value in await shop.read("decisions") if value is not None]
                found.extend(msgspec.json.decode(value, type=Decision) for value in decisions[-1:])
                return bool(found)

            await until(decided, "a decision")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        await shop.publish(raw(stream(90, share=0.0, first=60)))
        await once(shop)

    play(scenario)
    (decision,) = found
    told = np.frombuffer(decision.rates, dtype=np.float16).reshape(len(ads), RATES_DIM)[:, TONED:]
    of = dict(zip(np.frombuffer(decision.candidates, dtype=np.uint64).tolist(), told.tolist(), strict=True))
    shoe, boot, sock = (of[id64(each.ad_id)] for each in ads)
    assert shoe[0] > 0.2
    assert boot[0] < -0.2
    assert shoe[1] == boot[1] == pytest.approx(np.log1p(30) / 5, abs=1e-3)
    assert sock == [0, 0]
    told_again = salience("explain", decision.placement_id, *at(shop), "--json")
    assert told_again.returncode == 0, told_again.stdout + told_again.stderr
    assert json.loads(told_again.stdout)["identical"] is True


def test_a_reader_that_retention_overtakes_says_what_it_did_not_learn_from_and_goes_on(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reviews.feed.RECORDS_PER_READ", 5)
    reviews, all_read = stream(30), asyncio.Event()

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(reviews[:10])])
        async with ReviewFeed(shop.settings, lambda _: None) as feed:
            tell = feed._tell

            async def behind(letters: Sequence[Message], *, caught_up: bool) -> None:
                if feed.reviewer.next_offset == 5:  # the next five are fetched, and no others are until those are taken
                    await shop.publish(raw(reviews[10:]))
                    await asyncio.to_thread(delete_before, kafka.bootstrap, f"{topic_prefix}reviews", 20)
                await tell(letters, caught_up=caught_up)

            monkeypatch.setattr(feed, "_tell", behind)
            with capture_logs() as said:
                reading = asyncio.create_task(feed.run(on_read=lambda at: all_read.set() if at == 30 else None))
                await asyncio.wait(
                    [reading, asyncio.ensure_future(all_read.wait())], timeout=DEADLINE_S, return_when="FIRST_COMPLETED"
                )
                reading.cancel()
                await asyncio.wait([reading])
            assert feed.reviewer.reviews == 20
        overtaken = [line for line in said if line["event"] == OVERTAKEN]
        assert [(line["expected"], line["first"]) for line in overtaken] == [(10, 20)]

    play(scenario)
