"""Exploration: River's own numbers from arrays, exact propensities, and new ads found sooner."""

from collections import Counter

import numpy as np
import pytest
from river import bandit

from scoring.calibration import PERSONAL, Calibration, Calibrator, no_evidence
from scoring.catalogue import Catalogue, Entry
from scoring.clicks import LIFT_PRIOR, RECORD, START_WEIGHTS, AdLifts
from scoring.exploration import EXPLORATIONS, Explore, doubt_of, spread_of
from scoring.features import Content
from scoring.feedback import ClickLayer
from scoring.ids import MISSING, id64s
from scoring.inputs import CONTEXT_DIM
from scoring.market import Asked, Decided, Market
from scoring.offers import Offers
from scoring.offpolicy import Logged, evaluate
from scoring.pool import Pool
from scoring.ranking import first_chances

SEEDS = np.random.default_rng(3).integers(0, 2**64, 100_000, dtype=np.uint64)
PCTR, BIDS = np.array([0.02, 0.04, 0.05, 0.03]), (1_000, 600, 300, 900)
DOUBT = np.array([0.5, 0.1, 0.5, 0.3])


def stock_of(bids: tuple[int, ...], types: tuple[str, ...] | None = None) -> Catalogue:
    """Ads of campaigns, advertisers and brands of their own."""
    stock, kinds = Catalogue(), types or ("cpc",) * len(bids)
    stock.upsert(
        [
            Entry(Content(f"ad-{at}", f"shelf/{at}", f"b-{at}"), f"c-{at}", f"a-{at}", bid, bid_type=kind)
            for at, (bid, kind) in enumerate(zip(bids, kinds, strict=True))
        ]
    )
    return stock


STOCK = stock_of(BIDS)


def asked(
    people: int, explore: Explore, doubt=DOUBT, pctr=PCTR, temperature: float = 0.0, offers: Offers | None = None
) -> Asked:
    """The same candidates for everyone."""
    shape, nobody = (people, len(pctr)), np.full((people, 1), MISSING)
    return Asked(
        np.broadcast_to(np.arange(shape[1]), shape), np.broadcast_to(pctr, shape), SEEDS[:people],
        np.full(people, temperature), nobody, np.full(nobody.shape, 10**12), offers, None, explore,
        None if doubt is None else np.broadcast_to(doubt, shape),
    )  # fmt: skip


def agree(made: Decided) -> None:
    """Orders came as often as the product of their logged propensities says: chi-square, p > 0.001."""
    orders, first, counts = np.unique(made.chosen, axis=0, return_index=True, return_counts=True)
    chance = made.propensity[first].prod(axis=1)
    assert chance.sum() == pytest.approx(1, abs=1e-3)
    expected = chance * len(made.chosen)
    seen = expected >= 5
    freedom = int(seen.sum()) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.0902 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert (((counts - expected) ** 2 / expected)[seen]).sum() < bound
    assert len(orders) > 3


def test_40_000_slots_by_thompson_sampling_come_as_often_as_their_propensities_say():
    people = 20_000
    made = Market().decide(STOCK, asked(people, "thompson"), 2)
    agree(made)
    samples = np.log(BIDS * PCTR) + spread_of(DOUBT) * np.random.default_rng(1).normal(size=(100_000, 4))
    samples -= spread_of(DOUBT) ** 2 / 2
    drawn = np.bincount(samples.argmax(axis=1), minlength=4) / 100_000
    np.testing.assert_allclose(np.bincount(made.chosen[:, 0], minlength=4) / people, drawn, atol=0.01)


@pytest.mark.parametrize("explore", EXPLORATIONS)
def test_thompson_sampling_takes_turns_with_any_other_ranking(explore: Explore) -> None:
    people = 20_000
    other = asked(people, explore, None if explore == "plackett-luce" else DOUBT, PCTR[::-1].copy(), 0.5)
    agree(Market().decide(STOCK, asked(people, "thompson"), 2, other))


def test_what_a_uniform_policy_would_earn_is_estimated_from_a_log_of_thompson_sampling():
    people = 20_000
    made = Market().decide(STOCK, asked(people, "thompson", DOUBT), 1)
    place, chance = made.chosen[:, 0], made.propensity[:, 0]
    reward = (np.random.default_rng(5).random(people) < 5 * PCTR[place]).astype(float)
    nothing = np.zeros(people)
    found = evaluate(Logged(reward, first_chances(np.ones(4), 1.0)[place] / chance, nothing, nothing))
    for name in ("ips", "snips"):
        assert found[name].low < 5 * PCTR.mean() < found[name].high


def lifts_of(*records: tuple[float, float], stock: Catalogue = STOCK) -> AdLifts:
    """Clicks and expected clicks of ads, in the catalogue's order; those left out are new."""
    lifts = AdLifts()
    known = np.zeros((len(records), RECORD))
    known[:, :2] = np.reshape(records, (-1, 2))
    lifts.put(stock.ad[: len(records)], known)
    return lifts


def calibration_of(lifts: AdLifts, stock: Catalogue = STOCK, people: int = 1) -> Calibration:
    """As a worker serves it, without anything learned but lifts."""
    layer, calibrator = ClickLayer(), Calibrator()
    layer.lifts = lifts
    calibrator.update(layer, stock, Pool().others(0))
    context = np.zeros((people, CONTEXT_DIM), dtype=np.float32)
    everything = np.broadcast_to(np.arange(len(stock)), (people, len(stock)))
    return calibrator.calibration(np.arange(people, dtype=np.uint64), context, everything)


def test_the_upper_bounds_are_those_of_rivers_disjoint_linucb():
    draw, lifts, alpha = np.random.default_rng(2), AdLifts(), 1.3
    river = bandit.LinUCBDisjoint(alpha=1.0, beta=1.0, seed=1)
    for ad in STOCK.ad.tolist()[:3]:
        for expected in draw.uniform(0.05, 0.4, draw.integers(5, 60)).tolist():
            clicked = float(draw.random() < 1.5 * expected)
            lifts.learn(ad, clicked, expected)
            # y/√p on √p, about the prior's lift of 1, in units in which the prior's precision is River's 1.
            river.update(ad, {"p": (expected / LIFT_PRIOR) ** 0.5}, (clicked - expected) / expected**0.5)
    calibration = calibration_of(lifts)
    doubt = doubt_of("linucb", calibration, alpha)
    assert doubt is not None
    chance = 0.1 * np.exp(calibration.lift[0].astype(float))
    for place, ad in enumerate(STOCK.ad.tolist()):
        told = river._bayes_lin_regs[ad].predict_one({"p": (0.1 / LIFT_PRIOR) ** 0.5}, with_dist=True)
        bound = 0.1 + 0.1**0.5 * (told.mu + alpha * (told.sigma**2 - 1) ** 0.5)  # without the noise of one click
        assert chance[place] * (1 + doubt[0, place]) == pytest.approx(bound, rel=1e-6)


def test_linucb_shows_what_may_well_be_worth_more_and_nobody_pays_for_that():
    pctr, doubt, greedy = np.full(4, 0.1), np.array([0.0, 0.0, 3.0, 0.0]), Market()
    plain = greedy.decide(STOCK, asked(1, "plackett-luce", None, pctr), 4)
    made = greedy.decide(STOCK, asked(1, "linucb", doubt, pctr), 4)
    assert plain.chosen[0].tolist() == [0, 3, 1, 2]
    assert made.chosen[0].tolist() == [2, 0, 3, 1]
    assert made.worth[0, 2] == pytest.approx(4 * plain.worth[0, 2])
    assert made.prices_micros[0].tolist() == [250, 900, 600, 0]  # 1,000 by a weight of 4; the others' own
    assert (made.propensity == 1).all()
    assert greedy.decide(STOCK, asked(50, "linucb", doubt, pctr, temperature=1.0), 3).propensity.max() < 1


@pytest.mark.parametrize("explore", ["thompson", "linucb"])
def test_only_what_a_click_is_paid_for_is_doubted(explore: Explore) -> None:
    stock = stock_of((1_000, 50_000, 1_000, 10), types=("cpc", "cpm", "cpa", "attention"))
    kept = np.ones((1, 4, 4), dtype=np.float32)
    made = Market().decide(stock, asked(1, explore, np.full(4, 0.5), offers=Offers(kept)), 4)
    if explore == "linucb":
        assert made.worth[0] == pytest.approx([1_000 * 0.02 * 1.5, 50.0, 1_000 * 0.05 * 1.5, 10.0])
    else:
        assert made.spread is not None
        assert made.spread[0] == pytest.approx([spread_of(np.array(0.5)), 0, spread_of(np.array(0.5)), 0])


def test_of_an_ad_that_pays_for_attention_as_well_the_clicks_part_alone_is_doubted_whoever_is_favoured() -> None:
    stock, market, pctr, doubt = Catalogue(), Market(), np.full(1, 0.1), np.full(1, 0.5)
    stock.upsert([Entry(Content("ad-0"), "c", "a", 1_000, attention_micros=20)])
    for favour in (1.0, 2.0):
        market.favour(id64s(["a"]), np.array([favour]))
        offers = market.offers(stock, np.zeros((1, 1), dtype=np.int64))  # 2 s of attention
        made = market.decide(stock, asked(1, "linucb", doubt, pctr, offers=offers), 1)
        assert made.value[0, 0] == pytest.approx(100 + 40)
        assert made.worth[0, 0] == pytest.approx(favour * (1.5 * 100 + 40))


def test_doubt_is_of_ads_with_little_evidence_and_counts_as_far_as_lifts_do():
    prior, calibration = LIFT_PRIOR, calibration_of(lifts_of((8.0, 4.0), (0.0, 20.0), (45.0, 45.0)))
    assert doubt_of("plackett-luce", calibration) is None
    for explore, wanted in (
        ("thompson", [(8 + prior) ** -0.5, prior**-0.5, (45 + prior) ** -0.5, prior**-0.5]),
        ("linucb", [(4 + prior) ** 0.5 / (8 + prior), (20 + prior) ** 0.5 / prior, (45 + prior) ** -0.5, prior**-0.5]),
    ):
        doubt = doubt_of(explore, calibration, 1.0)
        assert doubt is not None
        assert doubt[0] == pytest.approx(wanted)
    for weight, heeded in ((0.5, 0.5), (-1.0, 0.0)):
        weights = np.append(START_WEIGHTS[: len(PERSONAL) - 1], 0.0)[None].copy()
        weights[0, PERSONAL.index("lift")] = weight
        doubt = doubt_of("thompson", Calibration(weights, np.zeros((1, 1), np.float32), no_evidence((1, 1))))
        assert doubt == pytest.approx(np.array([[heeded * prior**-0.5]]))


def rounds_until_found(explore: Explore, seed: int, most: int = 300) -> int:
    """Rounds of ten people until a new ad of twice the lift, thought four fifths as good as all others, comes first."""
    others = 30
    stock, draw = stock_of((1_000,) * (others + 1)), np.random.default_rng(seed)
    pctr, market = np.append(draw.uniform(0.09, 0.1, others), 0.08), Market()
    true = np.append(np.ones(others), 2.0) * pctr
    lifts = lifts_of(*[(46.0, 46.0)] * others, stock=stock)
    for number in range(most):
        calibration = calibration_of(lifts, stock, people=10)
        served = pctr * np.exp(calibration.lift.astype(float))
        if served[0].argmax() == others:
            return number
        question = asked(10, explore, doubt_of(explore, calibration), served[0])
        seeds = draw.integers(0, 2**63, 10).astype(np.uint64)
        question = Asked(*(seeds if name == "seeds" else getattr(question, name) for name in Asked.__slots__))
        for place in market.decide(stock, question, 3).chosen.ravel().tolist():
            lifts.learn(int(stock.ad[place]), float(draw.random() < true[place]), float(pctr[place]))
    return most


def test_a_good_new_ad_is_found_that_greedy_never_tries():
    seeds = {"plackett-luce": 3, "thompson": 12, "linucb": 12}  # greedy goes on to the end with each
    found = {explore: [rounds_until_found(explore, seed) for seed in range(seeds[explore])] for explore in EXPLORATIONS}
    assert found["plackett-luce"] == [300] * 3
    assert np.median(found["thompson"]) < 30
    assert max(found["thompson"]) < 300
    assert np.median(found["linucb"]) < 30
    assert sum(rounds == 300 for rounds in found["linucb"]) <= 2  # what had no luck at first, it gives up


def test_a_spread_is_that_of_the_log_normal_value_with_the_doubt_for_its_relative_deviation():
    doubt = np.array([0.0, 1e-9, 0.1, 0.5, 5.0])
    np.testing.assert_allclose(np.sqrt(np.expm1(spread_of(doubt) ** 2)), doubt, rtol=1e-9)


def test_where_all_is_known_thompson_sampling_is_greedy():
    made = Market().decide(STOCK, asked(200, "thompson", np.zeros(4)), 4)
    plain = Market().decide(STOCK, asked(200, "plackett-luce", None), 4)
    assert Counter(map(tuple, made.chosen.tolist())) == Counter(map(tuple, plain.chosen.tolist()))
    assert (made.prices_micros == plain.prices_micros).all()
    np.testing.assert_allclose(made.propensity, 1, atol=1e-6)
