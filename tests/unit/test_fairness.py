"""Exposure beside merit by the definition: what a group lacks, what fades, and who is too small to be judged."""

import numpy as np
import pytest

from scoring.catalogue import Catalogue
from scoring.fairness import ADJUST_EVERY, INTEGRAL, KEPT, MERIT_MIN, PROPORTIONAL, Division
from scoring.ids import id64
from scoring.ranking import EMPTY_SLOT
from tests.builders import entry


def shop(ads: int = 3) -> Catalogue:
    """Ads of an advertiser each."""
    stock = Catalogue()
    stock.upsert([entry(f"ad-{n}", advertiser_id=f"a-{n}") for n in range(ads)])
    return stock


def saw(division: Division, stock: Catalogue, worth: list[float], *chosen: int, examined: tuple[float, ...] = (1.0,)):
    """One placement of the first ads, worth so much."""
    candidates = np.arange(len(worth))[None]
    division.observe(stock, candidates, np.array([worth]), np.array([chosen]), np.array(examined))


def weights(division: Division, strength: float = 1.0) -> list[float]:
    """By advertiser, in the order of their names."""
    found = dict(zip(*(each.tolist() for each in division.adjust(strength)), strict=True))
    return [found[id64(f"a-{n}")] for n in range(len(found))]


def test_weights_follow_the_share_of_its_merit_that_a_group_lacks_now_and_that_it_has_lacked() -> None:
    division, stock = Division("advertiser"), shop()
    saw(division, stock, [3.0, 1.0, 0.0], 0, EMPTY_SLOT, examined=(1.0, 0.5))
    lacks = np.array([(0.75 - 1) / 0.75, 1.0, 0.0])  # of one look, three quarters and a quarter were deserved
    assert weights(division, 0.5) == pytest.approx(np.exp((0.02 + 3) * 0.5 * lacks))
    assert weights(division, 0.5) == pytest.approx(np.exp((2 * 0.02 + 3) * 0.5 * lacks))
    assert division.ratio == 0


def test_who_has_far_more_than_it_deserves_is_held_back_as_who_has_twice_as_much() -> None:
    division, stock = Division("advertiser"), shop()
    saw(division, stock, [1.0, 9.0, 0.0], 0)
    assert weights(division, 0.1) == pytest.approx(np.exp(0.302 * np.array([-1.0, 1.0, 0.0])))


def test_what_bounds_cut_off_is_not_remembered() -> None:
    division, stock = Division("advertiser"), shop(2)
    saw(division, stock, [1.0, 1.0], 1)
    for _ in range(100):
        weights(division, 10.0)
    for _ in range(2):
        saw(division, stock, [1.0, 1.0], 0)
    assert weights(division, 10.0) == pytest.approx([1 / 8, 8])  # at once, though the first has lacked for so long


def test_who_deserves_nothing_lacks_nothing_and_is_held_back_from_nothing() -> None:
    division, stock = Division("advertiser"), shop()
    saw(division, stock, [1.0, 0.0, 1.0], 1)
    assert weights(division)[1] == 1


def test_what_was_shown_of_candidates_that_are_worth_nothing_is_held_against_nobody() -> None:
    division, stock = Division("advertiser"), shop(2)
    for worth, chosen in (([1.0, 1.0], 0), ([0.0, 0.0], 1)):
        saw(division, stock, worth, chosen)
    assert division.ratio == pytest.approx(1, abs=1e-4)


def test_of_what_was_a_thousand_times_64_placements_ago_a_third_is_left() -> None:
    division, stock = Division("advertiser"), shop(2)
    saw(division, stock, [1.0, 1.0], 0)
    nothing = np.zeros((64_000, 1))  # placements that nobody could be shown in
    division.observe(stock, nothing.astype(int), nothing, np.full(nothing.shape, EMPTY_SLOT), np.ones(1))
    saw(division, stock, [1.0, 1.0], 1)
    left = 0.999**1_000
    lacks = 1 - left / ((1 + left) / 2)
    assert weights(division, 0.1) == pytest.approx(np.exp(0.302 * np.array([lacks, -lacks])), rel=1e-4)


def test_groups_with_less_than_a_hundredth_of_all_merit_are_not_judged() -> None:
    for merit, ratio in ((0.009, 1 / 0.991), (0.011, 0.0)):
        division = Division("advertiser")
        saw(division, shop(), [1 - merit, merit, 0.0], 0)
        assert division.ratio == pytest.approx(ratio)


def test_before_anything_is_placed_and_where_nothing_was_shown_all_is_fair() -> None:
    division, stock = Division("advertiser"), shop()
    assert division.ratio == 1
    saw(division, stock, [1.0, 1.0, 1.0], EMPTY_SLOT)
    assert division.ratio == 1
    assert weights(division) == [1, 1, 1]


def test_an_advertiser_that_comes_later_is_counted_and_the_others_keep_what_they_have() -> None:
    division, stock = Division("advertiser"), shop(2)
    saw(division, stock, [1.0, 1.0], 0)
    before = weights(division, 0.1)
    stock.upsert([entry("ad-2", advertiser_id="a-2")])
    saw(division, stock, [0.0, 0.0, 1.0], 2)
    assert weights(division, 0.1) == pytest.approx([*np.array(before) ** (0.304 / 0.302), 1.0], rel=1e-6)


def test_of_groups_that_no_ad_has_any_more_no_more_are_kept_than_of_those_that_ads_have() -> None:
    division, stock = Division("advertiser"), shop(2)
    saw(division, stock, [1.0, 1.0], 0)
    before = weights(division, 0.1)
    for change in range(50):
        stock.upsert([entry("ad-2", advertiser_id=f"b-{change}")])
        saw(division, stock, [0.0, 0.0, 1.0], 2)
        assert len(division.adjust(0.0)[0]) <= 6
    found = dict(zip(*(each.tolist() for each in division.adjust(0.1)), strict=True))
    kept = [found[id64(f"a-{n}")] for n in range(2)]
    assert kept == pytest.approx(np.array(before) ** (0.304 / 0.302), rel=1e-6)
    assert division.ratio == 0.0  # of the second of the two, which is still judged


def test_what_a_batch_gives_groups_is_what_its_placements_give_them_one_by_one() -> None:
    draw, division, stock = np.random.default_rng(7), Division("advertiser"), Catalogue()
    stock.upsert([entry(f"ad-{n}", advertiser_id=f"a-{n // 2}") for n in range(12)])  # two ads each
    examined, exposure, merit = np.array([1.0, 0.6, 0.3]), np.zeros(6), np.zeros(6)
    for among, people in ((8, 5), (12, 3), (12, 40)):  # none of the last two's ads is a candidate at first
        candidates = np.stack([draw.permutation(among)[:6] for _ in range(people)])
        worth = draw.exponential(size=(people, 6)) * draw.choice([0.0, 1.0], (people, 6), p=[0.2, 0.8])
        chosen = np.stack([draw.permutation(6)[:3] for _ in range(people)])
        chosen[draw.random(chosen.shape) < 0.3] = EMPTY_SLOT
        division.observe(stock, candidates, worth, chosen, examined)
        exposure, merit = (each * KEPT ** (people / ADJUST_EVERY) for each in (exposure, merit))
        for of, value, slots in zip(candidates // 2, worth, chosen, strict=True):
            filled = slots != EMPTY_SLOT
            np.add.at(exposure, of[slots[filled]], examined[filled])
            np.add.at(merit, of, value / value.sum() * examined[filled].sum())
    lacks = np.maximum((merit - exposure) / merit, -1.0)
    assert weights(division, 0.1) == pytest.approx(np.exp((PROPORTIONAL + INTEGRAL) * 0.1 * lacks))
    assert merit.min() > MERIT_MIN * merit.sum()
    assert division.ratio == pytest.approx((exposure / merit).min() / (exposure.sum() / merit.sum()))


def test_a_group_is_small_by_its_share_of_all_merit_however_much_that_is() -> None:
    for share, ratio in ((0.009, 1 / 0.991), (0.011, 0.0)):
        division, worth = Division("advertiser"), np.tile([1 - share, share], (200, 1))
        division.observe(shop(2), np.tile([0, 1], (200, 1)), worth, np.zeros((200, 1), dtype=np.int64), np.ones(1))
        assert division.ratio == pytest.approx(ratio)


def test_what_is_known_of_as_many_groups_without_ads_as_there_are_with_ads_is_kept_until_they_come_back() -> None:
    for others, kept in ((2, True), (3, False)):
        division, stock = Division("advertiser"), shop(2)
        saw(division, stock, [1.0, 1.0], 0)
        before = weights(division, 0.1)
        for change in range(others):  # with the second of two ads, which is now another's
            stock.upsert([entry("ad-1", advertiser_id=f"b-{change}")])
            saw(division, stock, [0.0], EMPTY_SLOT)
        stock.upsert([entry("ad-1", advertiser_id="a-1")])
        saw(division, stock, [0.0], EMPTY_SLOT)
        found = dict(zip(*(each.tolist() for each in division.adjust(0.1)), strict=True))
        assert found[id64("a-0")] == pytest.approx(before[0] ** (0.304 / 0.302), rel=1e-3)
        assert found[id64("a-1")] == pytest.approx(before[1] ** (0.304 / 0.302) if kept else 1.0, rel=1e-3)
