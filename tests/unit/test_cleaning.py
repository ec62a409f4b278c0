"""The rules at their bounds: full counts, a lane's time that stands before a row's, records that come again."""

import numpy as np
import pytest

from scoring.cleaning import COUNT_MAX, MINUTES_A_DAY, Rules, clean
from scoring.events import EVENT, Events, Kind, Outcome, Source
from scoring.rows import ROW, Rows
from scoring.units import MINUTE_MS
from tests.builders import START_MS

FIRST_MS = START_MS // (MINUTES_A_DAY * MINUTE_MS) * MINUTES_A_DAY * MINUTE_MS
"""A midnight."""
FULL = Rules(per_minute=(COUNT_MAX,) * 2, per_day=(COUNT_MAX,) * 2, unshown_per_day=COUNT_MAX)


def a_row() -> Rows:
    rows = np.zeros(1, dtype=ROW)
    rows["offset"] = -1
    return rows


def acts(count: int, at_ms: int = FIRST_MS, *, source: Source = Source.CLICK, first: int = 0) -> Events:
    """So many events of one user at one moment, of ads and with ids of their own."""
    out = np.zeros(count, dtype=EVENT)
    out["source"], out["kind"] = source, Kind.CLICKED if source is Source.CLICK else Kind.SHOWN
    out["time_ms"] = out["stream_ms"] = out["shown_ms"] = at_ms
    out["offset"] = first + np.arange(count)
    out["event"], out["ad"] = 1 + out["offset"], (1 + out["offset"].astype(np.uint64)) << np.uint64(32)
    return out


def outcomes(rows: Rows, events: Events, rules: Rules) -> list[Outcome]:
    return [Outcome(each) for each in clean(rows, events, rules).tolist()]


@pytest.mark.parametrize("source", Source)
def test_each_source_has_a_bound_of_its_own_that_is_reached_before_it_is_passed(source: Source) -> None:
    per_minute = Rules(per_minute=(3, 2))
    per_day = Rules(per_day=(3, 2))
    allowed = 3 if source is Source.IMPRESSION else 2
    for rules, beyond in ((per_minute, Outcome.BURST), (per_day, Outcome.BOT), (Rules(), Outcome.APPLIED)):
        found = outcomes(a_row(), acts(5, source=source), rules)
        assert found == [Outcome.APPLIED] * allowed + [beyond] * (5 - allowed)


def test_what_is_beyond_both_the_minutes_and_the_days_bound_is_a_burst() -> None:
    assert outcomes(a_row(), acts(2), Rules(per_minute=(1, 1), per_day=(1, 1))) == [Outcome.APPLIED, Outcome.BURST]


def test_a_count_that_is_full_stays_full_and_what_is_beyond_it_is_filtered() -> None:
    rows = a_row()
    rows["rate_minute"] = FIRST_MS // MINUTE_MS
    rows["minute_count"], rows["day_count"], rows["unshown"] = 0, COUNT_MAX - 1, COUNT_MAX - 1
    claims = acts(3)
    claims["answers"] = True
    assert outcomes(rows, claims[:1], FULL) == [Outcome.APPLIED]
    assert (rows["day_count"][0].tolist(), rows["unshown"].tolist()) == ([COUNT_MAX - 1, COUNT_MAX], [COUNT_MAX])
    rows["day_count"] = 0
    assert outcomes(rows, claims[1:2], FULL) == [Outcome.UNSHOWN]
    assert rows["unshown"].tolist() == [COUNT_MAX]
    rows["day_count"] = COUNT_MAX
    assert outcomes(rows, claims[2:], FULL) == [Outcome.BOT]
    assert rows["day_count"][0].tolist() == [COUNT_MAX] * 2
    rows["minute_count"], rows["day_count"] = COUNT_MAX, 0
    assert outcomes(rows, acts(1, first=9), FULL) == [Outcome.BURST]
    assert rows["minute_count"][0].tolist() == [COUNT_MAX] * 2


def test_while_the_lanes_time_stands_before_a_rows_its_events_count_in_the_rows_minute_and_day() -> None:
    rows, rules = a_row(), Rules(per_minute=(9, 2), per_day=(9, 3))
    assert outcomes(rows, acts(2, FIRST_MS), rules) == [Outcome.APPLIED] * 2
    before = acts(1, FIRST_MS - MINUTE_MS, first=2)
    assert outcomes(rows, before, rules) == [Outcome.BURST]
    assert rows["rate_minute"].tolist() == [FIRST_MS // MINUTE_MS]
    assert outcomes(rows, acts(1, FIRST_MS + MINUTE_MS, first=3), rules) == [Outcome.BOT]
    assert (rows["minute_count"][0].tolist(), rows["day_count"][0].tolist()) == ([0, 1], [0, 4])


def test_a_minute_and_a_day_that_begin_leave_nothing_of_the_ones_before_of_any_source() -> None:
    rows = a_row()
    for source in Source:
        clean(rows, acts(3, source=source), Rules())
    rows["unshown"] = 5
    clean(rows, acts(1, FIRST_MS + MINUTE_MS, first=3), Rules())
    assert (rows["minute_count"][0].tolist(), rows["day_count"][0].tolist()) == ([0, 1], [3, 4])
    assert rows["unshown"].tolist() == [5]
    clean(rows, acts(1, FIRST_MS + MINUTES_A_DAY * MINUTE_MS, first=4), Rules())
    assert (rows["minute_count"][0].tolist(), rows["day_count"][0].tolist()) == ([0, 1], [0, 1])
    assert rows["unshown"].tolist() == [0]


def test_a_record_that_was_applied_is_replayed_and_counts_in_no_rule_and_one_that_is_late_is_told_once() -> None:
    rows, rules = a_row(), Rules(late_ms=1_000)
    assert outcomes(rows, acts(3), rules) == [Outcome.APPLIED] * 3
    again = acts(4)
    again["event"] += 100  # offsets tell, not ids
    again["ad"] += 100
    assert outcomes(rows, again, rules) == [Outcome.REPLAYED] * 3 + [Outcome.APPLIED]
    assert rows["minute_count"][0].tolist() == [0, 4]
    late = acts(2, first=4)
    late["time_ms"] -= [1_001, 1_000]
    assert outcomes(rows, late, rules) == [Outcome.LATE, Outcome.APPLIED]
    assert outcomes(rows, late, rules) == [Outcome.REPLAYED] * 2
    assert rows["offset"].tolist() == [[-1, 5]]
