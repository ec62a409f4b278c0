"""What is decided for many people at once, against what is decided for each of them alone."""

from dataclasses import fields, replace

import numpy as np
import pytest

from scoring.catalogue import Catalogue
from scoring.exploration import EXPLORATIONS, Explore
from scoring.ids import MISSING, id64, id64s
from scoring.market import Asked, Cap, Fate, Market, Terms
from scoring.ranking import EMPTY_SLOT
from scoring.units import HOUR_MS
from tests.builders import entry

PEOPLE, ADS, SLOTS = 7, 12, 4
STOCK = Catalogue()
STOCK.upsert([
    entry(f"ad-{n}", campaign_id=f"c-{n % 5}", advertiser_id=f"a-{n % 4}", category=f"k-{n % 3}", brand=f"b-{n % 4}",
          bid_micros=1_000 + 170 * n, attention_micros=100 * (n % 2))
    for n in range(ADS)
])  # fmt: skip
TERMS = {
    "none": Terms(),
    "blocked": Terms(blocked_ads=frozenset([id64("ad-11")]), reserve_micros=900),
    "caps and pins": Terms(caps=(Cap("campaign", 2, HOUR_MS),), pinned=((id64("ad-0"), 1),), reserve_micros=300),
    "variety": Terms(diversity=0.7, separate="category", auction="vcg"),
    "shares and rivals": Terms(category_share=0.5, rivals=((id64("b-0"), 1), (id64("b-1"), 1)), auction="first"),
}


def asked(market: Market, explore: Explore) -> Asked:
    """Each person with candidates, click rates, a past and a temperature of their own; the first's is 0."""
    draw = np.random.default_rng(7)
    candidates = np.sort(draw.permuted(np.tile(np.arange(ADS), (PEOPLE, 1)), axis=1)[:, :8], axis=1)
    shown = np.where(draw.random((PEOPLE, 5)) < 0.5, draw.integers(0, ADS, (PEOPLE, 5)), MISSING)
    age_ms = -np.sort(-draw.integers(HOUR_MS // 2, 2 * HOUR_MS, shown.shape), axis=1)
    seeds, heat = np.arange(1, PEOPLE + 1, dtype=np.uint64), np.linspace(0.0, 0.9, PEOPLE)
    pctr = draw.uniform(0.05, 0.6, candidates.shape)
    doubt = None if explore == "plackett-luce" else draw.uniform(0.1, 0.5, candidates.shape)
    offers = market.offers(STOCK, candidates)
    return Asked(candidates, pctr, seeds, heat, shown, age_ms, offers, explore=explore, doubt=doubt)


def of(many: Asked, person: int) -> Asked:
    """What is asked for one of them."""
    one = slice(person, person + 1)
    offers = None if many.offers is None else replace(many.offers, kept=many.offers.kept[one])
    told = {each.name: getattr(many, each.name) for each in fields(many)}
    parts = {name: value[one] for name, value in told.items() if isinstance(value, np.ndarray)}
    return replace(many, **parts | {"offers": offers})


@pytest.mark.parametrize("terms", list(TERMS))
@pytest.mark.parametrize("explore", EXPLORATIONS)
@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("turns", [False, True])
def test_what_is_decided_for_a_person_is_the_same_alone_and_among_others(
    terms: str, explore: Explore, *, paced: bool, turns: bool
) -> None:
    market = Market(TERMS[terms])
    if paced:
        market.pace(id64s(["c-1", "c-4"]), np.array([0.5, 0.0]))
    many = asked(market, explore)
    rival = replace(many, pctr=many.pctr[:, ::-1]) if turns else None

    together = market.decide(STOCK, many, SLOTS, rival)

    for person in range(PEOPLE):
        alone = market.decide(STOCK, of(many, person), SLOTS, None if rival is None else of(rival, person))
        for name in ("chosen", "fate", "prices_micros", "bids_micros"):
            assert getattr(alone, name).tolist() == getattr(together, name)[[person]].tolist(), name
        assert alone.propensity == pytest.approx(together.propensity[[person]])
        won = [together.fate[person, place] for place in together.chosen[person] if place != EMPTY_SLOT]
        slots = np.flatnonzero(together.chosen[person] != EMPTY_SLOT)
        assert won == (slots + Fate.WON).tolist()
    assert len({tuple(each) for each in together.prices_micros.tolist()}) > 1


def test_campaigns_of_which_no_more_than_the_multiplier_is_told_have_the_rates_of_the_terms() -> None:
    market = Market(Terms(conversion=0.25, viewed_s=3.0))
    market.pace(id64s(["c-1"]), np.array([0.5]))
    offers = market.offers(STOCK, np.arange(2)[None])
    assert offers is not None
    assert offers.kept.tolist() == [[[1.0, 1.0, 0.25, 3.0], [0.5, 1.0, 0.25, 3.0]]]
