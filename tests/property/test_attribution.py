"""Credits of a purchase sum to it exactly, however it is spread and whatever was learned."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoring.attribution import MILLI, Attribution, earn
from scoring.catalogue import Catalogue
from scoring.events import Kind, Outcome
from scoring.moments import Moments
from scoring.rows import RING_SIZE, RowStore
from scoring.touches import FEATURES, PURCHASES_MIN, TouchWeights
from scoring.units import HOUR_MS, MINUTE_MS
from scoring.update import apply
from streams.columns import columns
from streams.logs import Event
from tests.builders import START_MS, click, columns_of, entry, impression
from tests.crediting import credit, learn

SHOP = Catalogue()
SHOP.upsert([entry(f"ad-{n}", campaign_id=f"c-{n}", advertiser_id="arco") for n in range(3)])
TOUCHED = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 2)), max_size=10, unique_by=lambda told: told[0])
WEIGHTS = st.lists(st.floats(-3, 3), min_size=FEATURES, max_size=FEATURES)


def earned(events: Sequence[Event], cuts: Sequence[int], owed: Attribution) -> tuple[list[Any], bytes]:
    """Credits of all purchases among ``events``, in batches cut at ``cuts``, and what was learned of touches."""
    store, weights, out = RowStore(), TouchWeights(), []
    weights.weights[1:], weights.purchases = 0.5, PURCHASES_MIN - 1  # believed from the first purchase on
    for batch in np.split(columns_of(store, events), sorted(cuts)):
        before = Moments.of(store.rows, batch, owed.asks(batch["kind"]))
        applied = batch[apply(store, batch, SHOP).outcome == Outcome.APPLIED]
        found = earn(before, applied, SHOP, owed, weights)
        out += zip(*(getattr(found, name).tolist() for name in found.__slots__[1:]), strict=True)
    return out, weights.kept


def touch(ad: int, at_ms: int, user: str = "user-1") -> list[Event]:
    told = {"user": user, "ad_id": f"ad-{ad}"}
    return [
        impression(**told, time_ms=START_MS + at_ms),
        click(**told, time_ms=START_MS + at_ms + 9, impression_time_ms=START_MS + at_ms),
    ]


def purchase(ad: int, at_ms: int, user: str = "user-1") -> Event:
    told = {"event_id": f"p-{user}-{ad}-{at_ms}", "kind": "purchase", "value_micros": 1_000_001}
    return click(user, f"ad-{ad}", START_MS + at_ms, **told)


def flood(ad: int, at_ms: int, user: str = "user-1") -> list[Event]:
    """More impressions than a ring holds."""
    return [impression(user, f"ad-{ad}", START_MS + at_ms + 1_000 * n) for n in range(55)]


@pytest.mark.parametrize("spread", ["position", "time", "learned"])
def test_what_comes_after_a_purchase_in_its_batch_changes_nothing_of_its_credits(spread) -> None:
    open_, answer = touch(1, MINUTE_MS)
    before, owed = [*touch(0, 0), open_, purchase(0, 2 * MINUTE_MS)], Attribution(spread=spread)
    alone, _ = earned(before, [], owed)
    assert [credit[0] for credit in alone] == [0]
    for after in ([answer], flood(2, 3 * MINUTE_MS)):
        assert earned([*before, *after], [], owed)[0] == alone


@pytest.mark.parametrize("spread", ["position", "time", "learned"])
def test_a_touch_that_is_the_oldest_of_a_full_ring_has_the_whole_of_its_purchase(spread) -> None:
    def found(others: int) -> list[Any]:
        shown = [impression("user-1", "ad-2", START_MS + MINUTE_MS + 1_000 * n) for n in range(others)]
        return earned([*touch(0, 0), *shown, purchase(0, 5 * MINUTE_MS)], [], Attribution(spread=spread))[0]

    ((slot, _, *parts),) = found(RING_SIZE - 2)  # beside them the ring holds the touch, first, and the purchase
    assert (slot, parts) == (0, [MILLI, 1_000_001, MILLI, 1_000_001])
    assert found(RING_SIZE - 1) == []


@pytest.mark.parametrize(
    ("purchases", "worth", "shares"),
    [
        (PURCHASES_MIN, 1.0, [333, 167, 500]),  # 1 + 1 for the first, 1, 1 + 2 for the last
        (PURCHASES_MIN, -1.0, [400, 200, 400]),  # no touch earns anything: by position
        (PURCHASES_MIN - 1, 1.0, [400, 200, 400]),  # nor is what was learned of so few believed
    ],
)
def test_a_purchase_is_divided_by_what_was_learned_of_touches_once_that_is_believed(purchases, worth, shares) -> None:
    times_ms = (0, 70 * HOUR_MS, 99 * HOUR_MS)
    events = [event for ad, at_ms in enumerate(times_ms) for event in touch(ad, at_ms)]
    store, weights = RowStore(), TouchWeights()
    weights.weights, weights.purchases = np.full(FEATURES, worth), purchases
    weights.weights[2] *= 2  # of the last touch
    batch = columns_of(store, [*events, purchase(0, 100 * HOUR_MS)])
    apply(store, batch, SHOP)

    found = credit(store.rows[batch["row"][-1:]], batch[-1:], SHOP, Attribution(spread="learned"), weights)

    assert (found.slot.tolist(), found.spread.tolist()) == ([0, 1, 2], shares)


DID = st.tuples(
    st.sampled_from(["touch", "touch later", "purchase", "purchase", "flood"]),
    st.integers(0, 2),
    st.sampled_from(["a", "b"]),
)


@example([("touch", 0, "a"), ("purchase", 0, "a"), ("touch", 1, "a"), ("flood", 2, "a")], [3], "learned")
@given(
    st.lists(DID, min_size=1, max_size=12),
    st.lists(st.integers(0, 120), max_size=4),
    st.sampled_from(["position", "time", "learned"]),
)
def test_credits_and_what_is_learned_are_those_of_the_stream_wherever_it_is_cut(did, cuts, spread) -> None:
    events: list[Event] = []
    clicks: list[Event] = []
    for nth, (what, ad, user) in enumerate(did):
        at_ms = 2 * MINUTE_MS * nth
        if what == "flood":
            events += flood(ad, at_ms, user)
        elif what == "purchase":
            events.append(purchase(ad, at_ms, user))
        else:
            shown, click_ = touch(ad, at_ms, user)
            events.append(shown)
            (events if what == "touch" else clicks).append(click_)
    events += clicks
    owed = Attribution(spread=spread)
    assert earned(events, cuts, owed) == earned(events, [], owed)
    assert earned(events, range(len(events)), owed) == earned(events, [], owed)


@given(
    TOUCHED,
    st.integers(0, 10**12),
    WEIGHTS,
    st.sampled_from(["position", "time", "learned"]),
    st.sampled_from([0, PURCHASES_MIN]),
)
def test_credits_of_a_purchase_sum_to_it_exactly(touched, value, told, spread, purchases) -> None:
    events = []
    for hour, ad in sorted(touched):
        at = START_MS + HOUR_MS * hour
        events += [impression(ad_id=f"ad-{ad}", time_ms=at)]
        events += [click(ad_id=f"ad-{ad}", time_ms=at + 9, impression_time_ms=at)]
    bought_ms = START_MS + 167 * HOUR_MS
    events.append(click(ad_id="ad-0", time_ms=bought_ms, kind="purchase", value_micros=value))
    store = RowStore()
    batch = columns(events, [store.row_of(b"user-1")] * len(events))
    apply(store, batch, SHOP)
    weights = TouchWeights()
    weights.weights, weights.purchases = np.array(told), purchases
    owed = Attribution(spread=spread)
    rings, bought = store.rows[batch["row"]], batch["kind"] == Kind.PURCHASED
    found = credit(rings[bought], batch[bought], SHOP, owed, weights)
    assert len(found.slot) == len(touched)
    for parts, whole in ((found.spread, MILLI), (found.spread_micros, value), (found.last_micros, value)):
        assert (parts >= 0).all()
        assert parts.sum() == (whole if touched else 0)
    by_position = credit(rings[bought], batch[bought], SHOP, Attribution())
    if spread == "learned" and not purchases:
        assert found.spread_micros.tolist() == by_position.spread_micros.tolist()
    learn(weights, rings, batch, SHOP, Attribution(spread="learned"))
    assert weights.purchases == purchases + bool(touched)
