"""What is a touch before a purchase and what is none, at the bounds of windows and of what is known."""

from collections import UserDict
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pytest

from scoring.attribution import MILLI, Attribution, by_position, earn
from scoring.catalogue import Catalogue
from scoring.events import Kind, Outcome
from scoring.ids import id64
from scoring.moments import Moments
from scoring.rows import RowStore
from scoring.touches import TouchWeights
from scoring.units import DAY_MS, HOUR_MS
from scoring.update import apply
from streams.logs import Event
from tests.builders import START_MS, click, columns_of, entry, impression
from tests.crediting import credit, learn

SHOP = Catalogue()
SHOP.upsert([
    entry("a", campaign_id="one", advertiser_id="arco"), entry("c", campaign_id="six", advertiser_id="belle"),
    entry("b", campaign_id="two", advertiser_id="arco"),
])  # fmt: skip
B = 2
"""The place of "b" in it."""


def touch(ad: str, at_ms: int = 0, kind: str = "click") -> list[Event]:
    named = START_MS + at_ms
    return [
        impression(ad_id=ad, time_ms=named),
        click(ad_id=ad, time_ms=named + 9, kind=kind, impression_time_ms=named),
    ]


def purchase(at_ms: int, ad: str = "a") -> Event:
    return click(ad_id=ad, time_ms=START_MS + at_ms, kind="purchase", value_micros=1_001)


def owed(events: Sequence[Event], terms: Attribution | None = None) -> list[tuple[int, int, int]]:
    """Whose touches the last of ``events`` is owed to: slot, by last touch and spread, in thousandths."""
    store = RowStore()
    batch = columns_of(store, events)
    apply(store, batch, SHOP)
    found = credit(store.rows[batch["row"][-1:]], batch[-1:], SHOP, terms or Attribution())
    return list(zip(found.slot.tolist(), found.last.tolist(), found.spread.tolist(), strict=True))


WHOLE = [(B, MILLI, MILLI)]


@pytest.mark.parametrize(("kind", "found"), [("view", []), ("click", WHOLE), ("cart", WHOLE)])
def test_a_touch_is_a_click_or_more_that_names_an_impression(kind: str, found: list[tuple[int, int, int]]) -> None:
    assert owed([*touch("b", kind=kind), purchase(HOUR_MS)]) == found


def test_a_click_on_what_was_never_shown_is_no_touch() -> None:
    _, named = touch("b")
    assert owed([named, purchase(HOUR_MS)]) == []
    assert owed([named, touch("b")[0], purchase(HOUR_MS)]) == WHOLE  # it had overtaken its impression


def test_what_is_of_another_advertiser_or_of_an_ad_that_is_not_known_earns_nothing() -> None:
    assert owed([*touch("c"), *touch("unknown", 9_000), purchase(HOUR_MS)]) == []
    assert owed([*touch("c"), *touch("b", 5_000), *touch("unknown", 9_000), purchase(HOUR_MS)]) == WHOLE
    assert owed([*touch("b"), purchase(HOUR_MS, "unknown")]) == []


def test_a_touch_is_owed_up_to_the_end_of_its_own_campaigns_window_and_none_after_the_purchase() -> None:
    seen = touch("b", 2 * HOUR_MS)
    for terms, window_ms in (
        (Attribution(), 7 * DAY_MS),
        (Attribution(usual_ms=HOUR_MS), HOUR_MS),
        (Attribution(campaigns={id64("two"): HOUR_MS, id64("one"): 0}), HOUR_MS),
    ):
        ends_ms = 2 * HOUR_MS + window_ms
        assert owed([*seen, purchase(ends_ms)], terms) == WHOLE
        assert owed([*seen, purchase(ends_ms + 1)], terms) == []
    assert owed([*seen, purchase(2 * HOUR_MS)]) == WHOLE
    assert owed([*seen, purchase(HOUR_MS)]) == []  # it happened before, and came late


def test_how_a_purchase_is_spread_is_for_the_campaign_whose_ad_was_bought_to_say() -> None:
    terms = Attribution(spread="time", spreads={5: "learned", 6: "position"}, campaigns={5: 9}, usual_ms=7)
    campaigns = np.array([5, 6, 7], dtype=np.uint64)
    assert [terms.by(spread, campaigns).tolist() for spread in ("time", "learned", "position")] == [
        [False, False, True],
        [True, False, False],
        [False, True, False],
    ]
    assert terms.of(campaigns).tolist() == [9, 7, 7]
    kinds = np.array(list(Kind), dtype=np.uint8)
    assert terms.learns
    assert [*compress(Kind, terms.asks(kinds))] == [Kind.CLICKED, Kind.PURCHASED]
    assert Attribution(spread="learned").learns
    assert not Attribution(spreads={5: "time"}).learns
    assert [*compress(Kind, Attribution().asks(kinds))] == [Kind.PURCHASED]


def test_campaigns_with_rules_of_their_own_are_read_once_and_not_for_every_purchase() -> None:
    class Read(UserDict[int, Any]):
        """Counts how often it is read whole."""

        times = 0

        def __iter__(self) -> Iterator[int]:
            self.times += 1
            return super().__iter__()

    ids = [2**64 - 1, 5, 2**63, 9]
    windows, spreads = Read(zip(ids, (1, 2, 3, 4), strict=True)), Read(zip(ids, ("time", "learned") * 2, strict=True))
    terms = Attribution(campaigns=windows, spreads=spreads, usual_ms=7)
    asked = np.array([[9, 5, 0], [2**63, 6, 2**64 - 1]], dtype=np.uint64)
    for _ in range(3):
        assert terms.of(asked).tolist() == [[4, 2, 7], [3, 7, 1]]
        assert terms.by("learned", asked[0]).tolist() == [True, True, False]
        assert terms.by("position", asked[0]).tolist() == [False, False, True]
    assert (windows.times, spreads.times) == (1, 1)


def test_of_a_purchase_the_ends_have_forty_percent_each_and_those_between_the_rest() -> None:
    places = np.arange(6)
    counts = (0, 1, 2, 3, 6)
    told = by_position(np.array([places >= 6 - count for count in counts]))
    expected = [[], [1.0], [0.5, 0.5], [0.4, 0.2, 0.4], [0.4, *([0.05] * 4), 0.4]]
    for count, weights, found in zip(counts, expected, told, strict=True):
        assert found[6 - count :] == pytest.approx(weights)
        assert not found[: 6 - count].any()


def test_by_time_a_touch_a_half_life_older_has_half_as_much() -> None:
    seen = [*touch("b"), *touch("a", 2 * DAY_MS)]
    spread = [found for *_, found in owed([*seen, purchase(3 * DAY_MS)], Attribution(spread="time"))]
    assert spread == [333, 667]


def test_what_is_learned_as_it_is_earned_is_what_is_learned_from_the_rings_alone() -> None:
    """Visits and purchases of ads that are known teach; views, and what nobody knows, do not."""
    terms = Attribution(spread="learned")
    events = [
        *touch("b"),
        *touch("a", 9_000, "view"),
        *touch("unknown", 12_000),
        click(ad_id="a", time_ms=START_MS + 20_000),
    ]
    events += [purchase(30_000), purchase(40_000, "unknown")]
    store, earned, told = RowStore(), TouchWeights(), TouchWeights()
    batch = columns_of(store, events)
    before = Moments.of(store.rows, batch, terms.asks(batch["kind"]))
    applied = batch[apply(store, batch, SHOP).outcome == Outcome.APPLIED]
    earn(before, applied, SHOP, terms, earned)
    one_by_one = RowStore()
    for at in range(len(events)):
        alone = columns_of(one_by_one, events)[at : at + 1]
        apply(one_by_one, alone, SHOP)
        learn(told, one_by_one.rows[alone["row"]], alone, SHOP, terms)
    assert earned.kept == told.kept
    assert earned.purchases == 1
    assert (earned.weights != TouchWeights().weights).any()
