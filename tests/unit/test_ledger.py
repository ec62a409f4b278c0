"""A ledger by itself: what its sums do at the end of what they can hold."""

from itertools import chain

import numpy as np

from scoring.arrays import Ints
from scoring.ledger import FIGURES, Ledger, Period

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
