"""What is counted of placements: fairness brings exposure to merit, and figures are those of the definition."""

from dataclasses import replace

import numpy as np
import pytest

from scoring.catalogue import Catalogue
from scoring.fairness import ADJUST_EVERY, WEIGHT_MAX, Division
from scoring.ids import MISSING, id64, id64s
from scoring.market import Asked, Fate, Market, Terms
from scoring.shown import EVERY, SAMPLED, Shown
from tests.builders import entry

PEOPLE, ADS, SLOTS = 32, 12, 3


def shop() -> Catalogue:
    """Three advertisers with four ads each."""
    stock = Catalogue()
    stock.upsert([entry(f"ad-{n}", advertiser_id=f"a-{n % 3}", category=f"c-{n % 4}") for n in range(ADS)])
    return stock


def asked(draw: np.random.Generator) -> Asked:
    """Of the first advertiser's ads the click rates are a little higher, which greed makes a lot of."""
    candidates = np.tile(np.arange(ADS), (PEOPLE, 1))
    pctr = draw.uniform(0.1, 0.12, candidates.shape) + 0.02 * (candidates % 3 == 0)
    nobody = np.full((PEOPLE, 50), MISSING)
    seeds = draw.integers(1, 2**63, PEOPLE).astype(np.uint64)
    return Asked(candidates, pctr, seeds, np.zeros(PEOPLE), nobody, np.full(nobody.shape, 10**12))


def played(fairness: float) -> tuple[Shown, float]:
    """Rounds of placements; the figures of all, and the fairness of the last half."""
    stock, market, draw = shop(), Market(Terms(fairness=fairness)), np.random.default_rng(3)
    shown, judge = Shown(fairness), Shown(1.0)
    for number in range(400):
        if (weights := shown.adjusted()) is not None:
            market.favour(*weights)
        question = asked(draw)
        question = replace(question, offers=market.offers(stock, question.candidates))
        made = market.decide(stock, question, SLOTS)
        for each in (shown, judge) if number >= 200 else (shown,):
            each.observe(stock, question, made, question.shown)
    return shown, judge.advertisers.ratio


def test_the_constraint_brings_everyones_exposure_to_what_their_ads_are_worth() -> None:
    (_, without), (_, with_it) = played(0.0), played(1.0)
    assert without < 0.3
    assert with_it == pytest.approx(1, abs=0.05)


def test_weights_are_bounded_whatever_a_group_lacks() -> None:
    division, stock = Division("advertiser"), shop()
    chosen = np.zeros((1, 1), dtype=np.int64)
    for _ in range(1_000):
        division.observe(stock, np.arange(ADS)[None], np.ones((1, ADS)), chosen, np.ones(1))
        _, weights = division.adjust(10.0)
    assert sorted(weights.tolist()) == pytest.approx([1 / WEIGHT_MAX, WEIGHT_MAX, WEIGHT_MAX])


def test_exposure_goes_by_how_likely_slots_are_looked_at_as_was_learned() -> None:
    stock, question, shown = shop(), asked(np.random.default_rng(1)), [Shown(), Shown()]
    question = replace(question, candidates=question.candidates[:, :3], pctr=np.full((PEOPLE, 3), 0.1))
    for figures, curve in zip(shown, ([1.0, 1.0], [1.0, 0.25]), strict=True):
        made = Market().decide(stock, replace(question, examined=np.array(curve)), SLOTS)
        figures.observe(stock, question, made, question.shown)
    assert shown[0].advertisers.ratio == pytest.approx(1)  # an ad of each of three advertisers, in three slots
    assert shown[1].advertisers.ratio == pytest.approx(0.25 / 0.5)


def test_weights_are_those_of_the_groups_that_fairness_is_asked_for_among() -> None:
    for among, group, of in (("advertiser", "a-1", 3), ("category", "c-1", 4)):
        market, stock = Market(Terms(fair_among=among)), shop()
        market.favour(id64s([group]), np.array([2.0]))
        offers = market.offers(stock, np.arange(ADS)[None])
        assert offers is not None
        assert offers.quality[0].tolist() == [2.0 if n % of == 1 else 1.0 for n in range(ADS)]


def test_what_fairness_gave_and_what_exploration_adds_are_no_merit() -> None:
    stock, market, question = shop(), Market(), asked(np.random.default_rng(1))
    market.favour(id64s(["a-0"]), np.array([2.0]))
    new = np.where(question.candidates % 3 == 1, 2.0, 0.0)  # of the second advertiser's ads nothing is known yet
    explored = replace(question, explore="linucb", doubt=new, offers=market.offers(stock, question.candidates))
    ratios = []
    for each in (question, explored):
        shown, made = Shown(1.0), market.decide(stock, each, SLOTS)
        shown.observe(stock, each, replace(made, chosen=np.tile([0, 1, 2], (PEOPLE, 1))), question.shown)
        ratios.append(shown.advertisers.ratio)
    assert ratios[1] == pytest.approx(ratios[0])


def test_what_was_long_ago_fades_whether_its_weights_are_adjusted_or_not() -> None:
    division, stock = Division("advertiser"), shop()
    everyone, slots = np.tile(np.arange(3), (ADJUST_EVERY, 1)), np.ones(1)
    for number in range(4_000):
        first = np.zeros((ADJUST_EVERY, 1), dtype=np.int64)
        chosen = first if number < 1_000 else np.arange(ADJUST_EVERY)[:, None] % 3
        division.observe(stock, everyone, np.ones(everyone.shape), chosen, slots)
        if number == 999:
            assert division.ratio == 0
    assert division.ratio == pytest.approx(1, abs=0.06)


def test_entropy_is_that_of_the_categories_attended_to() -> None:
    stock, shown, question = shop(), Shown(), asked(np.random.default_rng(1))
    made = Market().decide(stock, question, SLOTS)
    past = np.full((PEOPLE, 50), MISSING)
    past[0, -4:] = [0, 4, 1, 2]  # of three categories: half, a quarter, a quarter
    past[1, -2:] = [0, 0]
    shown.observe(stock, question, made, past)
    assert shown.interest_entropy_bits == pytest.approx((1.5 + 0) / 2)
    assert shown.placements == PEOPLE > SAMPLED
    assert 0 < shown.list_distance < 2


def test_losers_are_counted_by_reason_and_slots_by_whether_an_ad_is_in_them() -> None:
    stock, shown, question = shop(), Shown(), asked(np.random.default_rng(1))
    terms = Terms(blocked_advertisers=frozenset([id64("a-1"), id64("a-2")]), category_share=0.3)
    question = replace(question, candidates=question.candidates[:, :6], pctr=question.pctr[:, :6])
    made = Market(terms).decide(stock, question, SLOTS)
    shown.observe(stock, question, made, question.shown)
    assert shown.losers()[Fate.BLOCKED.name.lower()] == 4 * PEOPLE
    # two ads of the one advertiser are left for three slots
    assert (shown.empty_slots, shown.filled_slots) == (PEOPLE, PEOPLE * (SLOTS - 1))


def test_what_takes_time_is_looked_at_in_one_part_of_several_and_what_is_counted_in_all() -> None:
    stock, shown, draw, first = shop(), Shown(), np.random.default_rng(1), 0.0
    for _ in range(EVERY):
        question = asked(draw)
        shown.observe(stock, question, Market().decide(stock, question, SLOTS), question.candidates)
        first = shown.list_distance if shown.placements == PEOPLE else first
    assert shown.placements == EVERY * PEOPLE
    assert sum(shown.losers().values()) == EVERY * PEOPLE * (ADS - SLOTS)
    assert shown.list_distance == first
