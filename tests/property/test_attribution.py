"""Credits of a purchase sum to it exactly, however it is spread and whatever was learned."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.attribution import MILLI, Attribution, credit, learn
from scoring.catalogue import Catalogue
from scoring.events import Kind
from scoring.rows import RowStore
from scoring.touches import FEATURES, PURCHASES_MIN, TouchWeights
from scoring.update import apply
from streams.decode import columns
from tests.builders import START_MS, click, entry, impression

HOUR_MS = 3_600_000
SHOP = Catalogue()
SHOP.upsert([entry(f"ad-{n}", campaign_id=f"c-{n}", advertiser_id="arco") for n in range(3)])
TOUCHED = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 2)), max_size=10, unique_by=lambda told: told[0])
WEIGHTS = st.lists(st.floats(-3, 3), min_size=FEATURES, max_size=FEATURES)


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
    found = credit(store.rows, batch[batch["kind"] == Kind.PURCHASED], SHOP, owed, weights)
    assert len(found.slot) == len(touched)
    for parts, whole in ((found.spread, MILLI), (found.spread_micros, value), (found.last_micros, value)):
        assert (parts >= 0).all()
        assert parts.sum() == (whole if touched else 0)
    by_position = credit(store.rows, batch[batch["kind"] == Kind.PURCHASED], SHOP, Attribution())
    if spread == "learned" and not purchases:
        assert found.spread_micros.tolist() == by_position.spread_micros.tolist()
    learn(weights, store.rows, batch, SHOP, owed)
    assert weights.purchases == purchases + bool(touched)
