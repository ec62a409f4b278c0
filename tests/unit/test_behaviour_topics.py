"""What the behaviour report takes of the topics' records: what workers take, and receipts that an impression names."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest

from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.units import DAY_MS
from streams.behaviour import gathered
from streams.behaviour.gathered import Gatherer, read_topics
from streams.behaviour.joined import PERIODS_MAX
from streams.behaviour.page import page
from streams.behaviour.report import Report, report
from streams.topics import AD_IMPRESSIONS
from streams.wire import encode_json
from tests.builders import START_MS, Record, ad, click, impression, record

TENT = ad("tent", campaign_id="summer", advertiser_id="acme", bid_micros=200_000)
LATEST_MS = START_MS + 300_000


def _ads(*told: tuple[bytes, bytes | None]) -> list[Record]:
    return [Record("ads", 0, at, START_MS, key, value) for at, (key, value) in enumerate(told)]


def _receipt(placement_id: str, user: str, arm: str) -> Record:
    told = {"placement_id": placement_id, "user_id": user, "arm": arm, "policy": {"control_share": 0.5}}
    return Record("decisions", 0, 0, START_MS, user.encode(), encode_json(told))


def _gathered(
    gatherer: Gatherer, topics: dict[str, Sequence[Record]], meanwhile: dict[str, Sequence[Record]] | None = None
) -> Gatherer:
    """All that ``topics`` hold, read one record at a time; ``meanwhile`` comes once the impressions have been read."""
    topics, coming = dict(topics), dict(meanwhile or {})

    async def ends(_bootstrap: str, names: Iterable[str]) -> dict[tuple[str, int], int]:
        held = [each for name in names for each in topics.get(name, ())]
        return {(each.topic, each.partition): each.offset + 1 for each in sorted(held, key=lambda each: each.offset)}

    async def read(_bootstrap: str, topic: str) -> AsyncIterator[Sequence[Record]]:
        for one in topics.get(topic, ()):
            yield [one]
        if topic == AD_IMPRESSIONS:
            topics.update({name: [*topics[name], *more] for name, more in coming.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathered, "read_topic", read)
        patch.setattr(gathered, "ends_of", ends)
        asyncio.run(read_topics("", "", gatherer, lambda *_: None))
    return gatherer


def _told(topics: dict[str, Sequence[Record]]) -> Report:
    return report(_gathered(Gatherer(latest_ms=LATEST_MS), topics).gathered(), "the topics")


def test_events_that_workers_refuse_are_neither_counted_nor_billed() -> None:
    shown = [
        record(impression("u", "tent")),
        record(impression("v", "tent"), key=None),
        record(impression("w", "tent"), key=b"another"),
        record(impression("x\x00", "tent")),
        record(impression("y", "tent", LATEST_MS + 1)),
        record(impression("z", "tent"), value=None),
    ]
    clicks = [
        record(click(user, "tent", START_MS + 9, impression_time_ms=START_MS), key=key)
        for user, key in (("u", b"u"), ("v", None))
    ]
    found = _told({"ads": _ads((b"tent", encode_json(TENT))), "ad-impressions": shown, "clicks": clicks})
    assert (found.about.impressions, found.about.actions, found.about.people, found.about.invalid) == (1, 1, 1, 6)
    assert found.campaigns.total.cost_micros == TENT.bid_micros


def test_an_ad_that_workers_refuse_takes_no_other_ones_place() -> None:
    forged = ad("tent", campaign_id="other", advertiser_id="rival", bid_micros=1_000_000_000)
    ads = _ads((b"tent", encode_json(TENT)), (b"x", encode_json(forged)), (b"tent", None))
    clicked = record(click("u", "tent", START_MS + 9, impression_time_ms=START_MS))
    found = _told({"ads": ads, "ad-impressions": [record(impression("u", "tent"))], "clicks": [clicked]})
    assert [(each.campaign, each.cost_micros) for each in found.campaigns.campaigns] == [("summer", TENT.bid_micros)]
    assert found.about.invalid == 1


def test_receipts_are_kept_of_the_placements_that_were_shown_alone() -> None:
    shown = [record(impression(f"u{at}", time_ms=START_MS + at, placement_id=f"p{at}")) for at in range(40)]
    older = [_receipt(f"of-last-month-{at}", f"u{at}", ENGINE_ARM) for at in range(500)]
    receipts = [_receipt(f"p{at}", f"u{at}", CONTROL_ARM if at % 2 else ENGINE_ARM) for at in range(40)]
    gatherer = _gathered(Gatherer(), {"ad-impressions": shown, "decisions": [*older, *receipts]})
    assert sum(map(len, gatherer._decided)) == 40
    found = report(gatherer.gathered(), "the topics")
    assert found.about.receipts == 40
    assert found.personalisation is not None
    assert found.personalisation.people == {"control": 20, "personalised": 20}


NEVER_MS, FAR_MS = 0, 4_102_444_800_000
"""What clocks say that were not set: 1970, and 2100."""
NOW_MS = START_MS + 7 * DAY_MS


@pytest.mark.parametrize("wrong_ms", [(NEVER_MS,), (FAR_MS,), (NEVER_MS, FAR_MS)])
def test_events_of_wrong_clocks_do_not_stretch_the_periods_of_a_recorded_log(wrong_ms: tuple[int, ...]) -> None:
    shown = [impression(f"u{at % 9}", time_ms=START_MS + at * DAY_MS // 10) for at in range(70)]
    gatherer = Gatherer(latest_ms=NOW_MS)
    gatherer.add([*shown, *(impression("wrong", time_ms=each) for each in wrong_ms)])
    found = report(gatherer.gathered(), "a log")
    assert (found.about.impressions, found.about.people, found.about.misdated) == (70, 9, len(wrong_ms))
    assert (found.about.from_ms, found.about.to_ms) == (START_MS, shown[-1].time_ms + 1)
    assert found.cohorts.width_ms == DAY_MS
    assert len(found.cohorts.cohorts) <= PERIODS_MAX
    assert f"{len(wrong_ms)} events were left out whose time is" in page(found)


def test_events_that_lanes_call_late_are_left_out_and_counted() -> None:
    shown = [record(impression(f"u{at % 9}", time_ms=START_MS + at * DAY_MS // 10), at) for at in range(70)]
    clicks = [record(click("u0", time_ms=START_MS + 9, impression_time_ms=START_MS))]  # another topic, read after it
    late = record(impression("late", time_ms=START_MS - DAY_MS), 70)
    elsewhere = record(impression("elsewhere", time_ms=START_MS - DAY_MS), 0, partition=1)
    gatherer = Gatherer(latest_ms=NOW_MS, late_ms=7 * DAY_MS)
    topics = {"ad-impressions": [*shown, late, elsewhere], "clicks": clicks}
    found = report(_gathered(gatherer, topics).gathered(), "the topics")
    assert (found.about.impressions, found.about.actions, found.about.misdated) == (71, 1, 1)
    assert found.about.from_ms == START_MS - DAY_MS


@pytest.mark.parametrize("stamped_ms", [START_MS, -1, 0], ids=["then", "no time", "a mirror's"])
@pytest.mark.parametrize("ahead_ms", [(0, 3 * DAY_MS), (3 * DAY_MS, 0)], ids=["record", "event"])
def test_one_wrong_clock_makes_nothing_late_that_others_send(ahead_ms: tuple[int, int], stamped_ms: int) -> None:
    honest = [impression(f"u{at}", time_ms=START_MS + at * DAY_MS // 24) for at in range(48)]
    shown = [record(each, at + 1, timestamp=each.time_ms) for at, each in enumerate(honest)]
    event_ms, record_ms = (START_MS + each for each in ahead_ms)
    ahead = record(impression("ahead", time_ms=event_ms), timestamp=record_ms)
    junk = Record("ad-impressions", 0, 0, START_MS + 3 * DAY_MS, b"u", b"{}")
    late = record(impression("late", time_ms=START_MS), 49, timestamp=stamped_ms)
    gatherer = Gatherer(latest_ms=NOW_MS, late_ms=DAY_MS)
    found = _gathered(gatherer, {"ad-impressions": [ahead, junk, *shown, late]}).gathered()
    assert (len(found.impressions), found.misdated, found.invalid) == (49, 1, 1)


@pytest.mark.parametrize("compacted", [False, True])
def test_who_offers_nothing_any_more_and_was_not_shown_is_no_party_to_exposure(compacted: bool) -> None:
    told = [(each, encode_json(ad(each.decode(), advertiser_id=each.decode()))) for each in (b"live", b"gone", b"back")]
    withdrawn: list[tuple[bytes, bytes | None]] = [(b"gone", None), (b"back", None), (b"shown", None), (b"\xff", None)]
    before = [] if compacted else [*told, (b"shown", encode_json(ad("shown", advertiser_id="shown")))]
    ads = _ads(*before, *withdrawn, told[0], told[2])
    shown = [record(impression("u", each, START_MS + at), at) for at, each in enumerate(("live", "shown"))]
    found = _told({"ads": ads, "ad-impressions": shown})
    named = {each.name for each in found.fairness.advertisers.largest}
    assert named == {"live", "back", "(unknown)" if compacted else "shown"}
    assert found.fairness.advertisers.parties == 3


def test_an_ad_of_any_time_that_workers_take_keeps_its_names_in_the_report() -> None:
    offered = ad("ad-1", advertiser_id="tents", start_ms=START_MS // 1_000)  # in seconds: it began in 1970
    topics = {"ads": _ads((b"ad-1", encode_json(offered))), "ad-impressions": [record(impression("u"))]}
    found = _told(topics)
    assert [each.name for each in found.fairness.advertisers.largest] == ["tents"]
    assert found.about.invalid == 0


def test_topics_end_at_one_moment_so_that_no_click_is_told_without_its_impression() -> None:
    shown, later = impression("u"), impression("v", time_ms=START_MS + 9)
    clicked, clicked_later = (
        click(each.user_id, time_ms=each.time_ms + 5, impression_time_ms=each.time_ms) for each in (shown, later)
    )
    topics = {"ads": _ads((b"ad-1", encode_json(ad()))), "ad-impressions": [record(shown)], "clicks": [record(clicked)]}
    of_impressions, of_clicks = record(later, 1), record(clicked_later, 1)
    elsewhere = record(later, 0, partition=7), record(clicked_later, 0, partition=7)
    for one, other in ((of_impressions, of_clicks), elsewhere):
        meanwhile = {"ad-impressions": [one], "clicks": [other]}
        found = report(_gathered(Gatherer(), topics, meanwhile).gathered(), "the topics")
        assert (found.about.impressions, found.about.actions, found.funnels.unasked) == (1, 1, 0)
