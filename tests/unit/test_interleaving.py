"""Interleaving: two rankings take turns under the rules, chances are exact, clicks tell who is preferred."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.assignment import BOTH, OUTSIDE, Arm, Experiment
from scoring.confidence import mixture_width, radius
from scoring.ids import id64
from scoring.interleaving import CLICKERS_MIN, EACH_MIN, FIRST, FIRST_PLAN, SECOND, Duel, picks
from scoring.market import Asked, Cap, Market, Terms
from scoring.policies import Experiments, Policy
from scoring.ranking import EMPTY_SLOT
from scoring.slate import Limits, Turns, Wanted, fill
from streams.experiments.duels import Credits, Drafted, side_of
from tests.unit.test_market import ADS

SEEDS = np.random.default_rng(3).integers(0, 2**64, 200_000, dtype=np.uint64)


def drafted(first, second, seeds, temperatures=(0.0, 0.0), slots=3, allowed=None):
    """The placement of two rankings of the same candidates, of values ``[C]``, for everyone of ``seeds``."""
    people, count = len(seeds), len(first)
    values = [np.tile(np.array(value, dtype=float), (people, 1)) for value in (first, second)]
    ads = np.tile(np.arange(1, count + 1, dtype=np.uint64), (people, 1))
    mine, other = (Wanted(of, np.full(people, heat)) for of, heat in zip(values, temperatures, strict=True))
    limits = Limits(np.ones((people, count), dtype=bool) if allowed is None else allowed)
    return fill(mine, ads, seeds, slots, limits, turns=Turns(other, picks(seeds, slots)))


def test_in_every_round_either_ranking_picks_once_and_a_coin_tells_who_begins():
    second = picks(SEEDS, 5)
    assert (second[:, 0] != second[:, 1]).all()
    assert (second[:, 2] != second[:, 3]).all()
    np.testing.assert_allclose(second.mean(axis=0), 0.5, atol=0.005)
    assert np.corrcoef(second[:, 0], second[:, 2])[0, 1] == pytest.approx(0, abs=0.01)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(0, 2**64 - 1),
    st.integers(1, 8),
)
def test_each_picks_its_best_of_what_is_left(values: list[tuple[int, int]], seed: int, slots: int) -> None:
    seeds = np.array([seed], dtype=np.uint64)
    sides = [list(side) for side in zip(*values, strict=True)]
    made = drafted(sides[0], sides[1], seeds, slots=slots).chosen[0].tolist()
    left = list(range(len(values)))
    for place, second in zip(made, picks(seeds, slots)[0].tolist(), strict=True):
        if not left:
            assert place == EMPTY_SLOT
            continue
        best = max(left, key=lambda at: (sides[second][at], -at))
        assert place == best
        left.remove(best)


@pytest.mark.parametrize("temperatures", [(0.0, 0.0), (0.7, 0.0), (0.5, 1.5)])
def test_placements_come_about_as_often_as_their_logged_propensities_say(temperatures: tuple[float, float]) -> None:
    made = drafted((4, 3, 2, 1), (1, 2, 4, 3), SEEDS, temperatures)
    orders = list(map(tuple, made.chosen.tolist()))
    chance = dict(zip(orders, made.propensity.prod(axis=1).tolist(), strict=True))
    assert sum(chance.values()) == pytest.approx(1, abs=2e-3)  # what never came has next to none
    counts = Counter(orders)
    for order, expected in chance.items():
        spread = (expected * (1 - expected) / len(SEEDS)) ** 0.5
        assert counts[order] / len(SEEDS) == pytest.approx(expected, abs=5 * spread + 1e-9)
    for order, logged in zip(orders[:2_000], made.propensity[:2_000].prod(axis=1).tolist(), strict=True):
        assert logged == pytest.approx(chance[order])  # whichever coins led to it


def test_rules_hold_for_both_and_a_slot_costs_what_its_rankings_own_order_would():
    market = Market(Terms(caps=(Cap("campaign", 1, 1_000),)))
    candidates = np.arange(4)[None]
    fields = (np.full((1, 50), -1), np.full((1, 50), 10**12), None)

    def asked(pctr: tuple[float, ...]) -> Asked:
        seeds, greedy = np.array([7], dtype=np.uint64), np.zeros(1)
        return Asked(candidates, np.array([pctr]), seeds, greedy, *fields)

    same = (0.5, 0.5, 0.5, 0.5)
    alone, both = market.decide(ADS, asked(same), 4), market.decide(ADS, asked(same), 4, asked(same))
    np.testing.assert_array_equal(both.chosen, alone.chosen)
    np.testing.assert_array_equal(both.prices_micros, alone.prices_micros)
    np.testing.assert_array_equal(both.fate, alone.fate)
    turned = market.decide(ADS, asked(same), 4, asked((0.01, 0.01, 0.01, 0.9)))
    campaigns = [ADS.campaigns[place] for place in turned.chosen[0].tolist() if place != EMPTY_SLOT]
    assert len(campaigns) == len(set(campaigns)) == 3
    assert turned.second is not None
    assert 3 in turned.chosen[0, turned.second[0]].tolist()


def test_without_rules_a_slot_goes_to_who_picks_it_and_costs_what_that_ranking_asks():
    people, nobody = 40, np.full((40, 1), -1)
    first, second = np.full((people, 4), 0.5), np.tile([0.1, 0.1, 0.1, 0.9], (people, 1))
    asked, other = (
        Asked(np.tile(np.arange(4), (people, 1)), pctr, SEEDS[:people], np.zeros(people), nobody, nobody + 10**12)
        for pctr in (first, second)
    )
    made = Market().decide(ADS, asked, 1, other)
    assert made.second is not None
    picked = made.second[:, 0]
    assert 0 < picked.sum() < people
    assert made.chosen[:, 0].tolist() == np.where(picked, 3, 0).tolist()
    assert made.prices_micros[:, 0].tolist() == np.where(picked, 45, 300).tolist()  # 40 / 0.9 rounded up, or 150 / 0.5


EITHER = Experiment("duel", "x", 0, 0.5, 1, (Arm("a", 0.5), Arm("b", 0.5, {"temperature": 0.4})), interleaved=True)


def test_who_takes_part_has_both_arms_and_the_changes_of_other_experiments_in_both():
    users = SEEDS[:4_000]
    arms, chance = EITHER.allocate(users)
    assert set(arms.tolist()) == {BOTH, OUTSIDE}
    assert (chance == 1).all()
    experiments = Experiments()
    experiments.set(1, EITHER)
    experiments.set(2, Experiment("width", "y", 0, 1, 1, (Arm("as-is", 0.5), Arm("wide", 0.5, {"candidates": 80}))))
    groups = {group.arm: group for group in experiments.groups(users, Policy(control_share=0.0))}
    group = groups["duel/interleaved+width/wide"]
    assert [(one.temperature, one.shares.count) for one in group.policies] == [(0.0, 80), (0.4, 80)]
    assert group.tag == ".1-2.2-1"
    assert groups["width/as-is"].other is None
    with pytest.raises(ValueError, match="3 arms to interleave; expected two"):
        Experiment("c", "x", 0, 1, 1, (Arm("a", 0.3), Arm("b", 0.3), Arm("c", 0.4)), interleaved=True)


def clicks(duel: Duel, seed: int, people: int, share: float) -> list[bool]:
    """People click, one more than another, ``share`` of it on the second's picks; was 2 × share - 1 ever missed?"""
    draw, missed = np.random.default_rng(seed), []
    for person in range(people):
        duel.show(person)
        for _ in range(int(draw.geometric(0.4)) - 1):
            duel.take(person, SECOND if draw.random() < share else FIRST)
        if person % 50 == 49 and (found := duel.look()):
            missed.append(not found.low <= 2 * share - 1 <= found.high)
    return missed


def test_neither_is_preferred_where_none_is_however_often_one_looks():
    runs = [any(clicks(Duel(), seed, 1_000, 0.5)) for seed in range(150)]
    assert np.mean(runs) <= 0.05


def test_the_preferred_ranking_is_found_and_its_interval_covers_the_truth():
    duels = [Duel() for _ in range(60)]
    missed = [any(clicks(duel, seed, 1_000, 0.6)) for seed, duel in enumerate(duels)]
    assert np.mean(missed) <= 0.05
    found = [duel.look() for duel in duels]
    assert np.mean([one is not None and one.low > 0 for one in found]) > 0.9
    assert np.median([one.p_value for one in found if one is not None]) < 0.001


def test_the_interval_covers_where_nearly_all_prefer_one_and_people_are_of_one_mind():
    missed = []
    for seed in range(200):
        draw, duel, ever = np.random.default_rng(seed), Duel(), False
        for person in range(150):
            duel.show(person)
            mind = draw.beta(1.8, 0.2)  # what the second ranking wins of this person's clicks: .9 on the mean
            for _ in range(int(draw.geometric(0.4))):
                duel.take(person, SECOND if draw.random() < mind else FIRST)
            if person % 10 == 9 and (found := duel.look()):
                ever |= not found.low <= 0.8 <= found.high
        missed.append(ever)
    assert np.mean(missed) <= 0.05


def ever_missed(each: int, duels: int = 6_000, losers: int = 300) -> float:
    """Share of duels in which the truth was ever left out, looked at at every moment from the ``each``-th loser on.

    Losers are those few who click picks of the ranking that nearly all do not prefer: they come at random, one in a
    unit of time, with a geometric number of clicks, five on the mean. Theirs are all that an estimate and its variance
    depend on, the fewer the others leave them.
    """
    draw = np.random.default_rng(3)
    came = draw.exponential(size=(duels, losers + 1)).cumsum(axis=1)
    each_clicks = draw.geometric(0.2, (duels, losers)).astype(float)
    clicks, squares = each_clicks.cumsum(axis=1), (each_clicks**2).cumsum(axis=1)
    width = (mixture_width(FIRST_PLAN, 0.05) * squares[:, each - 1] / came[:, each - 1] ** 2)[:, None]
    missed = np.zeros(duels, dtype=np.bool_)
    for moment in (came[:, :-1], came[:, 1:]):  # when a loser has come, and just before the next one does
        variance = squares / moment**2
        reach = np.sqrt(variance * (1 + variance / width) * (np.log1p(width / variance) - 2 * np.log(0.05)))
        assert reach[0, -1] == pytest.approx(radius(variance[0, -1], width[0, 0], 0.05))
        missed |= (np.abs(clicks / moment - 5) > reach)[:, each - 1 :].any(axis=1)
    return float(missed.mean())


def test_so_many_of_the_few_as_the_interval_takes_to_cover_are_waited_for_and_no_more():
    assert ever_missed(EACH_MIN) <= 0.05 < ever_missed(EACH_MIN - 2)


@pytest.mark.parametrize("losers", [0, 5, EACH_MIN - 1, EACH_MIN])
@pytest.mark.parametrize("loser", [FIRST, SECOND])
def test_a_ranking_that_loses_outright_is_found_out_and_no_interval_passes_all_of_the_clicks(
    losers: int, loser: int
) -> None:
    duel = Duel()
    for person in range(2_000):
        duel.show(person)
        duel.take(person, loser if person < losers else 1 - loser)
    found = duel.look()
    assert found is not None
    assert found.value == pytest.approx((1 - losers / 1_000) * (1 if loser == FIRST else -1))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert min(abs(found.low), abs(found.high)) > 0.9
    assert found.p_value < 1e-6


def test_where_those_who_prefer_the_loser_are_few_the_p_value_is_as_careful_as_the_interval():
    duel = Duel()
    for person in range(CLICKERS_MIN):
        duel.show(person)
        duel.take(person, FIRST if person < 2 else SECOND)
    found = duel.look()
    assert found is not None
    assert found.low < 0 < found.high
    assert found.p_value > 0.5  # of what is counted alone it would be 0.007


def duel_of(*credit: tuple[int, int, int]) -> Duel:
    """Of so many people who clicked so many picks of the first ranking, and so many of the second."""
    duel = Duel()
    for person, (first, second) in enumerate([clicks for people, *clicks in credit for _ in range(people)]):
        duel.show(person)
        duel.credit[person] = first, second
    return duel


@pytest.mark.parametrize("each", [1, 3])
def test_the_interval_is_that_of_the_peoples_lead_where_enough_of_them_clicked_either_and_its_width_stays(each) -> None:
    duel = duel_of((EACH_MIN, each, 0), (70, 0, 1))
    clicked, won = np.repeat([each, 1], [EACH_MIN, 70]), np.repeat([-each, 1], [EACH_MIN, 70])
    value = won.sum() / clicked.sum()
    variance = ((won - value * clicked) / clicked.mean()).var(ddof=1) / len(won)
    width = mixture_width(FIRST_PLAN / variance, 0.05)
    found = duel.look()
    assert found is not None
    assert (found.value, duel.width) == (pytest.approx(value), pytest.approx(width))
    reach = radius(variance, width, 0.05)
    assert (found.low, found.high) == (pytest.approx(value - reach), pytest.approx(value + reach))
    more = duel_of((2 * EACH_MIN, each, 0), (140, 0, 1))
    more.width = duel.width
    again = more.look()
    assert again is not None
    assert more.width == duel.width  # an interval that held at a moment holds at all later ones
    assert again.high - again.low == pytest.approx(2 * radius(variance * 89 / 179, width, 0.05))


@pytest.mark.parametrize("second", [True, False])
def test_whoever_is_missing_among_those_who_prefer_the_loser_counts_with_as_many_clicks_as_all_on_the_mean(
    second: bool,
) -> None:
    lost, won = ((3, 0), (0, 3)) if second else ((0, 3), (3, 0))
    found, filled = (duel_of((people, *lost), (25, *won)).look() for people in (15, EACH_MIN))
    assert found is not None
    assert filled is not None
    assert abs(found.value) == pytest.approx(10 / 40)
    near, far = (found.low, found.high) if second else (-found.high, -found.low)
    assert near == pytest.approx(filled.low if second else -filled.high)
    assert far == pytest.approx(10 / 40 + (filled.high - filled.low) / 2)  # what was seen is never left out
    assert found.p_value == pytest.approx(filled.p_value)


def test_evidence_that_there_was_once_is_not_lost_by_what_follows() -> None:
    duel = duel_of((10, 1, 0), (90, 0, 1))
    found = duel.look()
    duel.credit[20:100, FIRST] += 1
    again = duel.look()
    assert found is not None
    assert again is not None
    assert again.p_value == found.p_value < 0.01
    assert again.value == 0


def test_nothing_is_said_where_everybody_divides_their_clicks_alike() -> None:
    assert duel_of((40, 2, 2)).look() is None
    assert duel_of((40, 1, 3)).look() is None


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_nothing_is_said_of_few(share: float) -> None:
    duel = Duel()
    clicks(duel, 1, 20, share)
    assert duel.look() is None


def test_the_interval_covers_where_one_loses_outright_however_often_one_looks():
    for share in (0.97, 0.995):
        runs = [any(clicks(Duel(), seed, 1_000, share)) for seed in range(100)]
        assert np.mean(runs) <= 0.05, share


def test_nothing_is_preferred_by_the_first_who_click_whichever_of_two_equal_rankings_they_happen_to_click():
    missed = []
    for seed in range(400):
        draw, duel, ever = np.random.default_rng(seed), Duel(), False
        for person in range(100):
            duel.show(person)
            duel.take(person, int(draw.integers(0, 2)))
            if (found := duel.look()) is not None:
                ever |= not found.low <= 0 <= found.high
        missed.append(ever)
    assert np.mean(missed) <= 0.05


def test_a_click_is_credited_once_to_who_picked_whichever_comes_first():
    duel, found = Duel(), Credits()
    name = "0-1-2-ff"
    sides = [side_of(f"{name}.3-2", slot) for slot in range(4)]
    assert sides == picks(np.array([id64(name)], dtype=np.uint64), 4)[0].astype(int).tolist()
    found.show(duel, 11, Drafted(3, 0, SECOND))
    assert found.settle(11, clicked=True) == Drafted(3, 0, SECOND)
    assert found.settle(11, clicked=True) is None
    assert found.settle(12, clicked=True) is None
    found.show(duel, 12, Drafted(3, 1, FIRST))
    assert duel.credit[1].tolist() == [1, 0]
    found.show(duel, 13, Drafted(3, 1, FIRST))
    assert found.settle(13, clicked=False) is None
    assert found.pending == {}
