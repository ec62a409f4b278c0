"""``salience export-log`` while people act, and take back what they did."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")

from streams.cli.export_log import Tones, _events
from streams.learnable import Learnable, Offered
from streams.logs.parquet import Writer, read
from streams.settings import Settings
from streams.topics import AD_IMPRESSIONS, CLICKS, CONTROL
from streams.wire import encode_json
from tests.builders import START_MS, Record, ad, click, impression, record
from tests.unit.consenting import erasure, told
from tests.unit.test_review_feed import review, reviewer


class Shop:
    """Topics of a partition each; ``then`` happens once ``after`` has been read for the first time."""

    def __init__(self, then: Callable[["Shop"], None], after: str = CLICKS) -> None:
        self.topics: dict[str, list[Record]] = {AD_IMPRESSIONS: [], CLICKS: [], CONTROL: []}
        self._then, self._after = [then], after

    async def read(self, name: str, *_: str) -> AsyncIterator[Sequence[Record]]:
        """A topic to its end as it is now."""
        yield list(self.topics[name])
        if name == self._after and self._then:
            self._then.pop()(self)

    def ends(self) -> dict[tuple[str, int], int]:
        """Where the topics of events end now."""
        return {(each.topic, 0): each.offset + 1 for name in (AD_IMPRESSIONS, CLICKS) for each in self.topics[name]}


def exported(shop: Shop, directory: Path) -> tuple[list[str], Learnable]:
    with Writer(directory) as writer:
        learnable = asyncio.run(_events(Settings(), shop.read, shop.ends(), writer))
    return [event.event_id for event in read(directory).events], learnable


def test_what_comes_after_the_hearing_of_who_says_no_is_not_written(tmp_path: Path) -> None:
    def then(shop: Shop) -> None:
        shop.topics[CLICKS] += [
            record(click("b", time_ms=START_MS + 5), 1),
            record(click("b", time_ms=START_MS + 6, consent=False), 2),
            record(click("b"), 3, value=b"{"),
        ]
        shop.topics[AD_IMPRESSIONS] += [record(impression("b", time_ms=START_MS + 4), 1)]

    shop = Shop(then)
    shop.topics[AD_IMPRESSIONS] = [record(impression("a", event_id="shown"))]
    shop.topics[CLICKS] = [record(click("a", event_id="clicked", time_ms=START_MS + 1))]
    found, learnable = exported(shop, tmp_path)
    assert found == ["shown", "clicked"]
    assert (learnable.refused, learnable.invalid) == (0, 0)


def test_what_is_done_on_one_topic_while_the_other_is_heard_is_not_written(tmp_path: Path) -> None:
    def then(shop: Shop) -> None:
        shop.topics[CLICKS] += [record(click("a", event_id="meanwhile", time_ms=START_MS + 5))]
        shop.topics[AD_IMPRESSIONS] += [record(impression("a", time_ms=START_MS + 6, consent=False), 1)]

    shop = Shop(then, after=AD_IMPRESSIONS)
    shop.topics[AD_IMPRESSIONS] = [record(impression("a", event_id="shown"))]
    found, _ = exported(shop, tmp_path)
    assert found == ["shown"]


def test_an_erasure_that_comes_while_events_are_heard_takes_what_had_come_though_it_is_dated_later(
    tmp_path: Path,
) -> None:
    def then(shop: Shop) -> None:
        shop.topics[CONTROL] += [told(erasure("a", START_MS + 5), 0)]

    shop = Shop(then)
    ahead = impression("a", event_id="ahead", time_ms=START_MS + 10)
    since = impression("a", event_id="since", time_ms=START_MS + 11)
    shop.topics[AD_IMPRESSIONS] = [
        record(ahead, timestamp=START_MS + 1),
        record(since, 1, timestamp=START_MS + 11),
    ]
    found, learnable = exported(shop, tmp_path)
    assert (found, learnable.refused) == (["since"], 1)


def test_what_people_ask_for_while_events_are_heard_is_met(tmp_path: Path) -> None:
    def then(shop: Shop) -> None:
        shop.topics[CONTROL] += [told(erasure("a", START_MS + 5), 1)]

    shop = Shop(then)
    shop.topics[CONTROL] = [told(erasure("b", START_MS - 5), 0, came_ms=START_MS - 5)]
    shop.topics[AD_IMPRESSIONS] = [record(impression(user, event_id=user), at) for at, user in enumerate("ab")]
    found, learnable = exported(shop, tmp_path)
    assert (found, learnable.refused) == (["b"], 1)


SECONDS, MICROSECONDS = START_MS // 1_000, START_MS * 1_000


def test_an_ad_whose_time_is_in_seconds_is_left_out_and_the_log_can_be_read(tmp_path: Path) -> None:
    offered = Offered(for_log=True)
    versions = [ad("shoe"), ad("tent", title="first"), ad("tent", start_ms=SECONDS), ad("boot", end_ms=SECONDS)]
    offered.take([Record("ads", 0, at, 0, each.ad_id.encode(), encode_json(each)) for at, each in enumerate(versions)])
    with Writer(tmp_path) as writer:
        for each in offered.ads.values():
            writer.add(each)
    assert read(tmp_path).ads == [ad("shoe"), ad("tent", title="first")]
    assert offered.invalid == 2


def test_an_event_whose_time_is_in_seconds_is_left_out_and_the_log_can_be_read(tmp_path: Path) -> None:
    shop = Shop(lambda _: None)
    shop.topics[AD_IMPRESSIONS] = [record(impression("a", time_ms=SECONDS)), record(impression("a", event_id="i"), 1)]
    answer = click("a", event_id="answer", time_ms=START_MS + 1, impression_time_ms=SECONDS)
    shop.topics[CLICKS] = [record(answer), record(click("a", event_id="c", time_ms=START_MS + 2), 1)]
    found, learnable = exported(shop, tmp_path)
    assert found == ["i", "c"]
    assert (learnable.refused, learnable.invalid) == (0, 2)


def test_a_no_whose_time_is_in_seconds_is_heard_all_the_same(tmp_path: Path) -> None:
    shop = Shop(lambda _: None)
    shop.topics[CLICKS] = [
        record(click("a")),
        record(click("a", time_ms=SECONDS, consent=False), 1, timestamp=START_MS + 1),
    ]
    found, learnable = exported(shop, tmp_path)
    assert (found, learnable.refused, learnable.invalid) == ([], 2, 0)


@pytest.mark.parametrize("timestamp", [-1, SECONDS, MICROSECONDS])
def test_what_a_review_told_at_no_time_in_milliseconds_is_left_out_and_the_log_can_be_read(
    timestamp: int, tmp_path: Path
) -> None:
    heard = Tones(reviewer())
    come = [
        Record("reviews", 0, at, sent_ms, b"sock", encode_json(review(at, "sock", good=True)))
        for at, sent_ms in enumerate([START_MS, timestamp, START_MS + 2])
    ]
    with Writer(tmp_path) as writer:
        for each in come:
            for tone in heard.of([each]):
                writer.add(tone)
    assert [(tone.reviews, tone.time_ms) for tone in read(tmp_path).tones] == [(1, START_MS), (3, START_MS + 2)]
    assert heard.invalid == 1
