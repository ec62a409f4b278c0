"""A ledger by itself: what its sums do at the end of what they can hold."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.arrays import Ints
from scoring.ledger import FIGURES, KEPT_DAYS, Ledger, Period

MOST = 2**63 - 1


def figures(*charged: int) -> Ints:
    """Events that charge so much each."""
    out = np.zeros((len(charged), len(FIGURES)), dtype=np.int64)
    out[:, FIGURES.index("charged")] = charged
    return out


def test_a_sum_that_has_reached_what_it_can_hold_stays_there_and_the_days_goes_on() -> None:
    ledger, at = Ledger(), FIGURES.index("charged")
    ledger.add(5, [("one", ""), ("two", "")], figures(MOST - 10, 7))
    ledger.add(6, [("one", ""), ("two", ""), ("one", "")], figures(6, 1, 7))
    one, two = (ledger.of(cell)[1][:, at].tolist() for cell in range(2))
    assert one[Period.TOTAL] == MOST
    assert (one[Period.TODAY], one[Period.BEFORE]) == (13, MOST - 10)
    assert (two[Period.TODAY], two[Period.BEFORE], two[Period.TOTAL]) == (1, 7, 8)
    ledger.add(6, [("one", "")], figures(MOST))
    assert ledger.of(0)[1][:, at].tolist() == [MOST, MOST - 10, MOST]


def test_a_cell_from_before_sales_were_counted_begins_with_what_was_credited_at_most_one_a_click() -> None:
    some = dict(zip(FIGURES[:-1], range(9), strict=True)) | {"clicks": 500}
    former = [list((some | {"last": last}).values()) for last in (46_999, 47_000, 900_000)]
    numbers = [20_000, 19_999, *chain.from_iterable(former)]
    ledger = Ledger()
    ledger.restore(("one", ""), np.array(numbers, dtype="<i8").tobytes())
    days, figures = ledger.of(0)
    assert days == (20_000, 19_999)
    assert figures[:, :-1].tolist() == former
    assert figures[:, FIGURES.index("sold")].tolist() == [46, 47, 500]
    again = Ledger()
    again.restore(("one", ""), ledger.kept(0))
    assert again.of(0)[1].tolist() == figures.tolist()


def all_of(ledger: Ledger) -> dict[tuple[str, str], bytes]:
    return {name: ledger.kept(cell) for cell, name in enumerate(ledger.names)}


def totals_of(ledger: Ledger) -> dict[tuple[str, str], int]:
    """What each cell was ever charged."""
    at = Period.TOTAL, FIGURES.index("charged")
    return {name: int(ledger.of(cell)[1][at]) for cell, name in enumerate(ledger.names)}


@given(
    events=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdef"), st.sampled_from(["", "1-0", "1-1"]))),
    later=st.integers(0, 3),
)
def test_a_campaign_is_forgotten_whole_once_its_last_event_is_over_the_kept_days_ago_and_no_other_changes(
    events: list[tuple[int, str, str]], later: int
) -> None:
    ledger, newest = Ledger(), dict[str, int]()
    for charged, (day, campaign, arm) in enumerate(sorted(events)):
        ledger.add(day, [(campaign, arm)], figures(charged + 1))
        newest[campaign] = day
    ledger.changes()
    before, totals, day = all_of(ledger), totals_of(ledger), KEPT_DAYS + later
    gone = ledger.forget(day)
    assert set(gone) == {name for name in before if newest[name[0]] < later}
    assert len(gone) == len(set(gone))
    assert all_of(ledger) == {name: kept for name, kept in before.items() if name not in gone}
    assert all(name in ledger for name in before.keys() - set(gone))
    again, as_new = [(campaign, arm) for campaign, arm in before], Ledger()
    ledger.add(day, again, figures(*range(len(again))))  # whoever comes back finds the place where it is now
    as_new.add(day, again, figures(*range(len(again))))
    assert {name: all_of(ledger)[name] for name in gone} == {name: all_of(as_new)[name] for name in gone}
    assert {name: total for name, total in totals_of(ledger).items() if name not in gone} == {
        name: total + again.index(name) for name, total in totals.items() if name not in gone
    }


def test_no_slice_forgets_more_than_its_bound_and_the_next_ones_forget_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scoring.ledger.FORGOTTEN_MAX", 2)
    ledger = Ledger()
    ledger.add(5, [(f"c-{n}", "") for n in range(5)], figures(*range(5)))
    ledger.changes()
    assert [len(ledger.forget(5 + KEPT_DAYS)) for _ in range(2)] == [0, 0]
    assert [len(ledger.forget(6 + KEPT_DAYS)) for _ in range(4)] == [2, 2, 1, 0]
    assert len(ledger) == 0
