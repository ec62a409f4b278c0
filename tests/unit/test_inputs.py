"""What the model sees: names and shapes of its contract, and what each number means."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import inputs
from scoring.events import Kind
from scoring.features import FEATURE_DIM, specification_hash
from scoring.ids import id64
from scoring.inputs import (
    CONTEXT_DIM,
    SCREEN_S,
    SKIPPED_AFTER_S,
    SPEC_HASH,
    STATS_DIM,
    SURFACES,
    History,
    HistoryKind,
    ModelInputs,
    closeness_of,
    context_of,
    cosines_of,
    empty_inputs,
    history_of,
    interest_of,
    recent_of,
    stats_of,
)
from scoring.rows import HORIZONS, PLACES, RING_SIZE, ROW, SHOWN_BIT, Rows, packed, place_of
from scoring.units import DAY_MS
from tests.builders import START_MS

NOW = np.array([START_MS])
NOWHERE = np.zeros(1, dtype=np.uint16)
FEED, SEARCH = np.array([3], dtype=np.uint16), np.array([5], dtype=np.uint16)


def row(**values: Any) -> Rows:
    out = np.zeros(1, dtype=ROW)
    for name, value in values.items():
        out[name] = value
    return out


def row_with_ring(*entries: tuple[str, int, Kind], surface: Any = NOWHERE, shown: bool = True) -> Rows:
    """A row that remembers (ad, seconds ago, kind), oldest first, all at ``surface [1]``."""
    out, met = row(), np.zeros((1, RING_SIZE), dtype=np.uint8)
    for place, (ad, ago_s, kind) in enumerate(entries, RING_SIZE - len(entries)):
        out["ring_ad"][0, place] = id64(ad)
        out["ring_s"][0, place] = START_MS // 1_000 - ago_s
        out["ring_kind"][0, place] = kind | (SHOWN_BIT if shown else 0)
        met[0, place] = place_of(surface)[0]
    out["ring_place"] = packed(met)
    return out


def context(of: Rows, now_ms: Any = NOW, surface: Any = NOWHERE) -> Any:
    """The context of one person, ``[X]``."""
    return context_of(of, history_of(of, now_ms), now_ms, surface)[0]


def recent(*entries: tuple[str, int, Kind], met_at: Any = FEED, asked_at: Any = FEED) -> Any:
    """What the ring tells of the outcomes of (ad, seconds ago, kind), ``[7]``."""
    return recent_of(history_of(row_with_ring(*entries, surface=met_at), NOW), asked_at)[0]


def stats(history: History, ads: list[str], unit: Any = None, features: Any = None, age_ms: Any = None) -> Any:
    """Stats of candidates for one person, ``[C, S]``; ads are numbered as they stand."""
    out = stats_of(
        np.arange(len(ads))[None, :],
        np.zeros((1, len(ads)), dtype=np.int64) if age_ms is None else age_ms,
        history,
        numbers(history, ads),
    )
    if unit is not None:
        cosines_of(unit, features, out)
    return out[0]


def numbers(history: History, ads: list[str]) -> Any:
    """Where each past item stands among ``ads``, ``[B, H]``; -1 where it does not."""
    places = {id64(ad): place for place, ad in enumerate(ads)}
    return np.array([[places.get(ad, -1) for ad in ring] for ring in history.ad.tolist()])


@pytest.mark.parametrize(
    ("kind", "ago_s", "seen_as"),
    [
        (Kind.SHOWN, 0, HistoryKind.OPEN),
        (Kind.SHOWN, SKIPPED_AFTER_S - 1, HistoryKind.OPEN),
        (Kind.SHOWN, SKIPPED_AFTER_S, HistoryKind.SKIPPED),
        (Kind.VIEWED, 10**6, HistoryKind.VIEWED),
        (Kind.VIEWED_LONG, 0, HistoryKind.VIEWED_LONG),
        (Kind.CLICKED, 10**6, HistoryKind.CLICKED),
        (Kind.CARTED, 0, HistoryKind.CARTED),
        (Kind.PURCHASED, 10**6, HistoryKind.PURCHASED),
        (Kind.NONE, 10**6, HistoryKind.PADDING),
    ],
)
def test_what_was_shown_and_not_acted_on_is_open_and_later_skipped(
    kind: Kind, ago_s: int, seen_as: HistoryKind
) -> None:
    assert history_of(row_with_ring(("ad-1", ago_s, kind)), NOW).kind[0, -1] == seen_as


def test_ages_are_seconds_since_and_never_negative() -> None:
    ring = row_with_ring(("ad-1", 120, Kind.CLICKED), ("ad-2", 0, Kind.CLICKED), ("ad-3", -50, Kind.CLICKED))

    assert history_of(ring, NOW).age_s[0, -3:].tolist() == [120, 0, 0]


def test_looking_at_the_ring_does_not_change_the_row() -> None:
    ring = row_with_ring(("ad-1", SKIPPED_AFTER_S, Kind.SHOWN))
    before = ring.tobytes()

    history = history_of(ring, NOW)
    history.ad[:], history.kind[:] = 1, 1

    assert ring.tobytes() == before


def test_rates_are_smoothed_by_ten_impressions_of_one_in_ten() -> None:
    nobody, somebody = row(), row(impressions=90, clicks=19, long_views=9, views=49, purchases=4)

    assert context(nobody)[[0, 1, 2, 3, 6]].tolist() == pytest.approx([0, 0.1, 0.1, 0.1, 0.1])
    assert context(somebody)[[0, 1, 2, 3, 6]].tolist() == pytest.approx([math.log(91) / 5, 0.2, 0.1, 0.5, 0.05])


def test_what_a_person_does_unasked_more_often_than_shown_counts_by_its_logarithm() -> None:
    often, machine = row(impressions=10, clicks=19, views=1_999), row(clicks=2**32 - 1, purchases=2**32 - 1)

    assert context(often)[[1, 3]].tolist() == pytest.approx([1, 1 + math.log(100)])
    assert context(machine)[[1, 6]].tolist() == pytest.approx([1 + math.log(2**32 / 10)] * 2)


@pytest.mark.parametrize(("hour", "sine", "cosine"), [(0, 0, 1), (6, 1, 0), (12, 0, -1), (18, -1, 0)])
def test_the_hour_is_a_place_on_a_circle(hour: int, sine: float, cosine: float) -> None:
    midnight = START_MS // DAY_MS * DAY_MS

    told = context(row(), np.array([midnight + hour * 3_600_000]))

    assert told[4:6].tolist() == pytest.approx([sine, cosine], abs=1e-6)


@pytest.mark.parametrize(("impressions", "viewed_ms", "mean_s"), [(0, 0, 0), (9, 50_000, 5), (0, 3_000, 3)])
def test_the_mean_time_looked_at_an_impression_counts_by_its_logarithm(
    impressions: int, viewed_ms: int, mean_s: float
) -> None:
    told = context(row(impressions=impressions, viewed_ms=viewed_ms))

    assert told[7] == pytest.approx(math.log1p(mean_s) / 5)


@pytest.mark.parametrize("surface", [1, SURFACES - 1, SURFACES + 3, 65_535])
def test_the_place_in_the_app_is_one_of_a_few(surface: int) -> None:
    places = context(row(surface=7), surface=np.array([surface], dtype=np.uint16))[-SURFACES:]

    assert places.shape == (SURFACES,)
    assert np.flatnonzero(places).tolist() == [surface % SURFACES]


def test_a_place_that_is_not_said_is_none() -> None:
    assert not context(row(surface=7))[-SURFACES:].any()


def test_of_outcomes_the_ring_tells_those_of_the_place_asked_for_and_of_the_session() -> None:
    ring = [("a", 7_200, Kind.CLICKED), ("b", 7_000, Kind.SHOWN), ("c", 900, Kind.VIEWED), ("d", 300, Kind.PURCHASED)]

    here, elsewhere = recent(*ring), recent(*ring, asked_at=SEARCH)

    assert here[:4].tolist() == pytest.approx([math.log1p(4) / 4, 0, math.log1p(2) / 4, 0])
    assert elsewhere[:2].tolist() == [0, 0]
    assert elsewhere[2:].tolist() == here[2:].tolist()


@pytest.mark.parametrize(("clicks", "others"), [(1, 0), (0, 1), (6, 2), (0, RING_SIZE), (RING_SIZE, 0)])
def test_the_balance_of_clicks_is_drawn_to_none_by_two_outcomes(clicks: int, others: int) -> None:
    ring = [("clicked", 200, Kind.CLICKED)] * clicks + [("skipped", 100, Kind.SHOWN)] * others

    assert recent(*ring)[[1, 3]].tolist() == pytest.approx([(clicks - others) / (clicks + others + 2)] * 2)


def test_what_is_open_is_no_outcome_yet_and_is_counted_apart() -> None:
    told = recent(("a", 600, Kind.CLICKED), ("b", 20, Kind.SHOWN), ("c", 5, Kind.SHOWN))

    assert told[0] == pytest.approx(math.log1p(1) / 4)
    assert told[4] == pytest.approx((math.log1p(10 * 365 * 86_400) - math.log1p(5)) / 10)  # the newest item
    assert told[5] == 1  # the newest outcome
    assert told[6] == pytest.approx(math.log1p(2))


def test_the_newest_outcome_is_a_click_or_none() -> None:
    clicked, looked = ("a", 200, Kind.CLICKED), ("b", 100, Kind.VIEWED_LONG)

    assert (recent(clicked, looked)[5], recent(looked, clicked)[5], recent()[5]) == (-1, 1, 0)


def test_what_was_found_and_not_shown_is_no_outcome() -> None:
    found = row_with_ring(("a", 200, Kind.CLICKED), surface=FEED, shown=False)

    assert not recent_of(history_of(found, NOW), FEED).any()


@given(st.integers(1, 2**16 - 1), st.sampled_from([0, 10**9, 2**31]))
def test_where_no_place_is_told_the_ring_tells_nothing_and_all_numbers_are_zero(surface: int, ago_s: int) -> None:
    asked = np.array([surface], dtype=np.uint16)

    assert not recent(("a", min(ago_s, START_MS // 1_000), Kind.CLICKED), met_at=NOWHERE, asked_at=asked).any()
    assert not recent(asked_at=asked).any()


@given(st.integers(0, 2**32 - 1))
def test_what_the_ring_tells_is_bounded_whatever_it_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.zeros(20, dtype=ROW)
    rows["ring_ad"], rows["ring_s"] = 1, rng.integers(0, 2**32, rows["ring_s"].shape)
    rows["ring_kind"] = rng.integers(0, 7, (20, RING_SIZE)) | rng.choice([0, SHOWN_BIT], (20, RING_SIZE))
    rows["ring_place"] = rng.integers(0, 256, (20, RING_SIZE // 2))
    now_ms = np.repeat(NOW, 20)

    told = recent_of(history_of(rows, now_ms), rng.integers(1, 1 + PLACES, 20).astype(np.uint16))

    assert (np.abs(told) <= [1, 1, 1, 1, 2, 1, 4]).all()


def test_interests_are_unit_vectors_and_their_sum_and_nothing_stays_nothing() -> None:
    vectors = np.zeros((2, HORIZONS, FEATURE_DIM), dtype=np.float32)
    vectors[0, 0, 3], vectors[0, 1, 5] = 10, 0.01

    unit, interest = interest_of(vectors)

    assert unit[0, 0, 3] == pytest.approx(1)
    assert unit[0, 1, 5] == pytest.approx(1)
    assert interest[0, [3, 5]].tolist() == pytest.approx([1, 1])
    assert not unit[1].any()
    assert not interest[1].any()
    assert interest.dtype == np.float32


def test_stats_join_interest_and_candidate_by_the_cosine_of_each_horizon() -> None:
    unit = np.zeros((1, HORIZONS, FEATURE_DIM), dtype=np.float32)
    unit[0, 0, 0], unit[0, 1, 1] = 1, 1
    features = np.zeros((1, 2, FEATURE_DIM), dtype=np.float32)
    features[0, 0, 0], features[0, 1, 1] = 0.6, -0.8

    out = stats(history_of(row(), NOW), ["ad-1", "ad-2"], unit, features)

    assert out[:, :2].tolist() == [pytest.approx([0.6, 0]), pytest.approx([0, -0.8])]


def test_stats_tell_how_often_how_recently_and_with_what_outcome_the_person_met_an_ad() -> None:
    ring = row_with_ring(
        ("skipped", 600, Kind.SHOWN),
        ("twice", 300, Kind.SHOWN),
        ("twice", 10, Kind.CLICKED),
        ("looked", 20, Kind.VIEWED),
        ("looked-long", 0, Kind.VIEWED_LONG),
        ("open", 5, Kind.SHOWN),
    )

    out = stats(history_of(ring, NOW), ["skipped", "twice", "looked", "looked-long", "open", "never"])

    assert out[:, 2].tolist() == pytest.approx([math.log1p(count) for count in (1, 2, 1, 1, 1, 0)])
    recency = [1 / (1 + math.log1p(age)) for age in (600, 10, 20, 0, 5)]
    assert out[:, 3].tolist() == pytest.approx([*recency, 0])
    assert out[:, 4].tolist() == [0, 1, 0, 1, 0, 0]  # acted on
    assert out[:, 5].tolist() == [1, 1, 0, 0, 0, 0]  # skipped
    assert out[:, 7].tolist() == pytest.approx([6 / RING_SIZE] * 6)


def test_an_ads_age_is_in_log_days_and_an_ad_that_starts_later_has_none() -> None:
    ages = np.array([[0, DAY_MS, -DAY_MS]])

    out = stats(history_of(row(), NOW), ["a", "b", "c"], age_ms=ages)

    assert out[:, 6].tolist() == pytest.approx([0, math.log(2) / 5, 0])


def test_people_of_one_call_do_not_see_each_others_past() -> None:
    rings = np.concatenate([row_with_ring(("ad-1", 10, Kind.CLICKED)), row_with_ring(("ad-2", 10, Kind.SHOWN))])
    history = history_of(rings, np.repeat(NOW, 2))

    out = stats_of(
        np.array([[0, 1]] * 2), np.zeros((2, 2), dtype=np.int64), history, numbers(history, ["ad-1", "ad-2"])
    )

    assert (out[:, :, 2] > 0).tolist() == [[True, False], [False, True]]
    assert out[:, :, 4].tolist() == [[1, 0], [0, 0]]


def test_of_an_unknown_candidate_nobodys_past_is_told() -> None:
    rings = np.concatenate([row_with_ring((ad, 10, Kind.CLICKED)) for ad in ("ad-1", "ad-0", "ad-1")])
    history, unknown = history_of(rings, np.repeat(NOW, 3)), np.array([[-2, 0], [-1, 1], [-2, 1]])

    out = stats_of(unknown, np.zeros((3, 2), dtype=np.int64), history, numbers(history, ["ad-0", "ad-1"]))

    assert (out[:, :, 2] > 0).tolist() == [[False, False], [False, False], [False, True]]
    assert out[:, :, 4].tolist() == [[0, 0], [0, 0], [0, 1]]


def test_what_stands_on_the_same_screen_is_no_past_of_what_is_shown_but_of_what_is_shown_next() -> None:
    before = (("a", 90, Kind.CLICKED), ("b", SCREEN_S, Kind.SHOWN))
    screen = (("c", 1, Kind.SHOWN), ("d", 0, Kind.SHOWN))
    alone = row_with_ring(*before, surface=FEED)
    together = row_with_ring(*before, *screen, surface=FEED)
    alone["impressions"], together["impressions"] = 7, 9

    def seen(rows: Rows, *, shown: bool) -> tuple[Any, ...]:
        past = history_of(rows, NOW, shown=shown)
        met = past.kind[0] > 0
        return past.ad[0, met].tolist(), past.kind[0, met].tolist(), context_of(rows, past, NOW, FEED)[0].tolist()

    assert seen(together, shown=True) == seen(alone, shown=True) == seen(alone, shown=False)
    assert seen(together, shown=False)[0] == [id64(ad) for ad in "abcd"]
    assert seen(together, shown=False)[2] != seen(alone, shown=False)[2]
    acted = row_with_ring(("a", 0, Kind.CLICKED), ("b", 1, Kind.VIEWED_LONG), surface=FEED)
    found = row_with_ring(("a", 0, Kind.SHOWN), surface=FEED, shown=False)
    assert (history_of(acted, NOW, shown=True).kind > 0).sum() == 2
    assert (history_of(found, NOW, shown=True).kind > 0).sum() == 1


@given(st.integers(0, 2**32 - 1))
def test_the_past_of_candidates_is_that_of_a_search_through_all_whatever_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people, count, among = rng.integers(1, 4), rng.integers(1, 9), 12
    candidates = np.stack([rng.choice(among, count, replace=False) for _ in range(people)])
    past_items = rng.integers(-1, among, (people, RING_SIZE))
    age_s = rng.integers(0, 1_000, past_items.shape).astype(np.float32)
    kind = rng.integers(1, len(HistoryKind), past_items.shape)
    ads, none = np.zeros(past_items.shape, dtype=np.uint64), np.zeros(people, dtype=np.int64)
    past = History(ads, age_s, kind, kind > 0, kind.astype(np.uint8), none)

    out = stats_of(candidates, np.zeros(candidates.shape, dtype=np.int64), past, past_items)

    for person, place in np.ndindex(candidates.shape):
        met = past_items[person] == candidates[person, place]
        kinds = kind[person, met]
        acted = (kinds >= HistoryKind.VIEWED_LONG) & (kinds != HistoryKind.SKIPPED)
        recency = 1 / (1 + np.log1p(age_s[person, met].min(initial=np.inf))) if met.any() else 0
        assert out[person, place, 2:6].tolist() == pytest.approx(
            [np.log1p(met.sum()), recency, float(acted.any()), float((kinds == HistoryKind.SKIPPED).any())], rel=1e-6
        )


def test_the_feed_has_the_names_and_shapes_of_the_contract() -> None:
    feed = empty_inputs(users=2, candidates=3, width=5).feed()

    assert {name: array.shape for name, array in feed.items()} == {
        "history": (2, RING_SIZE, 5),
        "history_age": (2, RING_SIZE),
        "history_kind": (2, RING_SIZE),
        "history_mask": (2, RING_SIZE),
        "interest": (2, FEATURE_DIM),
        "candidates": (2, 3, 5),
        "candidate_features": (2, 3, FEATURE_DIM),
        "candidate_stats": (2, 3, STATS_DIM),
        "context": (2, CONTEXT_DIM),
    }
    assert {name for name, array in feed.items() if array.dtype != np.float32} == {"history_kind"}
    assert list(feed) == [field.name for field in fields(ModelInputs)]


def test_the_specification_names_every_statistic_and_every_number_of_the_context() -> None:
    specification = inputs.INPUTS_SPECIFICATION

    assert len(specification["candidate_stats"]) == STATS_DIM  # type: ignore[arg-type]  # a JSON value
    assert len(specification["context"]) - 1 + SURFACES == CONTEXT_DIM  # type: ignore[arg-type]  # a JSON value
    assert specification_hash(specification) == SPEC_HASH


def test_closeness_is_the_cosine_with_the_long_interest_and_none_where_there_is_no_interest() -> None:
    stats = np.zeros((2, 3, STATS_DIM), dtype=np.float32)
    stats[:, :, 0], stats[0, :, 1] = 0.9, (0.25, -0.5, 0.0)
    assert closeness_of(stats)[0].tolist() == pytest.approx([0.25, -0.5, np.nan], nan_ok=True)
    assert np.isnan(closeness_of(stats)[1]).all()
