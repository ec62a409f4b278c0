"""What a slice sets aside, sends on, forgets and counts: nothing that comes in is lost sight of."""

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from scoring.events import EVENT, FILTERED, Source
from scoring.rows import ROW
from scoring.update import Applied
from streams.conservation import account
from streams.decode import Decoded
from streams.feeds.refused_ads import RefusedAds
from streams.identity import partitioner
from streams.lanes.clicks import LaneClicks
from streams.laps import Laps
from streams.message import Message
from streams.metrics.worker import Metrics
from streams.refusal import Refusal
from streams.step import EXPIRY_CHECK_MS, Step
from streams.wire import Outcome
from tests.builders import START_MS, Record, click, impression, record, records
from tests.unit.slices import (
    IDLE_TTL_MS,
    NOW_MS,
    TOLERANCE_MS,
    keys,
    log_records,
    new_state,
    placements,
    run,
    slice_of,
    step_of,
)


@pytest.fixture
def step() -> Step:
    return step_of()


# --- what does not fit ---------------------------------------------------------------------------------------


def test_a_dead_letter_keeps_the_record_and_says_where_from_and_why(step: Step) -> None:
    bad = Record("clicks", 3, 17, START_MS - 5, b"some key", b'{"half', [("ce_id", b"7")])

    (letter,) = run(step, new_state(), [bad]).messages["dead-letters"]

    assert (letter.key, letter.value, letter.timestamp_ms) == (b"some key", b'{"half', None)
    headers = dict(letter.headers)
    assert headers["ce_id"] == b"7"
    assert headers["salience.topic"] == b"clicks"
    assert headers["salience.partition"] == b"3"
    assert headers["salience.offset"] == b"17"
    assert headers["salience.timestamp_ms"] == str(START_MS - 5).encode()
    assert headers["salience.stage"] == b"decode"
    assert headers["salience.error"] == b"DecodeError"
    assert b"ends unfinished at byte 6" in (headers["salience.message"] or b"")


def test_a_tombstone_on_an_input_is_a_dead_letter_and_stays_one(step: Step) -> None:
    (letter,) = run(step, new_state(), [Record("clicks", 0, 0, START_MS, b"a", None)]).messages["dead-letters"]

    assert letter.value is None


def test_an_event_beyond_the_clock_and_the_tolerance_is_a_dead_letter(step: Step) -> None:
    given = [
        record(click("a", time_ms=NOW_MS + TOLERANCE_MS), 0),
        record(click("b", time_ms=NOW_MS + TOLERANCE_MS + 1), 1),
    ]

    effects = run(step, new_state(), given)

    assert keys(effects.messages["dead-letters"]) == [b"b"]
    assert set(placements(effects)) == {"a"}


def test_misplaced_records_are_sent_to_their_own_partition_as_they_came() -> None:
    partition_of = partitioner(4)
    users = [f"user-{n}" for n in range(40)]
    here = [user for user in users if partition_of(user.encode()) == 1]
    elsewhere = [user for user in users if user not in here]
    assert here
    assert elsewhere
    told = records([event(user) for user in users for event in (impression, click)], partition=1)
    given = [replace(each, topic=f"a-prefix-{each.topic}") for each in told]
    state = new_state(lane=1)

    effects = run(step_of(partition_of), state, given)

    assert {user for user in state.store.users if user} == {user.encode() for user in here}
    assert effects.counts["rerouted"] == 2 * len(elsewhere)
    assert [effects.tally[source, "rerouted"] for source in Source] == 2 * [len(elsewhere)]
    sent = {(message.key, topic): message for (topic, _), messages in effects.rerouted.items() for message in messages}
    for original in given:
        if (original.key or b"").decode() in here:
            continue
        message = sent.pop((original.key, original.topic))
        assert (message.value, message.timestamp_ms) == (original.value, original.timestamp)
        assert message.headers == (("salience.rerouted", b"1"),)
    assert not sent
    assert all(partition_of(m.key or b"") == lane != 1 for (_, lane), ms in effects.rerouted.items() for m in ms)


def test_nothing_comes_in_that_is_not_accounted_for() -> None:
    step = step_of(lambda key: 0 if key != b"user-3" else 2)
    state = new_state()
    given = log_records(400)
    retried = [
        Record(each.topic, 0, 10_000 + n, each.timestamp, each.key, each.value) for n, each in enumerate(given[-3:])
    ]
    broken = [Record("clicks", 0, 20_000 + n, START_MS, b"x", b"?") for n in range(5)]
    total: Counter[str] = Counter()

    for taken in (given[:150], given[100:250], given[250:], [*retried, *broken]):
        effects = run(step, state, taken)
        total += effects.counts
        counts = effects.counts
        became = [counts[name] for name in ("applied", "duplicate", "replayed", "dead", "rerouted")]
        assert counts["events_in"] == sum(became) == len(taken)
        assert effects.lane_row.totals == dict(state.totals)

    assert all(total[name] > 0 for name in ("applied", "duplicate", "replayed", "dead", "rerouted", "unknown_ads"))
    assert {name: state.totals[name] for name in total} == dict(total)


def test_what_several_rules_have_filtered_from_one_slice_is_accounted_for() -> None:
    count = len(FILTERED)
    events, nothing = np.zeros(count, dtype=EVENT), np.zeros(count, dtype=np.bool_)
    applied = Applied.of(events, np.array(FILTERED, dtype=np.uint8), nothing, 0)
    counts = account(count, Decoded(events, np.arange(count)), applied)
    assert (counts["filtered"], counts["unaccounted"]) == (count, 0)


# --- users who left ------------------------------------------------------------------------------------------


def test_idle_users_get_tombstones_and_are_forgotten(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("idle"), click("busy")]))
    later_ms = START_MS + IDLE_TTL_MS + EXPIRY_CHECK_MS

    effects = run(step, state, [record(click("busy", time_ms=later_ms), 2)], now_ms=later_ms)

    gone = Message(b"idle", None)
    assert effects.messages["placements"][-1] == effects.messages["state-changelog"][-1] == gone
    assert [keys(effects.messages[name]).count(b"idle") for name in ("placements", "state-changelog", "decisions")] == [
        1,
        1,
        0,
    ]
    assert effects.counts["expired"] == 1
    assert state.store.find(b"idle") == -1
    assert state.store.find(b"busy") >= 0


def test_a_user_is_kept_to_the_end_of_the_time_and_looked_for_once_an_hour(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("idle")]))
    last_ms = START_MS + IDLE_TTL_MS
    next_look_ms = (last_ms // EXPIRY_CHECK_MS + 1) * EXPIRY_CHECK_MS
    moments = [last_ms, last_ms + 1, next_look_ms - 1, next_look_ms, next_look_ms + 1]

    expired = []
    for offset, moment in enumerate(moments, 1):
        effects = run(step, state, [record(click("busy", time_ms=moment), offset)], now_ms=moment)
        expired.append(effects.counts["expired"])

    assert expired == [0, 0, 0, 1, 0]


def test_one_whose_late_news_is_older_than_people_are_kept_is_forgotten_in_the_same_slice_with_no_placement(
    step: Step,
) -> None:
    """Their row is gone, and with it the day on which somebody would remove that placement."""
    state, hourly = new_state(), replace(step, idle_ttl_ms=EXPIRY_CHECK_MS)
    later_ms = START_MS + 3 * EXPIRY_CHECK_MS
    taken = [record(click("busy", time_ms=later_ms)), record(click("late", time_ms=START_MS), 1)]

    effects = run(hourly, state, taken, now_ms=later_ms)

    assert (effects.counts["applied"], effects.counts["expired"]) == (2, 1)
    assert placements(effects).keys() == {"busy"}
    assert effects.messages["placements"][-1] == Message(b"late", None)
    assert keys(effects.messages["decisions"]) == [b"busy"]
    assert b"late" not in state.store


def test_one_who_comes_back_after_being_forgotten_begins_anew(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("a", "ad-1"), click("a", "ad-2", START_MS + 1)]))
    later_ms = START_MS + IDLE_TTL_MS + 2 * EXPIRY_CHECK_MS
    run(step, state, [record(click("b", time_ms=later_ms), 2)], now_ms=later_ms)

    run(step, state, [record(click("a", "ad-3", later_ms + 1), 3)], now_ms=later_ms)

    row: Any = state.store.rows[state.store.find(b"a")]
    assert row["clicks"] == 1
    assert np.count_nonzero(row["ring_ad"]) == 1
    assert ROW.itemsize == len(row.tobytes())


def test_what_a_slice_tells_prometheus_is_what_it_did(step: Step) -> None:
    taken = [*log_records(), record(click(), 10_000, value=b"{poison", timestamp=NOW_MS)]
    metrics, laps = Metrics(), Laps()
    effects = step.run(new_state(), slice_of(taken), NOW_MS, laps)

    metrics.committed(slice_of(taken), effects, laps.times, NOW_MS + 1_000)

    lines = generate_latest(metrics.registry).decode().splitlines()
    told = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    for topic in ("ad-impressions", "clicks"):
        taken_of_it = sum(each.topic == topic for each in taken)
        assert sum(n for name, n in told.items() if f'topic="{topic}"' in name and "events" in name) == taken_of_it
    assert told['salience_events_total{outcome="dead",topic="clicks"}'] == 1
    assert told['salience_events_total{outcome="applied",topic="clicks"}'] > 0
    assert told["salience_slice_records_sum"] == told["salience_event_to_placement_seconds_count"] == len(taken)
    oldest_s = max(NOW_MS + 1_000 - each.timestamp for each in taken) / 1000
    assert told["salience_event_to_placement_seconds_sum"] <= oldest_s * len(taken)
    assert [stage for stage, _ in laps.times] == ["wait", "decode", "apply", "place", "encode"]
    assert told['salience_stage_seconds_count{stage="place"}'] == 1
    published = len(placements(effects))
    assert told['salience_produced_records_total{topic="placements"}'] == published
    assert sum(n for name, n in told.items() if name.startswith("salience_placements_total")) == published
    known = [told[f'salience_impression_outcomes_total{{clicked="{clicked}"}}'] for clicked in ("false", "true")]
    assert known == [np.sum(effects.observed.outcomes["clicked"] == 0), np.sum(effects.observed.outcomes["clicked"])]
    assert len(effects.observed.outcomes) == len(effects.messages["outcomes"]) > 0
    assert told["salience_click_windows_cut_total"] == 0


def test_windows_that_ended_early_are_told(step: Step) -> None:
    metrics = Metrics()
    taken, state = slice_of(log_records()), new_state()
    effects = step.run(state, taken, NOW_MS, Laps())
    for cut in (2, 3):
        metrics.committed(taken, replace(effects, observed=replace(effects.observed, cut=cut)), [], NOW_MS)
    assert b"salience_click_windows_cut_total 5.0" in generate_latest(metrics.registry)


@pytest.mark.parametrize("known", [(1, 2, 3), ()])
def test_an_outcome_of_an_ad_that_the_catalogue_has_lost_names_no_other_and_is_counted(known: tuple[int, ...]) -> None:
    first, state, metrics = step_of(), new_state(), Metrics()
    run(first, state, records([impression("a", "ad-7", START_MS), impression("a", "ad-2", START_MS)]))
    moved = new_state()  # to a worker that has started since the ads went
    moved.clicks = LaneClicks.restore(first.learning, state.clicks.parts())
    taken = [record(impression("b", "ad-1", START_MS + 700_000), 5)]

    effects = run(step_of(ads=known), moved, taken)

    assert len(effects.observed.outcomes) == 2
    told = [msgspec.json.decode(each.value or b"", type=Outcome).ad_id for each in effects.messages["outcomes"]]
    assert told == ["ad-2"] * (2 in known)
    metrics.committed(slice_of(taken), effects, [], NOW_MS)
    unnamed = 2 - len(told)
    assert f"salience_unnamed_outcomes_total {unnamed:.1f}".encode() in generate_latest(metrics.registry)


def test_refused_ads_are_letters_of_lane_0_once_and_no_records_of_its_own() -> None:
    refused = RefusedAds()
    refused.refuse(Record("ads", 0, 6, START_MS, b"ad-1", b"{"), Refusal("ValueError", "no"))
    step = step_of(refused=refused)
    state = new_state(lane=0)
    state.ads_id = "ads-1"

    first, second = run(step, state, []), run(step, state, records([click("a")]))

    (told,) = first.messages["dead-letters"]
    assert (told.key, told.value, dict(told.headers)["salience.stage"]) == (b"ad-1", b"{", b"catalogue")
    assert (first.counts["refused_ads"], first.counts["events_in"], first.counts["dead"]) == (1, 0, 0)
    assert (first.lane_row.ads_next, second.lane_row.ads_next) == (7, 7)
    assert second.lane_row.ads_id == "ads-1"
    assert second.messages["dead-letters"] == []
    assert run(step, new_state(lane=1), []).messages["dead-letters"] == []
