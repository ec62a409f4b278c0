"""Who is worth scoring: near to the person's interest, some new, some at random, each once, all eligible."""

import numpy as np
import pytest

from scoring.arrays import Ids, Singles
from scoring.candidates import Shares, choose
from scoring.catalogue import Catalogue
from scoring.features import FEATURE_DIM
from tests.builders import START_MS, catalogue, entry

NEAR_ONLY = Shares(count=10, fresh=0, random=0)


def interests(people: int, seed: int = 1) -> Singles:
    return np.random.default_rng(seed).normal(size=(people, FEATURE_DIM)).astype(np.float32)


def seeds(people: int) -> Ids:
    return np.arange(1, people + 1, dtype=np.uint64)


def shop_of(ads: int) -> Catalogue:
    """Ads of different content, every tenth withdrawn, the newest last."""
    shop = Catalogue()
    shop.upsert(
        [
            entry(f"ad-{n}", category=f"c{n % 13}", tags=(f"t{n}",), start_ms=START_MS - 1_000 * (ads - n))
            for n in range(ads)
        ]
    )
    shop.withdraw([f"ad-{n}" for n in range(0, ads, 10)])
    return shop


@pytest.mark.parametrize(
    "shares", [Shares(), Shares(20, 0.5, 0.5), Shares(20, 1, 0), Shares(20, 0, 1), Shares(1, 0.05, 0.1)]
)
def test_candidates_are_as_many_as_asked_eligible_in_slot_order_and_none_twice(shares: Shares) -> None:
    shop = shop_of(500)

    chosen = choose(shop, interests(8), seeds(8), START_MS, shares)

    assert chosen.shape == (8, shares.count)
    assert (np.diff(chosen, axis=1) > 0).all()
    assert set(chosen.ravel().tolist()) <= set(shop.eligible(START_MS).tolist())


def test_the_nearest_are_those_with_the_largest_product() -> None:
    shop, people = shop_of(500), interests(5)

    chosen = choose(shop, people, seeds(5), START_MS, NEAR_ONLY)

    eligible = shop.eligible(START_MS)
    nearness = people @ shop.features[eligible].T
    for person in range(5):
        nearest = eligible[np.argsort(-nearness[person])[:10]]
        assert chosen[person].tolist() == sorted(nearest.tolist())


def test_of_people_of_whom_nothing_is_known_the_highest_bids_are_chosen() -> None:
    shop = catalogue(100)

    chosen = choose(shop, np.zeros((1, FEATURE_DIM), dtype=np.float32), seeds(1), START_MS, NEAR_ONLY)

    assert chosen[0].tolist() == list(range(90, 100))


def test_a_bid_does_not_buy_its_way_past_an_interest() -> None:
    shop = Catalogue()
    shop.upsert(
        [entry("near", category="c", bid_micros=1)]
        + [entry(f"rich-{n}", tags=(f"t{n}",), bid_micros=10**9) for n in range(50)]
    )
    interest = shop.features[:1].copy()

    assert 0 in choose(shop, interest, seeds(1), START_MS, Shares(count=1, fresh=0, random=0))[0]


def test_a_share_is_the_newest() -> None:
    shop = shop_of(500)

    chosen = choose(shop, interests(5), seeds(5), START_MS, Shares(count=100, fresh=0.05, random=0))

    newest = sorted(shop.eligible(START_MS).tolist())[-5:]
    assert all(set(newest) <= set(person.tolist()) for person in chosen)


@pytest.mark.parametrize(("together", "later"), [(200, 0), (200, 3), (7, 1), (5, 0), (3, 2)])
def test_of_ads_that_start_together_each_person_gets_some_and_every_ad_reaches_as_many(
    together: int, later: int
) -> None:
    starts = [START_MS - 9] * 100 + [START_MS - 5] * together + [START_MS - 1 - n for n in range(later)]
    shop, people, room = Catalogue(), 4_000, min(5 - later, together)
    shop.upsert([entry(f"ad-{n}", start_ms=start, bid_micros=9_000 - n) for n, start in enumerate(starts)])
    nobody, shares = np.zeros((people, FEATURE_DIM), dtype=np.float32), Shares(count=50, fresh=0.1, random=0)

    chosen = choose(shop, nobody, seeds(people), START_MS, shares)

    counts = np.bincount(chosen.ravel(), minlength=len(starts))
    assert counts[100 + together :].tolist() == [people] * later
    assert (chosen >= 100).sum(axis=1).tolist() == [room + later] * people
    share = room / together
    spread = np.sqrt(people * share * (1 - share))
    assert np.abs(counts[100 : 100 + together] - people * share).max() <= 5 * spread
    alone = choose(shop, nobody[:1], seeds(people)[7:8], START_MS, shares)
    assert alone[0].tolist() == chosen[7].tolist()


def test_of_ads_that_start_together_nobody_gets_those_of_one_stretch_alone() -> None:
    """Ads that somebody made one after the other are often of one campaign."""
    together, room, people = 200, 5, 500
    shop = Catalogue()
    shop.upsert([entry(f"ad-{n}", start_ms=START_MS - 9 + 4 * (n >= 100)) for n in range(100 + together)])
    nobody, shares = np.zeros((people, FEATURE_DIM), dtype=np.float32), Shares(count=50, fresh=0.1, random=0)
    chosen = choose(shop, nobody, seeds(people), START_MS, shares)
    fresh = chosen[chosen >= 100].reshape(people, room) - 100
    left_out = np.diff(fresh, axis=1, append=fresh[:, :1] + together)
    assert left_out.max() < 2 * together // room
    assert left_out.min() < together // room // 2  # and not those of a fixed distance either


def test_shares_are_of_the_nearest_whole_number_of_candidates() -> None:
    shop, people = shop_of(500), interests(100)

    newest = choose(shop, people, seeds(100), START_MS, Shares(count=100, fresh=0.29, random=0))  # 28.999999999999996
    some = choose(shop, people, seeds(100), START_MS, Shares(count=10, fresh=0, random=0.29))

    near = choose(shop, people, seeds(100), START_MS, NEAR_ONLY)
    last = set(np.sort(shop.eligible(START_MS))[-29:].tolist())
    assert all(last <= set(person) for person in newest.tolist())
    drawn = [len(set(person) - set(nearest)) for person, nearest in zip(some.tolist(), near.tolist(), strict=True)]
    assert max(drawn) == 3


def test_the_random_share_reaches_every_ad_alike_and_is_repeated_by_its_seed() -> None:
    shop, people = catalogue(200), 4_000
    nobody = np.zeros((people, FEATURE_DIM), dtype=np.float32)

    chosen = choose(shop, nobody, seeds(people), START_MS, Shares(count=20, fresh=0, random=0.5))

    counts = np.bincount(chosen.ravel(), minlength=200)[:150]  # the others are partly chosen by their bids
    assert counts.mean() == pytest.approx(people * 10 / 200, rel=0.05)
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()
    again = choose(shop, nobody[:3], seeds(3), START_MS, Shares(count=20, fresh=0, random=0.5))
    assert again.tolist() == chosen[:3].tolist()


@pytest.mark.parametrize("count", [1, 20, 99])
def test_the_control_arm_gets_every_ad_alike_none_twice_and_the_same_for_a_seed(count: int) -> None:
    shop, people = catalogue(100), 3_000
    who, nobody = seeds(people), np.zeros((people, FEATURE_DIM), dtype=np.float32)
    control = np.ones(people, dtype=np.bool_)

    chosen = choose(shop, nobody, who, START_MS, Shares(count), control)

    assert (np.diff(chosen, axis=1) > 0).all()
    expected = people * count / 100
    spread = np.sqrt(expected * (1 - count / 100))
    assert np.abs(np.bincount(chosen.ravel(), minlength=100) - expected).max() < 5 * spread
    control[1:] = False
    one = choose(shop, nobody[:2], who[:2], START_MS, Shares(count), control[:2])
    assert one[0].tolist() == chosen[0].tolist()
    assert one[1].tolist() == choose(shop, nobody[:2], who[:2], START_MS, Shares(count))[1].tolist()


def test_a_persons_candidates_do_not_depend_on_who_else_is_in_the_call() -> None:
    shop, people = shop_of(500), interests(6)

    together = choose(shop, people, seeds(6), START_MS, Shares())

    alone = choose(shop, people[4:5], seeds(6)[4:5], START_MS, Shares())
    assert alone[0].tolist() == together[4].tolist()


@pytest.mark.parametrize("ads", [0, 1, 7])
def test_where_fewer_are_eligible_all_of_them_are_candidates(ads: int) -> None:
    chosen = choose(catalogue(ads), interests(3), seeds(3), START_MS, Shares(count=7))

    assert chosen.tolist() == [list(range(ads))] * 3


@pytest.mark.parametrize("shares", [Shares(20), Shares(20, 1, 1), Shares(2, 0.5, 0.5)])
@pytest.mark.parametrize("random", [False, True], ids=["near", "at random"])
def test_pinned_ads_that_may_be_shown_are_candidates_of_everybody(shares: Shares, random: bool) -> None:
    shop, people = shop_of(500), interests(50)
    pinned = np.array([301, 300, 204])  # the second is withdrawn

    chosen = choose(shop, people, seeds(50), START_MS, shares, np.full(50, random), pinned)

    assert chosen.shape == (50, shares.count)
    assert (np.diff(chosen, axis=1) > 0).all()
    assert (np.isin([301, 204], chosen[0]).all(), np.isin(300, chosen)) == (True, False)
    assert all({301, 204} <= set(person) for person in chosen.tolist())


def test_the_control_arm_gets_every_ad_that_is_not_pinned_alike() -> None:
    shop, people = catalogue(100), 3_000
    nobody, everybody = np.zeros((people, FEATURE_DIM), dtype=np.float32), np.ones(people, dtype=np.bool_)

    chosen = choose(shop, nobody, seeds(people), START_MS, Shares(20), everybody, np.array([7, 40]))

    counts = np.bincount(chosen.ravel(), minlength=100)
    assert counts[[7, 40]].tolist() == [people, people]
    expected = people * 18 / 98
    assert np.abs(np.delete(counts, [7, 40]) - expected).max() < 5 * np.sqrt(expected * (1 - 18 / 98))


def test_where_shares_are_above_one_in_total_the_newest_come_before_those_at_random() -> None:
    shop = shop_of(500)

    chosen = choose(shop, interests(5), seeds(5), START_MS, Shares(count=20, fresh=1, random=0.1))

    newest = sorted(shop.eligible(START_MS).tolist())[-20:]
    assert chosen.tolist() == [newest] * 5


@pytest.mark.parametrize("shares", [Shares(20, 1, 0), Shares(20, 0.6, 1), Shares(20, 0.9, 0.9)])
def test_pinned_ads_are_candidates_however_many_others_are_to_be_new_or_drawn(shares: Shares) -> None:
    shop = Catalogue()
    shop.upsert([entry(f"ad-{n}", tags=(f"t{n}",), start_ms=START_MS - 1_000 * (n + 1)) for n in range(200)])
    pinned = np.arange(190, 200)  # the oldest, which come last on the shelf

    chosen = choose(shop, interests(4), seeds(4), START_MS, shares, pinned=pinned)

    assert chosen.shape == (4, 20)
    assert all(set(pinned.tolist()) < set(each) for each in chosen.tolist())
