"""A catalogue whose ads come and go for years holds as many as there are, and forgets none that could be asked for."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue
from scoring.ids import MISSING, IdMap, id64, id64s
from scoring.pool import BUCKETS, RECORD, Pool
from scoring.rates import RateTable
from scoring.units import DAY_MS
from streams.lanes.clicks import GONE_EVERY, LaneClicks
from tests.builders import entry

KEPT_DAYS = 3
ADS = st.sets(st.integers(0, 11), max_size=6)
DAYS = st.lists(st.tuples(ADS, ADS), max_size=30)
"""Of each day the ads that are withdrawn, and those that are told."""


def a_shop() -> Catalogue:
    return Catalogue(kept_ms=KEPT_DAYS * DAY_MS)


def told(day: int, names: Sequence[str]) -> list[int]:
    return [(day + 1) * DAY_MS] * len(names)


def slot(shop: Catalogue, name: str) -> int:
    return int(shop.slots_of(id64s([name]))[0])


@given(DAYS)
def test_an_ad_is_known_until_it_has_been_withdrawn_for_as_long_as_it_is_kept(
    days: list[tuple[set[int], set[int]]],
) -> None:
    shop, on, off = a_shop(), dict[str, int](), dict[str, int]()
    table = RateTable()
    for day, (gone, come) in enumerate(days):
        left = [f"ad-{n}" for n in sorted(gone)]
        shop.withdraw(left, told(day, left))
        off |= {name: day for name in left if on.pop(name, None) is not None}
        new = [f"ad-{n}" for n in sorted(come)]
        ads = [entry(name, campaign_id=f"of-{name}", bid_micros=day + 1, brand=name) for name in new]
        shop.upsert(ads, told(day, new))
        on |= dict.fromkeys(new, day + 1)
        off = {name: since for name, since in off.items() if name not in on}
        kept = [name for name, since in off.items() if day - since < KEPT_DAYS]
        assert shop.bid_micros[[slot(shop, name) for name in on]].tolist() == list(on.values())
        for name in [*on, *kept]:
            at = slot(shop, name)
            assert at != MISSING
            assert (shop.names[at], shop.entries[at].content.item_id, shop.campaigns[at]) == (name, name, f"of-{name}")
            assert shop.ad[at] == id64(name)
        assert {shop.names[at] for at in shop.eligible(DAY_MS).tolist()} == set(on)
        table.follow(shop)
        table.add(np.arange(len(shop)), np.ones((len(shop), 2)))
        assert table.total.tolist() == table.ads.sum(axis=0).tolist()


def test_a_shop_that_changes_a_fifth_of_its_ads_daily_for_years_takes_no_more_room_than_in_the_first_days() -> None:
    shop, sizes = a_shop(), []
    for day in range(800):
        names = [f"{day}-{n}" for n in range(4)]
        gone = [f"{day - 5}-{n}" for n in range(4)] if day >= 5 else []
        shop.withdraw(gone, told(day, gone))
        shop.upsert([entry(name, campaign_id=f"of-{day}") for name in names], told(day, names))
        sizes.append((len(shop), shop._slots.nbytes, len(shop.budget_ms) <= 2 * len(shop) + 2))
    assert sizes[10:] == [sizes[10]] * 790
    assert sizes[10][0] == 4 * (5 + KEPT_DAYS)
    assert shop.gone == 4 * 800 - len(shop)


def test_an_ad_that_comes_back_in_the_read_that_takes_its_slot_keeps_it() -> None:
    shop = a_shop()
    shop.upsert([entry("a"), entry("b")], told(0, "ab"))
    shop.withdraw(["a", "b"], told(1, "ab"))
    shop.upsert([entry("c")], told(9, "c"))
    assert len(shop) == 3  # it knows the time only now
    shop.upsert([entry("new"), entry("a", bid_micros=7)], told(9, "na"))
    assert (slot(shop, "a"), slot(shop, "new"), slot(shop, "b")) == (0, 1, MISSING)
    assert shop.bid_micros[0] == 7


def test_an_ad_in_the_place_of_another_is_no_change_of_the_others_campaigns_budget() -> None:
    shop = a_shop()
    shop.upsert([entry("a", campaign_id="one"), entry("b", campaign_id="one")], told(0, "ab"))
    shop.withdraw(["a"], told(1, "a"))
    shop.upsert([entry("b", campaign_id="one", bid_micros=7)], told(9, "b"))
    shop.upsert([entry("c", campaign_id="two")], told(9, "c"))
    assert shop.names == ["c", "b"]
    assert [shop.budget_ms[id64(name)] for name in ("one", "two")] == [*told(1, "a"), *told(9, "c")]


def test_an_ad_that_is_withdrawn_twice_is_forgotten_by_the_first_time() -> None:
    shop = a_shop()
    shop.upsert([entry("a")], told(0, "a"))
    for day in (1, 3):
        shop.withdraw(["a"], told(day, "a"))
    shop.upsert([entry("b")], told(1 + KEPT_DAYS, "b"))
    shop.upsert([entry("c")], told(1 + KEPT_DAYS, "c"))
    assert shop.names == ["c", "b"]


def test_of_ads_withdrawn_in_one_read_each_is_forgotten_by_its_own_time() -> None:
    shop = a_shop()
    shop.upsert([entry("late"), entry("early")], told(0, "le"))
    shop.withdraw(["late", "early"], [told(4, "l")[0], told(1, "e")[0]])
    shop.upsert([entry("c")], told(5, "c"))
    shop.upsert([entry("d")], told(5, "d"))
    assert shop.names == ["late", "c", "d"]


def test_where_no_record_tells_its_time_every_slot_is_kept() -> None:
    shop = a_shop()
    for name in "abc":
        shop.upsert([entry(name)])
        shop.withdraw([name])
    assert len(shop) == 3


def test_ads_beyond_the_bound_find_room_where_others_have_long_been_withdrawn() -> None:
    shop = Catalogue(ads_max=2, kept_ms=DAY_MS)
    shop.upsert([entry("a"), entry("b")], told(0, "ab"))
    shop.withdraw(["a"], told(0, "a"))
    shop.upsert([entry("b", bid_micros=2)], told(1, "b"))
    shop.upsert([entry("c")], told(1, "c"))
    assert shop.names == ["c", "b"]


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=200))
def test_a_map_is_the_dict_that_has_lost_what_was_dropped(changes: list[tuple[int, bool]]) -> None:
    ids, held = IdMap(8), dict[int, int]()
    for at, (key, kept) in enumerate(changes):
        if kept:
            ids.set(key, at)
            held[key] = at
        elif held.pop(key, None) is not None:
            ids.drop(np.array([key], dtype=np.uint64))
    asked = np.arange(1, 31, dtype=np.uint64)
    assert ids.get(asked).tolist() == [held.get(key, MISSING) for key in range(1, 31)]


def test_a_map_whose_ids_change_for_ever_does_not_grow() -> None:
    ids = IdMap(64)
    size = ids.nbytes
    for key in range(1, 20_000):
        ids.set(key * 2**20 + key, key)
        if key > 20:
            old = key - 20
            ids.drop(np.array([old * 2**20 + old], dtype=np.uint64))
    assert ids.nbytes == size


def test_a_lane_forgets_what_it_has_learned_of_ads_that_are_gone_while_its_worker_runs() -> None:
    shop, clicks = a_shop(), LaneClicks()
    batch, days, most = GONE_EVERY // 10, 60, 0
    for day in range(days):
        names = [f"{day}-{n}" for n in range(batch)]
        gone = [f"{day - 1}-{n}" for n in range(batch)] if day else []
        shop.withdraw(gone, told(day, gone))
        shop.upsert([entry(name) for name in names], told(day, names))
        clicks.layer.lifts.count(id64s(names), np.ones((batch, 2)))
        tombstones = [key for key, value in clicks.commit(shop) if value is None]
        assert len(tombstones) % batch == 0
        most = max(most, len(clicks.layer.lifts))
    assert most <= batch * (2 + KEPT_DAYS) + 2 * GONE_EVERY
    known = clicks.calibrator.rates.ads[shop.slots_of(id64s([f"{days - 1}-{n}" for n in range(batch)]))]
    assert (known == 1).all()


def test_a_pool_holds_no_ad_that_every_lane_has_forgotten_and_gives_its_place_to_another() -> None:
    pool = Pool()
    others = pool.others(9)
    for first in range(0, 50 * BUCKETS, BUCKETS):
        for lane in (0, 1):
            ads = np.array([first + BUCKETS, first + 2 * BUCKETS], dtype=np.uint64)
            pool.tell_bucket(lane, 0, ads, np.full((2, RECORD), lane + 1.0))
            assert others.records(ads.tolist()).max() == (1.0 if lane == 0 and first == 0 else 3.0)
    assert sorted(pool.place) == ads.tolist()
    assert others.records(ads.tolist()).tolist() == [[3.0] * RECORD] * 2
    assert len(pool._ads) <= 4
