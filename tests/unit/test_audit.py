"""The audit finds what it is there to find: a check that cannot fail would prove nothing."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scoring.rows import ROW
from streams import audit
from streams.asyncapi_examples import OUTCOME
from streams.audit import Expected, Seen, State, compare, pure_core
from streams.identity import partitioner
from streams.layer_audit import Layers
from streams.logs import Log
from streams.placement_ids import placement_id
from streams.replay_check import Plan, report_of
from streams.wire import RESERVED, LaneRow
from tests.builders import START_MS, Record, ad, click, impression
from tests.logs import busy_log

LANES = 3
PLAN = Plan("nowhere:1", "t-", LANES, "exactly_once")


@pytest.fixture(scope="module")
def log() -> Log:
    return busy_log(1, events=1_000)


@pytest.fixture(scope="module")
def expected(log: Log) -> Expected:
    return pure_core(log, LANES)


def test_the_busy_log_has_what_it_is_for(log: Log, expected: Expected) -> None:
    times = Counter(event.time_ms for event in log.events)

    assert expected.totals["events_in"] == len(log.events)
    assert expected.totals["applied"] + expected.totals["duplicate"] == len(log.events)
    assert expected.totals["duplicate"] == expected.repeated > 20
    assert expected.totals["unknown_ads"] > 20
    assert max(times.values()) > 3
    assert Counter(event.user_id for event in log.events).most_common(1)[0][1] > 100


def test_the_core_counts_a_log_that_can_be_counted_by_hand() -> None:
    shown = impression("u", "a", START_MS)
    log = Log([ad("a")], [shown, shown, click("u", "a", START_MS + 2_000, impression_time_ms=START_MS)])

    state, totals = (result := pure_core(log, 2)).state, result.totals

    (row,) = state.rows
    assert state.users == [b"u"]
    assert (row["impressions"], row["clicks"]) == (1, 1)
    assert row["offset"].tolist() == [1, 0]
    assert {name: count for name, count in totals.items() if count} == {"events_in": 3, "applied": 2, "duplicate": 1}


def test_the_state_does_not_depend_on_where_the_stream_is_cut(
    log: Log, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    for events in (1, 17, 10_000):
        monkeypatch.setattr(audit, "EVENTS_PER_APPLY", events)
        again = pure_core(log, LANES)

        assert compare(expected.state, again.state) == []
        assert again.totals == expected.totals


def test_users_do_not_depend_on_the_number_of_lanes_but_their_offsets_do(log: Log, expected: Expected) -> None:
    other = pure_core(log, LANES + 1)

    assert compare(expected.state, other.state, offsets=False) == []
    assert {difference.field for difference in compare(expected.state, other.state)} == {"offset"}


def test_a_lost_event_is_found(log: Log, expected: Expected) -> None:
    lost = Log(log.ads, [*log.events[:500], *log.events[501:]])

    assert compare(expected.state, pure_core(lost, LANES).state, offsets=False)


def test_two_events_in_the_wrong_order_are_found() -> None:
    first = impression("u", "a", START_MS, surface="tab-1")
    second = impression("u", "b", START_MS + 1, surface="tab-2")
    there, back = (pure_core(Log([], events), 1).state for events in ([first, second], [second, first]))

    assert {difference.field for difference in compare(there, back, offsets=False)} >= {"surface", "seen"}


@pytest.mark.parametrize("field", [name for name in ROW.names or () if name not in ("version", "free")])
def test_a_change_of_any_field_is_found_and_told(expected: Expected, field: str) -> None:
    user = expected.state.users[7]
    rows = expected.state.rows.copy()
    column = rows[field].reshape(len(rows), -1)
    column[7, -1] += 1
    (difference,) = compare(expected.state, State(expected.state.users, rows))

    assert (difference.user, difference.field) == (user.decode(), field)
    assert difference.expected == expected.state.rows[field][7].tolist()
    assert difference.got == rows[field][7].tolist()


@pytest.mark.parametrize(("by", "equal"), [(5e-6, True), (2e-5, False), (np.nan, False)])
def test_sums_of_floats_may_differ_by_rounding_and_no_more(expected: Expected, by: float, equal: bool) -> None:
    rows = expected.state.rows.copy()
    rows["interest"][3, 0, 0] = 0.25
    other = rows.copy()
    other["interest"][3, 0, 0] += by

    assert (compare(State(expected.state.users, rows), State(expected.state.users, other)) == []) is equal


def test_a_missing_and_an_unexpected_user_are_told(expected: Expected) -> None:
    users, rows = expected.state.users, expected.state.rows
    fewer = State(users[1:], rows[1:])

    (missing,) = compare(expected.state, fewer)
    (unexpected,) = compare(fewer, expected.state)

    assert (missing.user, missing.expected, missing.got) == (users[0].decode(), "a row", "none")
    assert (unexpected.user, unexpected.expected, unexpected.got) == (users[0].decode(), "none", "a row")


def test_of_many_differences_the_first_are_told(expected: Expected) -> None:
    nobody = State([], np.zeros(0, dtype=ROW))

    assert len(compare(expected.state, nobody)) == audit.DIFFERENCES_TOLD


def seen_of(expected: Expected) -> Seen:
    """What a reader sees after a run that went well: all in lane 0's totals, a placement for each user."""
    partition_of = partitioner(LANES)
    offsets = expected.state.rows["offset"].tolist()
    placed = {
        user: placement_id(partition_of(user), user, (first, second))
        for user, (first, second) in zip(expected.state.users, offsets, strict=True)
    }
    lane = LaneRow(
        version=1, from_offsets=(0, 0), next_offsets=(1, 1), records=1, order=b"", watermarks_ms=(0, 0), stream_ms=0,
        topic_ids=("", ""), totals=dict(expected.totals),
        lanes=4,
    )  # fmt: skip
    return Seen(expected.state, {0: lane}, 1, Counter(placed.values()), placed, [])


def report(expected: Expected, seen: Seen) -> Any:
    return report_of(PLAN, expected, seen, filled_per_s=1.0, seconds=2.0)


def test_a_run_that_went_well_is_ok(log: Log, expected: Expected) -> None:
    result = report(expected, seen_of(expected))

    assert result.ok
    assert (result.events, result.users) == (len(log.events), len(expected.state.users))
    assert result.events_per_s == len(log.events) / 2


def test_a_run_of_nothing_is_not_ok() -> None:
    nothing = pure_core(Log([], []), LANES)

    assert not report(nothing, seen_of(nothing)).ok


def test_a_user_without_a_placement_is_not_ok(expected: Expected) -> None:
    seen = seen_of(expected)
    del seen.placed[expected.state.users[0]]

    result = report(expected, seen)

    assert (result.ok, result.users_without_placement) == (False, 1)


def test_a_placement_older_than_its_users_row_is_not_ok(expected: Expected) -> None:
    seen = seen_of(expected)
    user = expected.state.users[0]
    seen.placed[user] = placement_id(partitioner(LANES)(user), user, (0, -1))

    result = report(expected, seen)

    assert (result.ok, result.placements_stale) == (False, 1)


def test_a_placement_of_context_alone_follows_from_no_row_and_takes_the_place_of_one_that_does() -> None:
    seen = Seen()
    audit._placed(seen, b"u", audit._PlacementId("remembered"))
    assert seen.stale(LANES) == [b"u"]
    audit._placed(seen, b"u", audit._PlacementId("guest", context_only=True))
    assert seen.stale(LANES) == []
    assert set(seen.placements) == {"remembered", "guest"}


def test_what_a_tombstone_has_removed_of_a_lanes_own_records_is_not_there_any_more() -> None:
    parts: dict[int, dict[bytes, bytes]] = {}
    told = [Record("state-changelog", 2, at, START_MS, RESERVED + b"x", value) for at, value in enumerate((b"1", None))]
    audit._read_changelog(Seen(), {}, parts, told)
    assert parts == {2: {}}


@pytest.mark.parametrize(("guarantee", "ok"), [("exactly_once", False), ("at_least_once", True)])
def test_a_doubled_placement_is_wrong_only_where_exactly_once_was_promised(
    expected: Expected, guarantee: str, ok: bool
) -> None:
    seen = seen_of(expected)
    seen.placements[next(iter(seen.placements))] += 1

    result = report_of(Plan("nowhere:1", "t-", LANES, guarantee), expected, seen, filled_per_s=1.0, seconds=2.0)

    assert (result.ok, result.placements_doubled) == (ok, 1)


@pytest.mark.parametrize(("guarantee", "ok"), [("exactly_once", False), ("at_least_once", True)])
def test_a_doubled_outcome_is_wrong_only_where_exactly_once_was_promised(
    expected: Expected, guarantee: str, ok: bool
) -> None:
    """Two people share event id, ad and millisecond: so much is no doubling."""
    core, seen = replace(expected, layers=Layers()), seen_of(expected)
    plan = Plan("nowhere:1", "t-", LANES, guarantee)
    for _ in range(2):
        core.layers.hear(OUTCOME)
        seen.layers.hear(OUTCOME)
    well = report_of(plan, core, seen, filled_per_s=1.0, seconds=2.0)
    assert (well.ok, well.outcomes_doubled) == (True, 0)

    seen.layers.hear(OUTCOME)
    doubled = report_of(plan, core, seen, filled_per_s=1.0, seconds=2.0)
    assert (doubled.ok, doubled.outcomes_doubled, doubled.predictions_equal) == (ok, 1, True)


def test_an_outcome_that_is_missing_makes_up_for_nothing_else(expected: Expected) -> None:
    core, seen = replace(expected, layers=Layers()), seen_of(expected)
    for heard in (core.layers, core.layers, seen.layers):
        heard.hear(OUTCOME)
    assert not report(core, seen).ok
    seen.dead.append(Record("dead-letters", 0, 0, START_MS, None, b""))
    assert not report(core, seen).ok


def test_an_event_counted_twice_is_not_ok(expected: Expected) -> None:
    seen = seen_of(expected)
    seen.lanes[0].totals["applied"] += 1

    assert not report(expected, seen).ok
