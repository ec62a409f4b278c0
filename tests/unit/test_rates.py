"""How often ads and brands are clicked, as every event finds it told, and as placements do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue
from scoring.events import EVENT, Kind, Source
from scoring.examination import SLOTS_MAX, assumed
from scoring.ids import MISSING
from scoring.rates import EXPECTED_MAX, RATE_PRIOR, RATES, RATES_DIM, TONED, RateTable, counts_of
from tests.builders import catalogue, entry

ADS = 9
HALF = 2e-3
"""Half precision, of numbers up to 4."""


def shop(brands: tuple[str, ...] = ("", "a", "i")) -> Catalogue:
    """Nine ads, every third of the same brand: of none, of one whose id is above that of none, and of one below it."""
    out = Catalogue()
    out.upsert([entry(f"ad-{n}", brand=brands[n % len(brands)]) for n in range(ADS)])
    return out


def table_of(catalogue: Catalogue) -> RateTable:
    table = RateTable()
    table.follow(catalogue)
    return table


def expected_of(counts: tuple[float, float], total: tuple[float, float]) -> tuple[float, float]:
    """Lift and evidence of (shown, clicked), where everything was (shown, clicked) in all."""
    expected = counts[0] * (total[1] + 1) / (total[0] + 10)
    lift = math.log((counts[1] + RATE_PRIOR) / (expected + RATE_PRIOR))
    return lift, math.log1p(min(expected, EXPECTED_MAX)) / 5


class OneByOne:
    """The same in plain Python, an event at a time."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.brands = [each.content.brand for each in catalogue.entries]
        self.counts: dict[object, tuple[float, float]] = {}

    def event(self, slot: int, counts: tuple[float, float]) -> list[float]:
        if slot == MISSING:
            return [0.0] * RATES_DIM
        brand = self.brands[slot]
        names: list[object] = [slot, brand, "all of them"] if brand else [slot, None, "all of them"]
        ad, of_brand, total = (self.counts.get(name, (0.0, 0.0)) for name in names)
        for name in names:
            if name is not None:
                was = self.counts.get(name, (0.0, 0.0))
                self.counts[name] = was[0] + counts[0], was[1] + counts[1]
        return [*expected_of(ad, total), *expected_of(of_brand, total), 0.0, 0.0]


EVENTS = st.lists(st.tuples(st.integers(MISSING, ADS - 1), st.sampled_from([(0, 0), (1, 0), (0, 1)])), max_size=60)


@given(EVENTS, st.lists(st.integers(0, 60), max_size=4))
def test_every_event_finds_what_those_before_it_have_counted_wherever_the_stream_is_cut(
    events: list[tuple[int, tuple[int, int]]], cuts: list[int]
) -> None:
    ads = shop()
    whole, parted, plain = table_of(ads), table_of(ads), OneByOne(ads)
    slots = np.array([slot for slot, _ in events], dtype=np.int64)
    counts = np.array([count for _, count in events], dtype=np.float64).reshape(-1, 2)
    told = whole.running(slots, counts)
    pieces = (np.split(each, sorted(cuts)) for each in (slots, counts))
    parts = [parted.running(*piece) for piece in zip(*pieces, strict=True)]
    one_by_one = np.array([plain.event(*event) for event in events]).reshape(-1, RATES_DIM)
    np.testing.assert_array_equal(np.concatenate(parts), told)
    np.testing.assert_allclose(told, one_by_one, atol=HALF)
    everything = np.arange(ADS)
    np.testing.assert_array_equal(parted.at(everything), whole.at(everything))
    np.testing.assert_allclose(whole.at(everything), [plain.event(slot, (0, 0)) for slot in range(ADS)], atol=HALF)


def test_of_what_nobody_has_seen_nothing_is_told() -> None:
    table = table_of(shop())
    table.add(np.array([1]), np.array([[50.0, 30.0]]))
    told = table.at(np.arange(ADS).reshape(3, 3))
    assert told.shape == (3, 3, len(RATES))
    assert not told[0, 0].any()  # neither seen nor of a brand that was
    assert not told[1, 1, :2].any()  # itself unseen
    assert told[1, 1, 2:TONED].all()  # its brand was
    assert not RateTable().at(np.arange(4)).any()


def test_an_ad_that_is_clicked_more_often_than_all_is_lifted_and_one_that_is_not_falls() -> None:
    table = table_of(shop())
    table.set(np.array([1, 2]), np.array([[1_000.0, 200.0], [1_000.0, 20.0]]))
    (liked, much, *_), (ignored, *_) = table.at(np.array([1, 2])).tolist()
    assert (liked, ignored) == (
        pytest.approx(math.log((200 + 8) / (1_000 * 221 / 2_010 + 8)), abs=HALF),
        pytest.approx(math.log((20 + 8) / (1_000 * 221 / 2_010 + 8)), abs=HALF),
    )
    assert much == pytest.approx(math.log1p(1_000 * 221 / 2_010) / 5, abs=HALF)
    table.set(np.array([1]), np.array([[1e9, 1e8]]))
    assert table.at(np.array([1]))[0, 1] == pytest.approx(math.log1p(EXPECTED_MAX) / 5, abs=HALF)


def test_counts_that_are_set_are_in_place_of_those_before_them_for_ads_brands_and_everything() -> None:
    table, once = table_of(shop()), table_of(shop())
    table.add(np.array([1, 4]), np.array([[90.0, 50.0], [5.0, 2.0]]))
    for counts in ([[30.0, 3.0], [7.0, 7.0]], [[40.0, 9.0], [6.0, 1.0]]):
        table.set(np.array([1, 2]), np.array(counts))
    once.add(np.array([1, 2, 4]), np.array([[40.0, 9.0], [6.0, 1.0], [5.0, 2.0]]))
    assert table.ads.tolist() == once.ads.tolist()
    assert table.total.tolist() == [51.0, 12.0]
    np.testing.assert_array_equal(table.at(np.arange(ADS)), once.at(np.arange(ADS)))


def test_what_is_told_is_exact_in_the_half_precision_of_receipts() -> None:
    table = table_of(shop())
    table.add(np.arange(ADS), np.random.default_rng(1).integers(1, 300, (ADS, 2)).astype(float))
    told = table.at(np.arange(ADS))
    assert told.dtype == np.float32
    np.testing.assert_array_equal(told.astype(np.float16).astype(np.float32), told)


def test_an_ad_that_comes_to_another_brand_brings_what_it_has_and_new_ads_come_with_nothing() -> None:
    ads = shop()
    table = table_of(ads)
    table.add(np.arange(ADS), np.full((ADS, 2), 10.0))
    ads.upsert([entry("ad-1", brand="i"), entry("ad-2", brand=""), entry("new", brand="c")])
    assert table.follow(ads).tolist() == [ADS]
    assert not len(table.follow(ads))
    again = table_of(ads)
    again.add(np.arange(ADS), np.full((ADS, 2), 10.0))
    np.testing.assert_array_equal(table.at(np.arange(ADS + 1)), again.at(np.arange(ADS + 1)))
    assert not table.at(np.array([2]))[0, 2:].any()
    assert not table.at(np.array([ADS]))[0].any()


def test_brands_that_no_ad_has_any_more_are_let_go_and_the_others_keep_their_counts() -> None:
    catalogue, slots = shop(), np.arange(ADS)
    table = table_of(catalogue)
    table.add(slots, np.column_stack([np.full(ADS, 90.0), slots]))
    for turn in range(3 * ADS):
        catalogue.upsert([entry("ad-1", brand=f"season {turn}")])
        table.follow(catalogue)
        assert len(table._brands) <= 2 * ADS + 1
    fresh = table_of(catalogue)
    fresh.set(slots, table.ads)
    np.testing.assert_array_equal(table.at(slots), fresh.at(slots))


def test_what_stands_at_no_told_place_was_refused_or_is_not_first_to_click_counts_for_nothing() -> None:
    events = np.zeros(7, dtype=EVENT)
    events["surface"], events["slot"], events["source"][3:] = 7, -1, Source.CLICK
    applied, clicked = np.ones(7, dtype=bool), np.array([0, 0, 0, 1, 1, 1, 0], dtype=bool)
    events["surface"][[1, 4]], applied[[2, 5]] = 0, False
    assert counts_of(events, applied, clicked).tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]] + [[0, 0]] * 3


def test_an_impression_counts_as_much_as_its_slot_is_thought_to_be_looked_at() -> None:
    events = np.zeros(4, dtype=EVENT)
    events["surface"], events["kind"], events["slot"] = 7, Kind.SHOWN, [-1, 0, 9, 30_000]
    counts = counts_of(events, np.ones(4, dtype=bool), np.zeros(4, dtype=bool))
    assert counts[:, 0].tolist() == [1, 1, *assumed(SLOTS_MAX)[[9, SLOTS_MAX - 1]].tolist()]
    assert not counts[:, 1].any()


def test_a_catalogue_that_grows_by_many_ads_is_followed() -> None:
    ads = catalogue(3)
    table = table_of(ads)
    ads.upsert([entry(f"more-{n}", brand=f"brand-{n % 700}") for n in range(5_000)])
    assert len(table.follow(ads)) == 5_000
    table.add(np.arange(3, 5_003), np.ones((5_000, 2)))
    told = table.at(np.arange(3, 5_003))
    of_first = [n for n in range(5_000) if n % 700 == 0]
    assert np.unique(told[of_first, 2]).size == 1
    assert told[:, 3].all()
