"""Second prices under rules, against deciding again with another bid."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue, Entry
from scoring.features import Content
from scoring.ids import MISSING, id64
from scoring.market import Asked, Cap, Market, Terms

BIDDERS = st.lists(
    st.tuples(
        st.integers(1, 3_000), st.sampled_from([0.1, 0.2, 0.35, 0.5]), st.integers(0, 2), st.integers(0, 2),
        st.integers(0, 2),
    ),
    min_size=1, max_size=6,
)  # fmt: skip
"""Bid in micros, click rate, category, campaign (which is an advertiser's own) and brand."""
TERMS = st.fixed_dictionaries(
    {},
    optional={
        "caps": st.just((Cap("campaign", 1, 3_600_000),)),
        "separate": st.sampled_from(["category", "advertiser"]),
        "category_share": st.just(0.5),
        "rivals": st.just(((id64("b0"), 1), (id64("b1"), 1))),
        "diversity": st.just(0.7),
        "diversify_by": st.sampled_from(["mmr", "dpp"]),
        "reserve_micros": st.sampled_from([0, 100]),
    },
)


def stocked(bidders) -> Catalogue:
    stock = Catalogue()
    stock.upsert([
        Entry(
            Content(f"ad-{number}", f"k{category}", f"b{brand}", 1_000_000, (), f"title {number % 3}"),
            campaign_id=f"c{campaign}", advertiser_id=f"a{campaign}", bid_micros=bid,
        )
        for number, (bid, _, category, campaign, brand) in enumerate(bidders)
    ])  # fmt: skip
    return stock


def asked_of(bidders) -> Asked:
    pctr = np.array([[rate for _, rate, *_ in bidders]])
    nothing = np.full((1, 1), MISSING)
    return Asked(
        np.arange(len(bidders))[None], pctr, np.ones(1, dtype=np.uint64), np.zeros(1), nothing,
        np.full((1, 1), 10**12),
    )  # fmt: skip


@given(BIDDERS, TERMS, st.integers(1, 4))
def test_a_second_price_is_the_least_bid_that_keeps_the_place_whatever_the_rules(bidders, terms, slots):
    market, asked = Market(Terms(**terms)), asked_of(bidders)
    made = market.decide(stocked(bidders), asked, slots)

    def stands(place: int, slot: int, bid: int) -> bool:
        other = [(bid, *rest) if at == place else (old, *rest) for at, (old, *rest) in enumerate(bidders)]
        return market.decide(stocked(other), replace(asked), slots).chosen[0, slot] == place

    for slot, (place, paid) in enumerate(zip(made.chosen[0].tolist(), made.prices_micros[0].tolist(), strict=True)):
        if place < 0:
            continue
        bid = bidders[place][0]
        assert terms.get("reserve_micros", 0) <= paid <= bid
        assert stands(place, slot, min(paid + 1, bid))  # one more, for where two are worth the same
        if paid > max(terms.get("reserve_micros", 0), 1):
            assert not stands(place, slot, paid - 1)
