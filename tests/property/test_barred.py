"""Ads that may be shown to nobody take no candidate's place from one that may, whatever bars them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.arrays import Bools, Ints
from scoring.candidates import Shares, choose
from scoring.catalogue import Catalogue
from scoring.features import FEATURE_DIM
from scoring.ids import MISSING, id64, id64s
from scoring.market import Asked, Fate, Market, Terms
from tests.builders import START_MS, entry

PEOPLE = 4
SEEDS = np.arange(1, PEOPLE + 1, dtype=np.uint64)
CONTROL = np.array([False, True, False, True])
GROUPS = st.sets(st.integers(0, 5), max_size=4)


def ids_of(letter: str, numbers: set[int]) -> frozenset[int]:
    return frozenset(id64(f"{letter}{number}") for number in numbers)


RULES = st.builds(
    Terms,
    reserve_micros=st.sampled_from([0, 100, 500]),
    blocked_ads=st.sets(st.integers(0, 60), max_size=20).map(lambda numbers: ids_of("ad-", numbers)),
    blocked_categories=GROUPS.map(lambda numbers: ids_of("c", numbers)),
    blocked_advertisers=GROUPS.map(lambda numbers: ids_of("a", numbers)),
)
PACES = st.dictionaries(st.integers(0, 5), st.sampled_from([0.0, 0.001, 0.5, 1.0]))
"""Multipliers of campaigns; 0: the budget is spent."""
SHARES = st.builds(Shares, st.integers(1, 30), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.sampled_from([0.0, 0.1, 1.0]))


def stocked(ads: int, seed: int) -> Catalogue:
    rng = np.random.default_rng(seed)
    shop, drawn = Catalogue(), rng.integers(6, size=(ads, 3)).tolist()
    starts = (START_MS - rng.integers(0, 30, ads) * 1_000).tolist()
    offers = rng.choice([0, 50, 400, 1_000], size=(ads, 2), p=[0.1, 0.2, 0.3, 0.4]).tolist()
    shop.upsert(
        [
            entry(
                f"ad-{n}", category=f"c{c}/s", advertiser_id=f"a{a}", campaign_id=f"m{m}", start_ms=starts[n],
                bid_micros=offers[n][0], attention_micros=offers[n][1] if n % 5 == 0 else 0, tags=(f"t{n}",),
            )
            for n, (c, a, m) in enumerate(drawn)
        ]
    )  # fmt: skip
    return shop


def paced(terms: Terms, paces: dict[int, float]) -> Market:
    market = Market(terms)
    if paces:
        market.pace(id64s([f"m{number}" for number in paces]), np.array(list(paces.values())))
    return market


def refused(market: Market, shop: Catalogue) -> Bools:
    """Which ads ``[N]`` a decision among all of them refuses."""
    everything, nobody = np.arange(len(shop))[None], np.full((1, 1), MISSING)
    pctr, offers = np.full(everything.shape, 0.5), market.offers(shop, everything)
    asked = Asked(everything, pctr, SEEDS[:1], np.zeros(1), nobody, np.full((1, 1), 10**12), offers)
    decided = market.decide(shop, asked, 3)
    return np.isin(decided.fate[0], [Fate.BLOCKED, Fate.BUDGET_SPENT, Fate.BELOW_RESERVE])


def chosen(shop: Catalogue, shares: Shares, barred: Bools | None) -> Ints:
    """Candidates of four people, two of whom are in the control group; two ads are pinned."""
    interests = np.random.default_rng(9).normal(size=(PEOPLE, FEATURE_DIM)).astype(np.float32)
    pinned = np.array([0, 3])[: shares.count]
    return choose(shop, interests, SEEDS, START_MS, shares, CONTROL, pinned, barred)


@given(ads=st.integers(4, 60), seed=st.integers(0, 10**6), terms=RULES, paces=PACES, shares=SHARES)
def test_what_a_decision_would_refuse_whoever_asks_is_no_candidate_while_another_ad_could_be(
    ads: int, seed: int, terms: Terms, paces: dict[int, float], shares: Shares
) -> None:
    shop, market = stocked(ads, seed), paced(terms, paces)
    barred, told = market.barred(shop), refused(market, shop)
    assert (np.zeros(ads, dtype=np.bool_) if barred is None else barred).tolist() == told.tolist()

    candidates = chosen(shop, shares, barred)

    assert candidates.shape == (PEOPLE, min(shares.count, ads))
    assert (np.diff(candidates, axis=1) > 0).all()
    left = int((~told).sum())
    assert (~told[candidates]).sum(axis=1).tolist() == [min(candidates.shape[1], left)] * PEOPLE


@given(ads=st.integers(4, 60), seed=st.integers(0, 10**6), terms=RULES, paces=PACES, shares=SHARES)
def test_candidates_are_those_of_a_shop_that_has_withdrawn_what_is_barred(
    ads: int, seed: int, terms: Terms, paces: dict[int, float], shares: Shares
) -> None:
    shop = stocked(ads, seed)
    barred = paced(terms, paces).barred(shop)
    without = stocked(ads, seed)
    if barred is not None:
        without.withdraw([without.names[at] for at in np.flatnonzero(barred).tolist()])
    if len(without.eligible(START_MS)) >= min(shares.count, ads):
        assert chosen(shop, shares, barred).tobytes() == chosen(without, shares, None).tobytes()


@given(ads=st.integers(1, 30), seed=st.integers(0, 10**6), terms=RULES, paces=PACES)
def test_a_shelf_without_what_is_barred_is_in_every_part_that_of_a_shop_without_it(
    ads: int, seed: int, terms: Terms, paces: dict[int, float]
) -> None:
    shop, without = stocked(ads, seed), stocked(ads, seed)
    barred = paced(terms, paces).barred(shop)
    shut = np.zeros(ads, dtype=np.bool_) if barred is None else barred
    without.withdraw([without.names[at] for at in np.flatnonzero(shut).tolist()])

    left, there = shop.open_shelf(START_MS, shut), without.shelf(START_MS)

    for part in ("slots", "vectors", "by_start", "starts"):
        assert getattr(left, part).tolist() == getattr(there, part).tolist(), part


@given(ads=st.integers(4, 60), seed=st.integers(0, 10**6), shares=SHARES)
def test_where_nothing_is_barred_candidates_are_those_of_the_whole_shelf(ads: int, seed: int, shares: Shares) -> None:
    shop = stocked(ads, seed)
    assert Market().barred(shop) is None
    whole = chosen(shop, shares, None)
    assert chosen(shop, shares, np.zeros(ads, dtype=np.bool_)).tobytes() == whole.tobytes()
