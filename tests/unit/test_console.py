"""What the console keeps of topics, and what it tells of them."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from scoring.catalogue import Catalogue
from scoring.confidence import wilson
from scoring.market import Fate
from streams.compute import Compute
from streams.console.clicks import ARMS_MAX, MODELS_MAX, POINTS, SERVES_MS, Clicks
from streams.console.desk import Desk
from streams.console.flow import LATENCIES_KEPT, Flow, Placed
from streams.console.lanes import LANES_SHOWN, History, lane_states, shown
from streams.console.people import Found, People
from streams.console.refused import KINDS_MAX, Refused
from streams.console.tails import BEHIND_MAX, Tail, Tails
from streams.console.tastes import Vocabulary
from streams.console.why import Judged
from streams.feeds.catalogue import entry_of
from streams.lag.arithmetic import Status
from streams.lag.board import _sum
from streams.settings import Settings
from streams.wire import Decision, encode_json
from tests.builders import START_MS, Record, ad
from tests.unit.consoles import group, letter, outcome, partition
from tests.unit.test_console_alarms import news

TOPICS = ("ad-impressions", "clicks")


def placed(user: str, time_ms: int = START_MS, **fields: Any) -> Placed:
    told: dict[str, Any] = {"placement_id": f"p-{user}", "arm": "engine", "model": "m"}
    return Placed(user_id=user, time_ms=time_ms, **(told | fields))


def test_latency_percentiles_are_of_the_newest_placements_and_rates_of_the_last_seconds() -> None:
    flow = Flow(2)
    flow.take(1, [placed("a")] * 600, [START_MS + at for at in range(600)])
    first = flow.tick(1_000)
    newest = np.arange(600 - LATENCIES_KEPT, 600)
    assert (first[1].p50_ms, first[1].p99_ms) == tuple(np.percentile(newest, [50, 99]).round(1))
    assert (first[0].placements, first[0].p50_ms) == (0, None)
    flow.take(1, [placed("a")] * 50, [START_MS] * 50)
    assert flow.tick(6_000)[1].placements_per_s == 10.0


def test_a_placement_of_no_time_is_malformed_and_the_console_goes_on() -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "placements"]
    value = encode_json({"placement_id": "p", "user_id": "u", "arm": "a", "model": "m", "time_ms": START_MS})
    for time_ms in (b"9" * 400, b"-1"):
        tail.take([Record("placements", 0, 0, START_MS, b"u", value.replace(str(START_MS).encode(), time_ms))])
    tail.take([Record("placements", 0, 2, START_MS, b"u", value)])
    assert desk.malformed == 2


def test_placements_in_partitions_that_clicks_do_not_have_are_of_no_lane_and_the_console_goes_on() -> None:
    """As where clicks were made anew with fewer, and what was placed before is there."""
    desk = Desk(Settings(), 4)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "placements"]
    for lane in (3, 4):
        value = encode_json(placed(f"of-{lane}"))
        tail.take([Record("placements", lane, 0, START_MS, b"u", value)])
    snapshot = desk.tick(news(group()), START_MS, caught_up=True, skipped=0)
    assert [lane.placements for lane in snapshot.lanes] == [0, 0, 0, 1]
    assert snapshot.people == ["of-4", "of-3"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, (2**63, 10**400, -1)) for name in ("shown_ms", "known_ms", "ends_ms")),
        *((name, (10**308, 2, -1)) for name in ("predicted", "attention", "shadow_predicted")),
    ],
)
def test_an_outcome_of_no_time_or_chance_is_malformed_and_what_came_with_it_is_counted(
    name: str, wrong: tuple[int, ...]
) -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "outcomes"]
    value = encode_json(outcome(**{name: 4_711}))
    told = [encode_json(outcome()), *(value.replace(b"4711", b"%d" % each) for each in wrong)]
    tail.take([Record("outcomes", 0, at, START_MS, None, one) for at, one in enumerate([*told, told[0]])])
    snapshot = desk.tick(news(group()), START_MS, caught_up=True, skipped=0)
    assert (snapshot.malformed, [arm.impressions for arm in snapshot.arms]) == (3, [2])


def test_what_was_there_before_the_console_is_no_rate() -> None:
    flow = Flow(1)
    for second in range(3):
        flow.take(0, [placed("a")] * 2_000, [START_MS] * 2_000)
        assert flow.tick(1_000 * second, caught_up=False)[0].placements_per_s is None
    flow.take(0, [placed("a")] * 1_000, [START_MS] * 1_000)
    assert flow.tick(3_000)[0].placements_per_s == 0.0, "its last part was read before the first look after it"
    flow.take(0, [placed("a")] * 30, [START_MS] * 30)
    assert flow.tick(4_000)[0].placements_per_s == 30.0
    assert flow.tick(5_000)[0].placements == 7_030


def test_a_clock_that_was_set_back_makes_no_rate_of_all_that_was_there_before() -> None:
    flow = Flow(1)
    rates = []
    for now_ms in (3_600_000, 3_601_000, 3_602_000, 1_000, 2_000, 2_000, 3_000):
        rates.append(flow.tick(now_ms)[0].placements_per_s)
        flow.take(0, [placed("a")] * 100, [START_MS] * 100)
    assert rates == [0.0, 100.0, 100.0, 0.0, 100.0, 0.0, 100.0]


def test_people_are_bounded_the_newest_stay_and_the_forgotten_go_at_once() -> None:
    people = People(people_max=3)
    for user in ("a", "b", "c", "a", "d"):
        people.add(Found(placed(user), 0))
    assert people.recent() == ["d", "a", "c"]
    assert people.find("b") is None
    people.forget("a")
    assert people.find("a") is None
    people.add(Found(placed("e", context_only=True), 0))
    assert "e" not in people.recent()  # there is no receipt to tell why


def test_a_tombstone_between_two_placements_of_one_read_forgets_the_first_alone() -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "placements"]
    value = msgspec.json.encode(placed("a"))
    tail.take([Record("placements", 0, 0, START_MS, b"a", value), Record("placements", 0, 1, START_MS, b"a", None)])
    assert desk.people.find("a") is None


class Behind:
    """A consumer that stands at the begin of every partition, and knows their ends."""

    def __init__(self, ends: Mapping[int, int]) -> None:
        self.ends, self.sought = ends, dict[TopicPartition, int]()

    async def position(self, _partition: TopicPartition) -> int:
        return 0

    def highwater(self, partition: TopicPartition) -> int:
        return self.ends[partition.partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought[partition] = offset


def jump(*tails: Tail) -> dict[TopicPartition, int]:
    """Let the reader of ``tails`` find that it is too far behind in partition 0, and not in 1; where it went to."""
    consumer: Any = Behind({0: 2 * BEHIND_MAX, 1: BEHIND_MAX})

    async def scenario() -> None:
        compute = Compute()
        partitions = [TopicPartition(tail.topic, number) for tail in tails for number in (0, 1)]
        await Tails("127.0.0.1:1", tails, compute)._keep_up(consumer, partitions)
        compute.stop()

    asyncio.run(scenario())
    return dict(consumer.sought)


def test_whoever_takes_a_topic_is_told_on_the_compute_thread_which_partition_was_jumped_in() -> None:
    told: list[tuple[int, bool]] = []

    def jumped(partition: int) -> None:
        told.append((partition, threading.current_thread() is threading.main_thread()))

    sought = jump(Tail("a", lambda _: None, 10, jumped), Tail("whole", lambda _: None), Tail("b", lambda _: None, 10))
    assert told == [(0, False)]
    assert sought == {TopicPartition(topic, 0): 2 * BEHIND_MAX - 10 for topic in ("a", "b")}


def test_people_of_a_lane_whose_tombstones_were_jumped_over_are_known_no_more() -> None:
    desk = Desk(Settings(), 2)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "placements"]
    for lane, user in enumerate("ab"):
        tail.take([Record("placements", lane, 0, START_MS, user.encode(), msgspec.json.encode(placed(user)))])
    jump(tail)
    assert desk.people.recent() == ["b"]


def test_after_a_jump_no_outcome_is_counted_whose_clicks_may_have_been_jumped_over() -> None:
    desk = Desk(Settings(), 2)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "outcomes"]

    def known(lane: int, shown_ms: int, known_ms: int, *, clicked: bool = False) -> None:
        then_ms = START_MS + shown_ms
        told = outcome(clicked=clicked, shown_ms=then_ms, known_ms=START_MS + known_ms, ends_ms=then_ms + 100)
        tail.take([Record("outcomes", lane, 0, START_MS, b"", encode_json(told))])

    for lane in (0, 1):
        known(lane, 0, 0)
        known(lane, 10, 20, clicked=True)  # waits for its window's end
    jump(tail)
    for lane in (0, 1):
        known(lane, 950, 1_050)  # its clicks may have come at 960
        known(lane, 1_050, 1_150)
    (arm,) = desk._clicks.arms()
    assert (arm.impressions, arm.clicks) == (2 + 4, 1)


def test_an_arms_interval_is_wilsons_and_its_story_is_whole_and_bounded() -> None:
    clicks = Clicks()
    clicks.take(0, [outcome(clicked=at % 4 == 0) for at in range(10_000)])
    (arm,) = clicks.arms()
    assert (arm.impressions, arm.clicks) == (10_000, 2_500)
    assert (arm.low, arm.high) == wilson(2_500, 10_000)
    assert POINTS // 2 <= len(arm.lows) <= POINTS
    widths = [high - low for low, high in zip(arm.lows, arm.highs, strict=True)]
    assert widths[0] > 2 * widths[-1]


def test_of_arms_those_that_have_ended_make_room_and_the_others_keep_their_counts() -> None:
    clicks = Clicks()
    for at in range(ARMS_MAX + 3):
        clicks.take(0, [outcome(arm="control"), outcome(arm="engine"), outcome(arm=f"trial-{at:02}")])
    told = {arm.arm: arm.impressions for arm in clicks.arms()}
    assert (len(told), told["control"], told["engine"]) == (ARMS_MAX, ARMS_MAX + 3, ARMS_MAX + 3)
    assert [name for name in told if name[0] == "t"] == [f"trial-{at:02}" for at in range(5, ARMS_MAX + 3)]


def test_of_models_those_with_the_newest_outcomes_are_kept_and_the_serving_one_is_first() -> None:
    clicks = Clicks()
    for at in range(MODELS_MAX + 3):
        clicks.take(0, [outcome(model=f"m{at}", known_ms=START_MS + at * 2 * SERVES_MS)])
    told = [model.model for model in clicks.models(START_MS)]
    assert told == [f"m{at}" for at in range(MODELS_MAX + 2, 2, -1)]


def test_the_models_that_serve_keep_their_places_whichever_had_the_last_outcome() -> None:
    clicks = Clicks()
    told = []
    for at, model in enumerate(["before", "live", "canary", "live", "canary"]):
        clicks.take(0, [outcome(model=model, known_ms=START_MS + (at + SERVES_MS if at else 0))])
        told.append([each.model for each in clicks.models(START_MS)])
    assert told[2:] == [["canary", "live", "before"]] * 3


def test_a_model_is_told_with_and_without_the_click_layer() -> None:
    clicks = Clicks()
    clicks.take(0, [outcome(0.25, clicked=at % 4 == 0, attention=0.5) for at in range(2_000)])
    (model,) = clicks.models(START_MS)
    assert (model.layer.calibration, model.alone.calibration) == (1.0, 0.5)
    clicks.take(0, [])
    assert clicks.models(START_MS)[0].outcomes == 2_000


def test_dead_letters_are_counted_by_kind_bounded_and_never_show_what_was_refused() -> None:
    refused = Refused()
    refused.take([letter(at_ms=START_MS - 120_000), letter(), letter("Other")])
    other, decode = refused.told(START_MS)
    assert (other.error, decode.count, decode.recent) == ("Other", 2, 1)
    assert len(decode.message) < 300
    assert b"secret" not in msgspec.json.encode(refused.told(START_MS))
    refused.take([letter(f"E{at}") for at in range(KINDS_MAX + 5)])
    assert len(refused.told(START_MS)) == KINDS_MAX


def test_an_interest_vector_is_told_by_the_words_it_was_made_of() -> None:
    catalogue = Catalogue()
    catalogue.upsert([entry_of(ad(f"ad-{n}", category=f"shelf-{n}", brand=f"brand-{n}")) for n in range(40)])
    told = Vocabulary(catalogue).tastes(catalogue.features[7].copy())
    assert {(taste.kind, taste.word) for taste in told[:2]} == {("category", "shelf-7"), ("brand", "brand-7")}
    assert Vocabulary(catalogue).tastes(np.zeros(64, dtype=np.float32)) == []


def test_of_a_large_catalogue_the_words_are_those_of_active_ads_that_start_last_whatever_their_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.console.tastes.ADS_READ", 2)
    catalogue = Catalogue()
    starts = {"late": 9, "old": 1, "later": 10, "older": 0, "gone": 99}
    catalogue.upsert([entry_of(ad(name, category=name, start_ms=ms)) for name, ms in starts.items()])
    catalogue.withdraw(["gone"])
    words = Vocabulary(catalogue)
    assert {taste.word for features in catalogue.features for taste in words.tastes(features)} >= {"late", "later"}
    assert not {word for _, word in words._words} & {"old", "older", "gone"}


def receipt(worth: list[float], fates: list[int], **fields: Any) -> Decision:
    chosen = sorted((fate, at) for at, fate in enumerate(fates) if fate >= Fate.WON)
    told: dict[str, Any] = {
        "placement_id": "p", "user_id": "u", "time_ms": 1, "lane": 0, "offsets": (0, 0), "versions": {},
        "arm": "engine", "seed": 1, "policy": {"temperature": 0.0},
        "row": b"", "revisions": b"", "weights": b"", "lifts": b"",
        "pctr": np.full(len(worth), 0.1, dtype=np.float32).tobytes(), "propensities": (), "placement": b"",
        "candidates": np.arange(len(worth), dtype=np.uint64).tobytes(),
        "bids_micros": np.array([10 * each for each in worth], dtype=np.int64).tobytes(),
        "worth": np.array(worth, dtype=np.float32).tobytes(), "fates": bytes(fates),
    }  # fmt: skip
    return Decision(**(told | {"chosen": tuple(at for _, at in chosen)} | fields))


def test_who_lost_is_told_by_its_fate_and_where_it_was_outbid_by_how_the_slots_were_drawn() -> None:
    fates = [Fate.WON + 1, Fate.WON, Fate.OUTBID, Fate.OUTBID, Fate.CAPPED, Fate.BELOW_RESERVE, Fate.KEPT_APART]
    worth = [2.0, 9.0, 2.0, 1.0, 50.0, 0.5, 3.0]
    judged = Judged.of(receipt(worth, fates))
    assert [judged.reason(at) for at in range(2, 7)] == ["tie", "ecpm", "capped", "below_reserve", "kept_apart"]
    assert judged.lost() == [4, 6, 2, 3, 5]
    assert judged.chances().tolist() == [0, 1, 0, 0, 0, 0, 0]  # greedy; the capped one never stood a chance
    drawn = Judged.of(receipt(worth, fates, policy={"temperature": 1.0}))
    assert (drawn.reason(2), drawn.reason(3), drawn.chances().sum()) == ("draw", "ecpm", pytest.approx(1))
    sampled = Judged.of(receipt(worth, fates, spreads=np.full(7, 0.3, dtype=np.float32).tobytes()))
    assert (sampled.reason(2), sampled.reason(3), sampled.chances().sum()) == ("draw", "ecpm", pytest.approx(1))
    assert 0 < sampled.chances()[6] < sampled.chances()[1] < 1
    control = Judged.of(receipt(worth, fates, arm="control"))
    assert control.reason(2) == "random"
    assert set(control.chances().tolist()) == {0.0, 0.2}


def test_who_was_worth_more_than_the_last_and_got_no_slot_is_told_by_the_arrangement_and_not_by_a_tie() -> None:
    fates = [Fate.WON, Fate.OUTBID, Fate.OUTBID, Fate.WON + 1, Fate.OUTBID]  # the last slot was given by a rule
    worth = [9.0, 8.0, 2.0, 2.0, 1.0]
    arranged = Judged.of(receipt(worth, fates))
    assert [arranged.reason(at) for at in arranged.lost()] == ["arranged", "tie", "ecpm"]
    drawn = Judged.of(receipt(worth, fates, policy={"temperature": 1.0}))
    assert [drawn.reason(at) for at in drawn.lost()] == ["draw", "draw", "ecpm"]


def test_an_older_receipt_without_fates_is_ranked_by_bid_times_click_rate() -> None:
    older = receipt([4.0, 3.0, 2.0], [Fate.WON, 0, 0])
    judged = Judged.of(msgspec.structs.replace(older, worth=b"", fates=b""))
    assert judged.worth == pytest.approx([4.0, 3.0, 2.0])
    assert (judged.lost(), judged.reason(1)) == ([1, 2], "ecpm")


def test_a_lane_is_the_worse_of_its_two_partitions_and_of_many_lanes_the_worst_are_shown() -> None:
    both = group(
        partition(0),
        partition(0, Status.STALL, "ad-impressions", time_lag_s=9.0, stuck_s=12.0),
        partition(0, topic="x"),
    )
    flows = Flow(100).tick(0)
    states = lane_states(both, TOPICS, flows)
    assert (states[0].status, states[0].behind, states[0].time_lag_s, states[0].end) == (Status.STALL, 20, 9.0, 200)
    assert states[1].status is Status.UNKNOWN
    assert shown(states)[0].lane == 0
    history = History(100)
    history.add(states)
    assert history.of(states[:1])[0]["time_lag_s"] == [9.0]


def test_what_a_lane_is_behind_is_unknown_where_that_of_one_of_its_partitions_is() -> None:
    unknown = partition(0, Status.UNKNOWN, "ad-impressions", committed=None, lag=None, time_lag_s=None)
    (state,) = lane_states(group(partition(0), unknown), TOPICS, Flow(1).tick(0))
    assert (state.behind, state.time_lag_s) == (None, 0.5)


def test_a_lanes_time_lag_is_at_least_so_much_where_that_of_the_older_partition_is_as_in_salience_lag() -> None:
    for older, newer in ((False, True), (True, False)):
        lags = [
            partition(0, time_lag_s=100.0, time_lag_at_least=older),
            partition(0, topic="ad-impressions", time_lag_s=5.0, time_lag_at_least=newer),
        ]
        (state,), total = lane_states(group(*lags), TOPICS, Flow(1).tick(0)), _sum(lags)
        told = [(each.time_lag_s, each.time_lag_at_least) for each in (state, total)]
        assert told == [(100.0, older)] * 2


def test_of_many_lanes_those_that_are_well_stay_on_the_page_until_worse_ones_want_their_place() -> None:
    def shown_now(lags: list[float], before: list[int]) -> list[int]:
        of = group(*(partition(lane, time_lag_s=lag) for lane, lag in enumerate(lags)))
        return [state.lane for state in shown(lane_states(of, TOPICS, Flow(100).tick(0)), before)]

    before = shown_now([0.01 * lane for lane in range(100)], [])
    assert sorted(before) == list(range(100 - LANES_SHOWN, 100))
    assert sorted(shown_now([0.01 * (100 - lane) for lane in range(100)], before)) == sorted(before)
    late = shown_now([9.0, *(0.01 * lane for lane in range(98)), 6.0], before)
    assert (late[:2], len(late)) == ([0, 99], LANES_SHOWN)
    assert set(late) - set(before) == {0}
