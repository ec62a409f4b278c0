"""How ads are reviewed, as a model is told of it: live, and in training as it was at the time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue
from scoring.ids import id64, id64s
from scoring.rates import RATES_DIM, TONED, RateTable
from scoring.tones import MEMORY, NOTHING_SAID, TONE_PRIOR, TONES_DIM, ToneHistory, ToneTable
from tests.builders import catalogue, entry

HALF = 1e-3
"""Half precision, of numbers up to 1."""


def heard(*said: tuple[str, float, float]) -> ToneTable:
    table = ToneTable()
    table.take(id64s([ad for ad, *_ in said]), np.array([each for _, *each in said]).reshape(-1, 2))
    return table


def test_a_tone_is_told_by_how_far_it_lies_above_that_of_all_reviews_and_drawn_to_it_where_they_are_few() -> None:
    table = heard(("loved", 90, 0.9), ("hated", 90, 0.5), ("new", 2, 1.0))
    usual = (90 * 0.9 + 90 * 0.5 + 2 * 1.0) / 182
    (loved, many), (hated, _), (new, few) = table.of(id64s(["loved", "hated", "new"])).tolist()
    assert loved == pytest.approx((0.9 - usual) * 90 / (90 + TONE_PRIOR), abs=HALF)
    assert hated == pytest.approx((0.5 - usual) * 90 / (90 + TONE_PRIOR), abs=HALF)
    assert new == pytest.approx((1.0 - usual) * 2 / (2 + TONE_PRIOR), abs=HALF)
    assert (many, few) == (pytest.approx(math.log1p(90) / 5, abs=HALF), pytest.approx(math.log1p(2) / 5, abs=HALF))


def test_of_ads_that_nobody_reviewed_or_that_are_withdrawn_nothing_is_told() -> None:
    table = heard(("shoe", 30, 0.9), ("boot", 30, 0.2))
    assert not table.of(id64s(["sock"])).any()
    table.take(id64s(["boot"]), np.zeros((1, 2)))
    assert not table.of(id64s(["boot"])).any()
    assert table.of(id64s(["shoe"]))[0, 0] == 0  # all the reviews there are are its own
    assert not ToneTable().of(id64s(["shoe", "boot"])).any()


def test_ads_that_come_and_go_leave_no_more_places_than_twice_those_that_stay() -> None:
    table = heard(("stays", 30, 0.9))
    for at in range(50):
        names = id64s([f"ad-{at}-{n}" for n in range(10)])
        table.take(names, np.full((10, 2), [20, 0.4]))
        assert table.of(names)[:, 0].max() < 0 < table.of(id64s(["stays"]))[0, 0]
        table.take(names, np.zeros((10, 2)))
        assert not table.of(names).any()
        assert table.of(id64s(["stays"])).any()
    assert len(table) < 25
    ten = heard(*((f"ad-{at}", 20, 0.4) for at in range(10)))
    for gone, places in ((5, 10), (6, 4)):
        ten.take(id64s([f"ad-{at}" for at in range(gone)]), np.zeros((gone, 2)))
        assert len(ten) == places


def test_more_reviews_than_a_tone_remembers_count_as_so_many() -> None:
    some, many = (heard(("shoe", count, 0.9), ("boot", 50, 0.2)) for count in (MEMORY, 1_000_000))
    np.testing.assert_array_equal(some.of(id64s(["shoe", "boot"])), many.of(id64s(["shoe", "boot"])))


def test_a_tone_that_comes_before_its_ad_is_told_once_the_ad_is_there() -> None:
    ads, rates = Catalogue(), RateTable()
    ads.tones.take(id64s(["ad-1", "ad-0"]), np.array([[20, 0.9], [20, 0.5]]))
    assert ads.tone.shape == (0, TONES_DIM)
    ads.upsert([entry("ad-0"), entry("ad-1")])
    rates.follow(ads)
    assert rates.at(np.array([1]))[0, TONED] > 0 > rates.at(np.array([0]))[0, TONED]
    ads.tones.take(id64s(["ad-1"]), np.array([[20, 0.1]]))
    assert rates.at(np.array([1]))[0, TONED] > 0  # no slice sees half an update
    rates.follow(ads)
    assert rates.at(np.array([1]))[0, TONED] < 0 < rates.at(np.array([0]))[0, TONED]


def test_every_event_of_a_slice_and_every_candidate_is_told_the_same_of_an_ads_reviews() -> None:
    ads, rates = catalogue(3), RateTable()
    ads.tones.take(ads.ad[:2], np.array([[20, 0.9], [20, 0.5]]))
    rates.follow(ads)
    slots = np.array([2, 0, 1, 0])
    running = rates.running(slots, np.ones((4, 2)))
    assert running.shape == (4, RATES_DIM)
    np.testing.assert_array_equal(running[:, TONED:], rates.at(slots)[:, TONED:])
    np.testing.assert_array_equal(running[:, TONED:], ads.tone[slots])
    assert running[1:, TONED:].all()
    assert not running[0, TONED:].any()


ADS = ("a", "b", "c")
SAID = st.lists(
    st.tuples(st.sampled_from(ADS), st.integers(0, 9), st.integers(0, 200), st.floats(0, 1)), max_size=25
)  # ad, time, reviews, tone
ASKED = st.lists(st.tuples(st.sampled_from((*ADS, "unknown")), st.integers(0, 10)), min_size=1, max_size=25)


@given(SAID, ASKED)
def test_in_training_an_impression_finds_what_the_table_held_strictly_before_it_and_nothing_of_later(
    said: list[tuple[str, int, int, float]], asked: list[tuple[str, int]]
) -> None:
    said = sorted(said, key=lambda one: one[1])
    history = ToneHistory(
        id64s([ad for ad, *_ in said]),
        np.array([time for _, time, *_ in said], dtype=np.int64),
        np.array([[reviews, tone] for *_, reviews, tone in said], dtype=np.float64).reshape(-1, 2),
    )
    told = history.before(id64s([ad for ad, _ in asked]), np.array([time for _, time in asked]))
    for (ad, time), found in zip(asked, told, strict=True):
        table = ToneTable()
        for name, when, *numbers in said:
            if when < time:
                table.take(np.array([id64(name)], dtype=np.uint64), np.array([numbers]))
        np.testing.assert_allclose(found, table.of(id64s([ad]))[0], atol=HALF)


def test_where_nobody_has_said_anything_nothing_is_told() -> None:
    told = NOTHING_SAID.before(id64s(["a", "b"]), np.array([1, 2]))
    assert told.shape == (2, TONES_DIM)
    assert not told.any()
