"""What may be learnt from the topics: what workers refuse is left out, and so are people who are not remembered."""

from collections.abc import Sequence

import pytest

from scoring.attention import load
from scoring.catalogue import Catalogue
from scoring.events import Source
from streams.control_wire import ControlMessage
from streams.decode import Event
from streams.feeds.catalogue import apply_ads
from streams.learnable import Learnable, Offered
from streams.privacy.pseudonyms import Pseudonyms
from streams.wire import encode_json
from tests.builders import START_MS, Record, ad, click, impression, record
from tests.unit.consenting import erasure, grant, refusal, told

TOLERANCE_MS = 300_000


def learnt(
    happened: Sequence[Event | Record],
    *requests: ControlMessage | Record,
    presumed: bool = True,
    now_ms: int = START_MS,
) -> tuple[list[str], Learnable]:
    """The ids of what may be learnt, and what counted the rest; every event in a batch of its own."""
    records = [each if isinstance(each, Record) else record(each) for each in happened]
    ends = {(each.topic, each.partition): each.offset + 1 for each in sorted(records, key=lambda each: each.offset)}
    learnable = Learnable(ends, presumed=presumed, now_ms=now_ms, tolerance_ms=TOLERANCE_MS, entries_max=100)
    asked = [each if isinstance(each, Record) else told(each, offset) for offset, each in enumerate(requests)]
    learnable.control.take(asked)
    batches = [(Source.CLICK if each.topic == "clicks" else Source.IMPRESSION, [each]) for each in records]
    for source, batch in batches:
        learnable.hear(source, batch)
    learnable.settle()
    for source, batch in batches:
        learnable.recall(source, batch)
    return [event.event_id for source, batch in batches for event in learnable.take(source, batch)], learnable


def test_who_says_no_on_an_event_is_not_learnt_from_up_to_then_whichever_topic_is_read_first() -> None:
    happened = [
        impression("a", event_id="before"),
        impression("b", event_id="other"),
        click("a", time_ms=START_MS + 5, event_id="no", consent=False),
        click("a", time_ms=START_MS + 6, event_id="after"),
    ]
    for order in (happened, happened[::-1]):
        found, learnable = learnt(order)
        assert sorted(found) == ["after", "other"]
        assert (learnable.refused, learnable.invalid) == (2, 0)


def test_what_had_come_when_somebody_said_no_is_not_learnt_from_though_their_clocks_dated_it_later() -> None:
    happened = [
        record(impression("a", time_ms=START_MS + 5, event_id="ahead"), timestamp=START_MS + 5),
        record(click("a", time_ms=START_MS + 4, event_id="no", consent=False), timestamp=START_MS + 6),
        record(impression("a", time_ms=START_MS + 7, event_id="after"), timestamp=START_MS + 7),
        record(impression("b", time_ms=START_MS + 5, event_id="other"), timestamp=START_MS + 5),
    ]
    for order in (happened, happened[::-1]):
        found, learnable = learnt(order)
        assert sorted(found) == ["after", "other"]
        assert (learnable.refused, learnable.invalid) == (2, 0)


def test_what_was_in_the_future_when_it_came_takes_nothing_of_the_days_in_between() -> None:
    """A device three days ahead, whose owner then agrees and sets it right; exported once the date has passed."""
    hour_ms = 3_600_000
    ahead = record(impression("a", time_ms=START_MS + 72 * hour_ms, event_id="ahead"), 0, timestamp=START_MS)
    later = [START_MS + at * hour_ms for at in range(6, 80, 6)]
    days = [record(impression("a", time_ms=at, event_id=f"{at}"), 1 + n, timestamp=at) for n, at in enumerate(later)]
    for presumed in (True, False):
        found, _ = learnt([ahead, *days], grant("a", START_MS + 60_000), presumed=presumed, now_ms=later[-1])
        assert found == [f"{at}" for at in later]


def test_what_a_lane_held_when_it_forgot_is_known_though_the_senders_clock_was_slow() -> None:
    """It holds back what was before the newest of that, from wherever it comes later."""
    at = START_MS + 3_600_000
    held = record(impression("a", time_ms=at + 120_000, event_id="held"), 0, timestamp=at - 240_000)
    later = record(impression("a", time_ms=at + 60_000, event_id="later"), 1, timestamp=at + 30_000)
    assert learnt([held, later], erasure("a", at), now_ms=at)[0] == []
    no = record(click("a", time_ms=at, event_id="no", consent=False), 0, timestamp=at - 230_000)
    later = record(impression("a", time_ms=at + 60_000, event_id="later", consent=True), 1, timestamp=at - 220_000)
    assert learnt([held, no, later], now_ms=at)[0] == []


@pytest.mark.parametrize("slow_ms", [240_000, 480_000, 1_200_000])
def test_what_a_lane_held_when_it_forgot_is_known_though_the_no_came_by_a_slow_clock(slow_ms: int) -> None:
    at, said_ms = START_MS + 3_600_000, START_MS + 3_660_000 - slow_ms
    held = record(click("a", time_ms=at, event_id="held"), 0, timestamp=at)
    no = record(click("a", time_ms=said_ms, event_id="no", consent=False), 1, timestamp=said_ms)
    late = record(click("a", time_ms=at - 60_000, event_id="late"), 2, timestamp=at + 120_000)
    after = record(click("a", time_ms=at + 600_000, event_id="after"), 3, timestamp=at + 600_000)
    assert learnt([held, no, late, after], now_ms=at + 600_000)[0] == ["after"]


def test_what_a_lane_held_when_it_forgot_is_known_where_records_tell_no_time() -> None:
    at = START_MS + 3_600_000
    held = record(click("a", time_ms=at + 120_000, event_id="held"), 0, timestamp=-1)
    no = record(click("a", time_ms=START_MS, event_id="no", consent=False), 1, timestamp=-1)
    late = record(impression("a", time_ms=at + 60_000, event_id="late"), 0, timestamp=at + 180_000)
    assert learnt([held, no, late], now_ms=at)[0] == []


@pytest.mark.parametrize("agrees", [False, True])
def test_a_no_that_was_in_the_future_when_it_came_takes_no_days_of_what_is_read_before_it(agrees: bool) -> None:
    hour_ms = 3_600_000
    no = record(click("a", time_ms=START_MS + 72 * hour_ms, event_id="no", consent=False), timestamp=START_MS)
    later = [START_MS + at * hour_ms for at in range(6, 80, 6)]
    days = [record(impression("a", time_ms=at, event_id=f"{at}"), n, timestamp=at) for n, at in enumerate(later)]
    requests = [grant("a", START_MS + 60_000)] if agrees else []
    assert learnt([*days, no], *requests, now_ms=later[-1])[0] == [f"{at}" for at in later]


def test_a_no_that_is_sent_again_after_a_yes_takes_back_what_had_come_by_then() -> None:
    happened = [
        record(click("a", time_ms=START_MS + 2, event_id="no", consent=False), timestamp=START_MS + 2),
        record(click("a", time_ms=START_MS + 5, event_id="yes", consent=True), timestamp=START_MS + 5),
        record(click("a", time_ms=START_MS + 2, event_id="no", consent=False), timestamp=START_MS + 8),
        record(click("a", time_ms=START_MS + 9, event_id="after"), timestamp=START_MS + 9),
    ]
    assert learnt(happened)[0] == ["after"]


def test_what_was_done_before_a_no_and_comes_after_it_is_not_learnt_from_though_the_no_is_of_a_clock_behind() -> None:
    happened = [
        record(impression("a", time_ms=START_MS + 5), timestamp=START_MS + 5),
        record(click("a", time_ms=START_MS + 3, event_id="no", consent=False), timestamp=START_MS + 6),
        record(click("a", time_ms=START_MS + 4, event_id="late"), timestamp=START_MS + 8),
        record(click("a", time_ms=START_MS + 9, event_id="after"), timestamp=START_MS + 9),
    ]
    found, learnable = learnt(happened)
    assert (found, learnable.refused) == (["after"], 3)


def test_what_stands_before_a_no_in_its_partition_is_not_learnt_from_though_the_servers_clock_was_ahead() -> None:
    happened = [
        record(click("a", time_ms=START_MS + 2_000, event_id="ahead"), 0, timestamp=START_MS + 2_000),
        record(click("b", time_ms=START_MS + 2_000, event_id="other"), 1, timestamp=START_MS + 2_000),
        record(click("a", time_ms=START_MS + 5, event_id="no", consent=False), 2, timestamp=START_MS + 5),
        record(click("a", time_ms=START_MS + 3_000, event_id="after"), 3, timestamp=START_MS + 3_000),
        record(click("a", time_ms=START_MS + 2_500, event_id="elsewhere"), 0, 1, timestamp=START_MS + 2_500),
    ]
    found, learnable = learnt(happened)
    assert (found, learnable.refused) == (["other", "after", "elsewhere"], 2)


def test_what_is_dated_before_what_a_no_took_back_is_not_learnt_from_though_it_comes_after_the_no() -> None:
    happened = [
        record(impression("a", time_ms=START_MS + 40_000, event_id="ahead"), 0, timestamp=START_MS),
        record(click("a", time_ms=START_MS + 5, event_id="no", consent=False), 0, timestamp=START_MS + 5),
        record(impression("a", time_ms=START_MS + 20_000, event_id="held back"), 1, timestamp=START_MS + 20_000),
        record(impression("a", time_ms=START_MS + 40_001, event_id="after"), 2, timestamp=START_MS + 40_001),
    ]
    found, learnable = learnt(happened)
    assert (found, learnable.refused) == (["after"], 3)


def test_a_record_that_does_not_tell_when_it_was_sent_is_learnt_from_but_of_whom_a_no_took_it_back() -> None:
    silent = [record(impression(user, event_id=user), timestamp=-1) for user in ("a", "b")]
    no = click("a", time_ms=START_MS - 5, consent=False)
    for timestamp in (START_MS + 5, -1):
        found, learnable = learnt([*silent, record(no, timestamp=timestamp)])
        assert (found, learnable.refused) == (["b"], 2)


def test_a_no_that_does_not_tell_when_it_was_sent_takes_back_what_had_come_by_its_own_time() -> None:
    ahead = record(impression("a", time_ms=START_MS + 9), timestamp=START_MS + 4)
    no = record(click("a", time_ms=START_MS + 5, consent=False), timestamp=-1)
    assert learnt([ahead, no])[0] == []


def test_where_people_opt_in_a_no_ends_an_older_consent_whichever_topic_is_read_first() -> None:
    happened = [
        record(impression("a", time_ms=START_MS + 9, event_id="silent"), timestamp=START_MS + 9),
        record(click("a", time_ms=START_MS + 8, event_id="no", consent=False), timestamp=START_MS + 8),
        record(click("a", time_ms=START_MS + 10, event_id="yes", consent=True), timestamp=START_MS + 10),
    ]
    for order in (happened, happened[::-1]):
        assert learnt(order, grant("a"), presumed=False)[0] == ["yes"]
        assert set(learnt(order, grant("a", START_MS + 9), presumed=False)[0]) == {"silent", "yes"}


def test_a_no_of_a_clock_that_is_far_ahead_takes_nothing_that_came_after_it() -> None:
    day_ms = 86_400_000
    happened = [
        record(impression("a", time_ms=START_MS, event_id="before"), timestamp=START_MS),
        record(click("a", time_ms=START_MS + 9 * day_ms, event_id="no", consent=False), timestamp=START_MS + 1),
        record(impression("a", time_ms=START_MS + day_ms, event_id="after"), timestamp=START_MS + day_ms),
    ]
    for now_ms in (START_MS + 2 * day_ms, START_MS + 20 * day_ms):
        for order in (happened, happened[::-1]):
            assert learnt(order, now_ms=now_ms)[0] == ["after"]


@pytest.mark.parametrize("presumed", [False, True])
@pytest.mark.parametrize("ahead_ms", [-240_000, 0, 240_000])
def test_what_came_before_a_consent_is_told_by_its_record_whatever_its_devices_clock_says(
    presumed: bool, ahead_ms: int
) -> None:
    consent = told(grant("a", START_MS + ahead_ms), 0, came_ms=START_MS)
    before, after = START_MS - 120_000, START_MS + 30_000
    happened = [
        record(click("a", time_ms=before, event_id="before"), timestamp=before),
        record(click("a", time_ms=after + max(ahead_ms, 0), event_id="after"), timestamp=after),
    ]
    assert learnt(happened, consent, presumed=presumed)[0] == ["after"]


def test_silence_where_people_opt_in_takes_back_nothing_that_had_come() -> None:
    said = record(click("a", time_ms=START_MS + 5, event_id="yes", consent=True), timestamp=START_MS)
    found, learnable = learnt([said, record(click("a", time_ms=START_MS + 6), timestamp=START_MS + 6)], presumed=False)
    assert (found, learnable.refused) == (["yes"], 1)


def test_who_refused_on_the_control_topic_is_not_learnt_from_at_all() -> None:
    found, learnable = learnt([click("a", consent=True), impression("b", event_id="b")], refusal("a", START_MS - 5))
    assert (found, learnable.refused) == (["b"], 1)


def test_who_was_erased_is_learnt_from_only_by_what_came_after_it() -> None:
    ahead = record(click("a", time_ms=START_MS + 200_000, event_id="a clock ahead"), timestamp=START_MS)
    late = record(click("a", time_ms=START_MS - 1, event_id="late"), timestamp=START_MS + 90_000)
    back = record(click("a", time_ms=START_MS + 250_000, event_id="back"), timestamp=START_MS + 250_000)
    found, learnable = learnt([click("a", event_id="before"), ahead, late, back], erasure("a", START_MS + 60_000))
    assert (found, learnable.refused) == (["back"], 3)


@pytest.mark.parametrize("asked_minute", [-1_440, 6, 10, 14], ids=["a day before", "slow", "right", "fast"])
def test_what_had_come_before_an_erasures_record_is_not_learnt_from_however_that_is_dated(asked_minute: int) -> None:
    minute_ms = 60_000

    def at(minute: int, ahead: int = 0) -> Record:
        said = click("a", time_ms=START_MS + (minute + ahead) * minute_ms, event_id=f"{minute}")
        return record(said, minute, timestamp=START_MS + minute * minute_ms)

    asked = told(erasure("a", START_MS + asked_minute * minute_ms), 0, came_ms=START_MS + 10 * minute_ms)
    happened = [at(8), at(9, ahead=4), at(12), at(20)]  # what is dated 12 was before the newest that the lane held
    assert learnt(happened, asked, now_ms=START_MS + 20 * minute_ms)[0] == ["20"]


def test_who_agrees_again_is_learnt_from_since_then_though_compaction_took_the_refusal() -> None:
    happened = [click("a", time_ms=START_MS + at, event_id=str(at)) for at in (4, 5, 6)]
    for requests in ([grant("a", START_MS + 5)], [erasure("a", START_MS), grant("a", START_MS + 5)]):
        assert learnt(happened, *requests)[0] == ["5", "6"]
    assert learnt(happened, grant("a", START_MS + 5), erasure("a", START_MS + 4))[0] == ["5", "6"]


def test_who_agrees_again_is_not_learnt_from_by_what_came_before_though_their_clock_was_ahead() -> None:
    happened = [
        record(click("a", time_ms=START_MS + 40_000, event_id="ahead"), 0, timestamp=START_MS + 1),
        record(click("a", time_ms=START_MS + 30_000, event_id="held back"), 1, timestamp=START_MS + 30_000),
        record(click("a", time_ms=START_MS + 40_001, event_id="after"), 2, timestamp=START_MS + 40_001),
        record(click("b", time_ms=START_MS + 40_000, event_id="other"), 3, timestamp=START_MS + 1),
    ]
    found, learnable = learnt(happened, refusal("a", START_MS), grant("a", START_MS + 10_000))
    assert (found, learnable.refused) == (["after", "other"], 2)


def test_where_people_opt_in_silence_is_not_learnt_from() -> None:
    happened = [click("silent"), click("said", event_id="yes", consent=True), click("said", "ad-2")]
    found, learnable = learnt(happened, presumed=False)
    assert (found, learnable.refused) == (["yes"], 2)


def test_an_erasure_under_every_key_of_a_person_finds_all_of_their_pseudonyms() -> None:
    names = Pseudonyms({"new": bytes(range(32, 64)), "old": bytes(range(32))})
    happened = [click(user, event_id=user) for user in (*names.all("alice"), names.of("bob"))]
    found, learnable = learnt(happened, *(erasure(user, START_MS + 5) for user in names.all("alice")))
    assert (found, learnable.refused) == ([names.of("bob")], 2)


@pytest.mark.parametrize(
    "bad",
    [
        record(click("a"), key=b"b"),
        record(impression("a", time_ms=START_MS + TOLERANCE_MS + 1)),
        record(click("a", impression_time_ms=START_MS + TOLERANCE_MS + 1)),
        record(click("a\n")),
        record(click("a"), value=b"{"),
        record(click("a"), value=None),
    ],
)
def test_what_workers_make_a_dead_letter_is_left_out_and_says_nothing_of_anybody(bad: Record) -> None:
    found, learnable = learnt([click("a", event_id="good"), bad])
    assert (found, learnable.invalid, learnable.refused) == (["good"], 1, 0)


def test_of_an_ad_the_last_version_is_kept_and_one_that_was_withdrawn_has_ended() -> None:
    offered = Offered()
    versions = [ad("a", title="one"), ad("a", title="two"), ad("gone", title="shown"), ad("back")]
    records = [
        Record("ads", 0, at, START_MS, each.ad_id.encode(), encode_json(each)) for at, each in enumerate(versions)
    ]
    gone = [Record("ads", 0, 4 + at, START_MS, key, None) for at, key in enumerate([b"gone", b"back", b"never"])]
    again = Record("ads", 0, 9, START_MS, b"back", encode_json(ad("back", title="again")))
    offered.take([*records, *gone, again, Record("ads", 0, 10, START_MS, b"a", encode_json(ad("b")))])
    assert offered.invalid == 1
    assert list(offered.ads.values()) == [
        ad("a", title="two"),
        ad("gone", title="shown", status="ended"),
        ad("back", title="again"),
    ]


def test_a_withdrawal_whose_key_is_no_text_is_no_valid_message_as_it_is_none_for_workers() -> None:
    offered = Offered()
    records = [Record("ads", 0, at, START_MS, key, None) for at, key in enumerate([b"\xff", b"never", None])]
    offered.take(records)
    assert (offered.invalid, offered.ads) == (1, {})
    assert apply_ads(Catalogue(load().encode, load().dim), records) == 1
