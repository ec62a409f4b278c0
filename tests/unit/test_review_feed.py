"""Reviews read as they come: what is learnt, what is heard of whom, and what is said again after a restart."""

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from scoring.sentiment import by_stars
from streams.letters import PREFIX
from streams.reviews.feed import SILENT_MS, ReviewFeed
from streams.reviews.reviewer import STAGE, Reviewer
from streams.settings import Settings
from streams.wire import Review, Tone, encode_json
from tests.builders import START_MS, Record, ad
from tests.unit.lanes import Outbox

GOOD, BAD = "light and comfortable, would buy again", "broke after two days, a waste of money"


def review(number: int, ad_id: str, *, good: bool, rated: bool = True) -> Review:
    text = f"{GOOD if good else BAD} {number}"
    return Review(
        review_id=f"r-{number}", ad_id=ad_id, time_ms=START_MS + number, text=text, positive=good if rated else None
    )


def records(reviews: Sequence[Review], first: int = 0) -> list[Record]:
    return [
        Record("reviews", 0, first + at, one.time_ms, one.ad_id.encode(), encode_json(one))
        for at, one in enumerate(reviews)
    ]


def told(tones: Sequence[Tone]) -> list[Record]:
    return [Record("tones", 0, at, one.time_ms, one.key, encode_json(one)) for at, one in enumerate(tones)]


def reviewer(tones: Sequence[Tone] = ()) -> Reviewer:
    """Of a shop with two ads of one brand and one of none."""
    out = Reviewer()
    shop = [ad("shoe", brand="acme"), ad("boot", brand="acme"), ad("sock")]
    out.take_ads([Record("ads", 0, at, 0, each.ad_id.encode(), encode_json(each)) for at, each in enumerate(shop)])
    out.take_told(told(tones))
    return out


def stream(count: int, *, ad_id: str = "shoe", share: float = 0.8, seed: int = 1, first: int = 0) -> list[Review]:
    rng = np.random.default_rng(seed)
    return [review(first + at, ad_id, good=bool(rng.random() < share)) for at in range(count)]


def test_an_ad_and_its_brand_sound_as_their_reviews_do_and_brands_as_those_of_all_their_ads() -> None:
    one = reviewer()
    assert list(one.take(records([*stream(200, share=1.0), *stream(200, ad_id="boot", share=0.0, first=200)]))) == []
    tones = {tone.key: tone for tone in one.news()}
    assert set(tones) == {b"ad/shoe", b"ad/boot", b"brand/acme"}
    assert tones[b"ad/shoe"].tone == 0.9
    assert tones[b"ad/boot"].tone == 0.1
    assert tones[b"brand/acme"].reviews == 400
    assert tones[b"ad/boot"].tone < tones[b"brand/acme"].tone < tones[b"ad/shoe"].tone
    assert one.news() == []


def test_a_review_with_stars_is_heard_by_them_and_one_without_by_its_text() -> None:
    one = reviewer()
    list(one.take(records(stream(200, ad_id="boot", share=0.5))))  # which tells how the texts are meant
    bad = [msgspec.structs.replace(review(200 + at, "shoe", good=False), positive=True) for at in range(100)]
    list(one.take(records(bad, first=200)))
    list(one.take(records([review(300 + at, "sock", good=False, rated=False) for at in range(20)], first=300)))
    tones = {tone.key: tone.tone for tone in one.news()}
    assert tones[b"ad/shoe"] == by_stars(positive=True) == 0.9
    assert tones[b"ad/sock"] != by_stars(positive=False)


def test_a_tone_is_told_to_four_digits() -> None:
    one = reviewer()
    list(one.take(records([review(at, "sock", good=at < 2) for at in range(3)])))
    assert [tone.tone for tone in one.news()] == [0.6333]


def test_a_tone_is_that_of_the_last_hundred_or_so() -> None:
    one = reviewer()
    list(one.take(records(stream(1_000, ad_id="sock", share=1.0))))
    (tone,) = one.news()
    assert tone.tone == 0.9
    list(one.take(records(stream(200, ad_id="sock", share=0.0, first=1_000), first=1_000)))
    (tone,) = one.news()
    assert (tone.reviews, tone.tone < 0.3) == (1_200, True)


def test_a_tone_is_said_again_where_it_has_moved_by_a_hundredth() -> None:
    one = reviewer()
    for good, bad, said in ((60, 1, 1), (60, 0, 0), (60, 1, 0)):  # the more there are, the less one of them moves it
        first = one.next_offset
        list(one.take(records([review(first + at, "sock", good=True) for at in range(good)], first=first)))
        one.news()
        list(one.take(records([review(first + good, "sock", good=False)] * bad, first=first + good)))
        assert len(one.news()) == said


def test_a_tone_that_stays_as_it_is_is_said_again_once_it_rests_on_half_as_many_reviews_more() -> None:
    one = reviewer()
    said = []
    for at in range(300):
        list(one.take(records([review(at, "sock", good=True, rated=False)], first=at)))
        said += one.news()
    assert {tone.tone for tone in said} == {0.5}  # nobody has said how such reviews are meant
    assert [tone.reviews for tone in said] == [1, 2, 3, 5, 8, 12, 18, 27, 41, 62, 93]  # 100 is what it remembers


def test_a_review_that_comes_again_is_passed_over_and_counted() -> None:
    one = reviewer()
    list(one.take(records(stream(600))))
    one.news()
    bad = review(600, "shoe", good=False)
    list(one.take(records([bad] * 40, first=600)))
    assert one.news() == []  # of one review, there is nothing worth saying
    assert (one.reviews, one.repeated, one.turned) == (601, 39, {"ad": 0, "brand": 0})
    list(one.take(records([msgspec.structs.replace(bad, ad_id="boot")], first=640)))  # ids are of an ad's reviews
    assert (one.reviews, one.repeated) == (602, 39)


def test_of_the_ids_of_reviews_the_newest_are_remembered() -> None:
    one = Reviewer(ids_max=3)
    for number, again in ((0, 0), (1, 0), (0, 1), (2, 1), (3, 1), (0, 1), (3, 2)):
        list(one.take(records([review(number, "sock", good=True)])))
        assert one.repeated == again


def test_reviews_without_stars_are_heard_and_ads_that_nobody_offers_teach_alone() -> None:
    one = reviewer()
    list(one.take(records(stream(300, ad_id="elsewhere", share=0.5))))
    assert one.news() == []
    list(one.take(records([review(300 + at, "sock", good=False, rated=False) for at in range(10)], first=300)))
    (tone,) = one.news()
    assert (tone.of, tone.name, tone.reviews) == ("ad", "sock", 10)
    assert tone.tone < 0.2


def test_a_turn_for_the_worse_is_told_within_fifty_reviews_with_the_time_of_the_review() -> None:
    one = reviewer()
    list(one.take(records(stream(600))))
    assert {tone.turned_ms for tone in one.news()} == {None}
    list(one.take(records(stream(50, share=0.2, seed=2, first=600), first=600)))
    assert one.turned == {"ad": 0, "brand": 0}
    turned = {tone.key: tone.turned_ms for tone in one.news()}
    assert one.turned == {"ad": 1, "brand": 1}
    assert set(turned) == {b"ad/shoe", b"brand/acme"}
    for time_ms in turned.values():
        assert time_ms is not None
        assert START_MS + 600 <= time_ms < START_MS + 650


def test_a_reader_that_begins_anew_says_nothing_twice() -> None:
    reviews = [*stream(600), *stream(50, share=0.2, seed=2, first=600)]
    first = reviewer()
    list(first.take(records(reviews)))
    said = first.news()
    assert first.turned == {"ad": 1, "brand": 1}
    again = reviewer(said)
    list(again.take(records(reviews)))
    assert again.news() == []
    assert again.turned == {"ad": 0, "brand": 0}  # nor is it counted twice
    list(again.take(records([review(650, "shoe", good=True)], first=650)))
    assert again.news() == []  # one of a hundred moves a tone by less than is worth a record


@pytest.mark.parametrize("length", [1, 64, 128])
def test_a_brand_of_any_length_has_a_tone_that_can_be_read(length: int) -> None:
    one = Reviewer()
    offered = ad("shoe", brand="x" * length)
    one.take_ads([Record("ads", 0, 0, 0, b"shoe", encode_json(offered))])
    list(one.take(records(stream(3))))
    assert {msgspec.json.decode(encode_json(tone), type=Tone).name for tone in one.news()} == {"shoe", "x" * length}


def test_the_tone_of_an_ad_that_is_withdrawn_goes_and_its_brands_stays() -> None:
    one = reviewer()
    list(one.take(records(stream(50))))
    said = one.news()
    assert one.gone() == []
    list(one.take(records(stream(40, share=0.0, first=50), first=50)))  # which is not told yet
    one.take_ads([Record("ads", 0, 9, 0, b"shoe", None)])
    list(one.take(records(stream(10, first=90), first=90)))
    one.take_ads([Record("ads", 0, 10, 0, key, None) for key in (b"\xff", None)])
    assert one.gone() == [b"ad/shoe"]
    assert [(tone.key, tone.reviews) for tone in one.news()] == [(b"brand/acme", 90)]
    assert one.gone() == []
    absent = Reviewer()  # it was withdrawn while nobody read
    absent.take_told(told(said))
    absent.take_ads([Record("ads", 0, 0, 0, b"boot", encode_json(ad("boot", brand="acme")))])
    assert absent.gone() == [b"ad/shoe"]


def test_what_is_no_tone_among_those_that_stand_there_is_passed_over() -> None:
    one = reviewer()
    one.take_told(
        [Record("tones", 0, 0, START_MS, b"ad/shoe", b"{"), Record("tones", 0, 1, START_MS, b"ad/boot", None)]
    )
    list(one.take(records(stream(10))))
    assert {tone.key for tone in one.news()} == {b"ad/shoe", b"brand/acme"}


def test_of_a_tone_that_was_deleted_or_overwritten_or_stands_under_another_key_nothing_has_been_told() -> None:
    first = reviewer()
    list(first.take(records(stream(100, share=1.0))))
    shoe, acme = first.news()
    turned = msgspec.structs.replace(shoe, turned_ms=START_MS)
    for last in (None, b"{", encode_json(acme)):
        one = reviewer([turned, acme])
        one.take_told([Record("tones", 0, 2, START_MS, shoe.key, last)])
        list(one.take(records(stream(100, share=1.0))))
        assert one.news() == [shoe]


def test_an_ad_under_the_key_of_another_is_none_here_as_it_is_none_to_the_workers() -> None:
    one = reviewer()
    one.take_ads([Record("ads", 0, 9, 0, b"boot", encode_json(ad("shoe", brand="evil")))])
    list(one.take(records(stream(3))))
    assert {tone.key for tone in one.news()} == {b"ad/shoe", b"brand/acme"}


def test_a_turn_is_remembered_though_its_reviews_have_left_the_topic() -> None:
    before = Tone(of="ad", name="shoe", reviews=900, tone=0.3, turned_ms=START_MS - 5, time_ms=START_MS - 1)
    one = reviewer([before])
    list(one.take(records(stream(100, share=1.0))))
    assert {tone.key: tone.turned_ms for tone in one.news()}[b"ad/shoe"] == START_MS - 5


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b"shoe", b"{", "DecodeError"),
        (b"shoe", None, "DecodeError"),
        (b"boot", encode_json(review(1, "shoe", good=True)), "ValueError"),
        (b"shoe", encode_json(review(1, "shoe", good=True)).replace(b"light", b"x" * 4_096), "ValidationError"),
    ],
    ids=["no json", "a tombstone", "another ad's key", "too long"],
)
def test_what_is_no_review_becomes_one_dead_letter_and_the_stream_goes_on(
    key: bytes, value: bytes | None, why: str
) -> None:
    wrong = Record("reviews", 0, 7, START_MS, key, value)
    one = reviewer()
    (letter,) = one.take([wrong, *records(stream(3), first=8)])
    told_of = dict(letter.headers)
    assert (letter.key, letter.value) == (key, value)
    assert told_of[f"{PREFIX}stage"] == STAGE.encode()
    assert told_of[f"{PREFIX}error"] == why.encode()
    assert told_of[f"{PREFIX}offset"] == b"7"
    assert (one.reviews, one.refused) == (3, 1)
    again = reviewer()
    again.take_letter(told_of[f"{PREFIX}offset"].decode(), told_of[f"{PREFIX}timestamp_ms"].decode(), 1_000)
    assert list(again.take([wrong])) == []


class Busy:
    """A consumer of topics on which records keep coming: at each read an ad and a review more."""

    def __init__(self, **_: object) -> None:
        self.at: dict[TopicPartition, int] = {}
        self.reads = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.at = dict.fromkeys(partitions, 0)

    async def seek_to_beginning(self, *_: TopicPartition) -> None: ...

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.at[partition] = offset

    def last_poll_timestamp(self, partition: TopicPartition) -> int:
        return START_MS + self.at[partition]

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition]

    async def getmany(self, *partitions: TopicPartition, **_: object) -> dict[TopicPartition, list[Record]]:
        self.reads += 1
        assert self.reads < 20, "it does not end"
        found: dict[TopicPartition, list[Record]] = {}
        for tp in partitions:
            at, value = self.at[tp], ad("shoe") if tp.topic == "ads" else review(self.at[tp], "shoe", good=True)
            found[tp] = [Record(tp.topic, 0, at, START_MS, b"shoe", encode_json(value))]
            self.at[tp] = at + 1
        return found


class Silent(Busy):
    """One that no broker answers any more; the clock by which aiokafka dated the last answer has gone back since."""

    def last_poll_timestamp(self, _: TopicPartition) -> int:
        return 2 * START_MS

    async def getmany(self, *_: TopicPartition, **__: object) -> dict[TopicPartition, list[Record]]:
        return {}


async def test_a_reader_whom_no_broker_answers_says_so_though_its_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms, partitions = START_MS, [TopicPartition("reviews", 0)]
    for clock in ("tick_ms", "wall_ms"):
        monkeypatch.setattr(f"streams.reviews.feed.{clock}", lambda: now_ms, raising=False)
    feed, consumer = ReviewFeed(Settings(), lambda _: None), Silent()
    monkeypatch.setattr(feed._followed, "look", lambda *_: None)
    consumer.assign(partitions)
    await feed._read(consumer, partitions, follow=True)
    at_first = feed.unwell()
    now_ms += SILENT_MS + 1
    await feed._read(consumer, partitions, follow=True)
    assert (at_first, feed.unwell()) == ("", "no broker has answered for 30 s")


class Waiting(Busy):
    """One that asks again when it is stopped: aiokafka's cancels that, and raises what it takes for its caller's."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._client = self

    async def stop(self) -> None:
        raise asyncio.CancelledError

    async def close(self) -> None: ...


@pytest.mark.parametrize("reader", [Busy, Waiting])
def test_what_was_there_is_read_and_told_once_though_ads_and_reviews_keep_coming(
    reader: type[Busy], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(_: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 3)

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", reader)
    monkeypatch.setattr("streams.reviews.feed.partitions_of", lambda _, topic: [TopicPartition(topic, 0)])
    monkeypatch.setattr("streams.reviews.feed.log_ends", ends)
    heard: list[Tone] = []
    feed = ReviewFeed(Settings(), heard.extend)
    feed.end = 3
    monkeypatch.setattr(feed._followed, "look", lambda *_: None)
    monkeypatch.setattr(feed, "_write", nothing)
    asyncio.run(feed.run(follow=False))
    assert (feed.reviewer.next_offset, [(tone.name, tone.reviews) for tone in heard]) == (3, [("shoe", 3)])


def test_a_review_of_a_topic_made_anew_has_its_dead_letter_though_one_of_the_former_had_one_further_on() -> None:
    one = reviewer()
    one.take_letter("100", str(START_MS), 101)
    one.take_letter("", "", 101)  # an origin is a header, and may claim anything
    one.take_letter("first", str(START_MS + 9), 101)
    one.take_letter("101", "9" * 30, 101)
    (letter,) = one.take([Record("reviews", 0, 7, START_MS + 1, b"shoe", b"{")])
    assert dict(letter.headers)[f"{PREFIX}offset"] == b"7"


@pytest.mark.parametrize("reviews", [10, 0])
def test_a_reader_to_whom_nothing_comes_uses_its_producer_once_a_day_so_that_no_broker_forgets_it(
    reviews: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms, outbox = 0, Outbox()
    monkeypatch.setattr("streams.reviews.feed.tick_ms", lambda: now_ms)
    feed = ReviewFeed(Settings(), lambda _: None)
    feed._outbox, feed.reviewer = outbox, reviewer()  # type: ignore[assignment]  # stands in for one on a broker
    assert list(feed.reviewer.take(records(stream(reviews)))) == []

    def tell(hours: int) -> list[str]:
        nonlocal now_ms
        now_ms += hours * 3_600_000
        outbox.did.clear()
        asyncio.run(feed._tell([], caught_up=True))
        return [did for did in outbox.did if did != "delivered"]

    assert tell(0) == (["begin", "review-state", "tones", "commit"] if reviews else [])
    assert [tell(hours) for hours in (1, 22)] == [[], []]
    assert tell(1) == ["begin", "review-state", "commit"]
    assert tell(23) == []
