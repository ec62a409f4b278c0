"""Which events are kept out of interest, by rules tried in this order; the first that holds gives the `Outcome`.

1. replayed: at or below the last offset that the row has applied
2. late: it happened more than `Rules.late_ms` before the lane's time
3. duplicate, reshown: seen before (`scoring.dedup`)
4. burst, bot: more of that source than one person makes in a minute, or in a day, of the lane's time
5. unshown: it answers an impression that never was (`scoring.claims`), beyond the first `Rules.unshown_per_day`; so
   many may pass, since in live traffic a click may overtake its impression

A rule counts all events that reach it, whatever it makes of them, and windows are of the lane's time, which never goes
back. So the outcome does not depend on how a stream is cut into batches.
"""

from dataclasses import dataclass

import numpy as np

from scoring.arrays import Bools, Ints
from scoring.claims import judge, one_by_one
from scoring.dedup import Outcomes, mark_repeats
from scoring.events import Events, Outcome, only
from scoring.rows import Rows
from scoring.runs import within
from scoring.units import MINUTE_MS

MINUTES_A_DAY = 1_440
MINUTES_AHEAD = 60
"""How far a row's minute may be ahead of the lane's, as after a crash. One further ahead is of a time when the lane was
ahead, and has been set back since (`streams.lanes.ahead`): events would count in that minute until it comes."""
COUNT_MAX = 65_535
"""Largest 16-bit count, and so the largest bound."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds, per user. Pairs are for impressions and for actions, in the order of `Source`."""

    late_ms: int = 604_800_000
    per_minute: tuple[int, int] = (3_000, 300)
    per_day: tuple[int, int] = (50_000, 10_000)
    unshown_per_day: int = 50


@dataclass(frozen=True, slots=True)
class _Windows:
    """The minute and day of each event ``[E]``, and what its row has counted in them before the batch."""

    minute: Ints
    day: Ints
    in_minute: Ints
    in_day: Ints
    unshown: Ints

    @classmethod
    def of(cls, rows: Rows, events: Events) -> "_Windows":
        """The windows of ``events [E]``; ``rows`` as they are before the events."""
        row, source = events["row"], events["source"]
        held = rows["rate_minute"][row].astype(np.int64)
        now = events["stream_ms"] // MINUTE_MS
        minute = np.where(held <= now + MINUTES_AHEAD, np.maximum(now, held), now)
        day = minute // MINUTES_A_DAY
        same_day = day == held // MINUTES_A_DAY
        return cls(
            minute,
            day,
            np.where(minute == held, rows["minute_count"][row, source], 0).astype(np.int64),
            np.where(same_day, rows["day_count"][row, source], 0).astype(np.int64),
            np.where(same_day, rows["unshown"][row], 0).astype(np.int64),
        )

    def where(self, chosen: Bools) -> "_Windows":
        """The windows of the chosen events."""
        return _Windows(*(getattr(self, name)[chosen] for name in self.__slots__))


def clean(rows: Rows, events: Events, rules: Rules) -> Outcomes:
    """`Outcome` of each of ``events [E]``; what the rules remember is written to the rows, in place."""
    outcome = np.full(len(events), Outcome.APPLIED, dtype=np.uint8)
    outcome[events["time_ms"] < events["stream_ms"] - rules.late_ms] = Outcome.LATE
    outcome[events["offset"] <= rows["offset"][events["row"], events["source"]]] = Outcome.REPLAYED
    new = only(events, outcome != Outcome.REPLAYED)
    rows["offset"][new["row"], new["source"]] = new["offset"]  # where a row has several, the last stays: the highest
    left = outcome == Outcome.APPLIED
    fresh = only(events, left)
    outcome[left] = repeats = mark_repeats(rows, fresh)
    left[left] = new_ones = repeats == Outcome.APPLIED
    fresh = only(fresh, new_ones)
    windows = _Windows.of(rows, fresh)
    outcome[left] = by_rate = _by_rate(rows, fresh, windows, rules)
    if (slow := by_rate == Outcome.APPLIED).all():
        outcome[left] = _by_claim(rows, fresh, windows, rules)
    else:
        left[left] = slow
        outcome[left] = _by_claim(rows, fresh[slow], windows.where(slow), rules)
    return outcome


def _by_rate(rows: Rows, events: Events, windows: _Windows, rules: Rules) -> Outcomes:
    """Burst and bot: compare each event's place among those of its user, source and window with the bound.

    Where a row is written several times, the last value stays: its newest window's, since time only rises.
    """
    row, source = events["row"], events["source"]
    group = row.astype(np.int64) * 2 + source
    in_minute = _nth(group, windows.minute, windows.in_minute)
    in_day = _nth(group, windows.day, windows.in_day)
    held = rows["rate_minute"][row].astype(np.int64)
    rows["rate_minute"][row] = windows.minute
    minute = rows["rate_minute"][row].astype(np.int64)
    rows["minute_count"][row[minute != held]] = 0
    turned = row[minute // MINUTES_A_DAY != held // MINUTES_A_DAY]
    rows["day_count"][turned], rows["unshown"][turned] = 0, 0
    for name, window, now, count in (
        ("minute_count", windows.minute, minute, in_minute),
        ("day_count", windows.day, minute // MINUTES_A_DAY, in_day),
    ):
        last = window == now
        rows[name][row[last], source[last]] = np.minimum(count[last], COUNT_MAX)
    outcome = np.where(in_day > np.array(rules.per_day)[source], Outcome.BOT, Outcome.APPLIED)
    return np.where(in_minute > np.array(rules.per_minute)[source], Outcome.BURST, outcome).astype(np.uint8)


def _by_claim(rows: Rows, events: Events, windows: _Windows, rules: Rules) -> Outcomes:
    """Unshown: compare each unproven claim's place among those of its user's day with the bound."""
    outcome = np.full(len(events), Outcome.APPLIED, dtype=np.uint8)
    unproven, undecided = judge(rows, events)
    order = np.argsort(events["row"], kind="stable")
    by_row = events["row"][order]
    doubtful = np.unique(events["row"][undecided])
    starts, ends = (np.searchsorted(by_row, doubtful, side=side).tolist() for side in ("left", "right"))
    for row, start, end in zip(doubtful.tolist(), starts, ends, strict=True):
        at = order[start:end]
        allowed = rules.unshown_per_day - windows.unshown[at]
        unproven[at] = one_by_one(rows[row], events[at], windows.day[at], allowed)
    if unproven.any():
        row, day = events["row"][unproven].astype(np.int64), windows.day[unproven]
        count = _nth(row, day, windows.unshown[unproven])
        last = day == rows["rate_minute"][row] // MINUTES_A_DAY
        rows["unshown"][row[last]] = np.minimum(count[last], COUNT_MAX)
        outcome[unproven] = np.where(count > rules.unshown_per_day, Outcome.UNSHOWN, Outcome.APPLIED)
    return outcome


def _nth(group: Ints, window: Ints, before: Ints) -> Ints:
    """The place of each event ``[E]``, from 1, among those of its group and window; ``before`` came earlier."""
    order = np.argsort(group, kind="stable")
    nth = np.empty_like(group)
    nth[order] = within(np.arange(len(group)), group[order], window[order])
    return nth + 1 + before
