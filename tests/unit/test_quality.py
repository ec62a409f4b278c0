"""Calibration, log loss, AUC and drift of click predictions, from outcomes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.feedback import JUDGED
from streams.quality import HELD_MAX, KEPT, LEAST, Quality, Settled

SETTLING = np.dtype(
    [
        ("predicted", "<f8"),
        ("clicked", "u1"),
        *((name, "<i8") for name in ("shown_ms", "known_ms", "ends_ms", "number")),
    ]
)


def outcomes(predicted: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    found = np.zeros(len(predicted), dtype=JUDGED)
    found["predicted"], found["clicked"] = predicted, clicked
    return found


def world(count: int, seed: int, factor: float = 1.0) -> np.ndarray:
    """Chances of a few per cent; clicks come ``factor`` times as often as predicted."""
    random = np.random.default_rng(seed)
    predicted = random.beta(2, 40, count)
    return outcomes(predicted, random.random(count) < factor * predicted)


def test_too_few_outcomes_tell_nothing() -> None:
    quality = Quality()
    quality.observe(world(LEAST - 1, 1))
    assert all(map(math.isnan, quality.figures()))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_calibration_is_how_many_clicks_there_are_for_one_predicted(factor: float) -> None:
    quality = Quality()
    quality.observe(world(KEPT, 2, factor))
    assert quality.figures()[0] == pytest.approx(factor, rel=0.1)


@pytest.mark.train
@given(st.integers(0, 2**32), st.lists(st.integers(0, 700), max_size=8))
def test_figures_are_those_of_the_library_however_outcomes_are_cut(seed: int, cuts: list[int]) -> None:
    why = "scikit-learn is not installed: pip install 'salience[checks]'"
    metrics = pytest.importorskip("sklearn.metrics", reason=why)
    found = world(2_000, seed)
    found["predicted"] = found["predicted"].round(2)  # many ties
    quality = Quality()
    for part in np.split(found, np.cumsum(cuts)[np.cumsum(cuts) < len(found)]):
        quality.observe(part)

    calibration, loss, auc = quality.figures()

    assert calibration == pytest.approx(found["clicked"].sum() / found["predicted"].sum())
    sure = np.clip(found["predicted"], 1e-7, 1 - 1e-7)
    assert loss == pytest.approx(metrics.log_loss(found["clicked"], sure))
    assert auc == pytest.approx(metrics.roc_auc_score(found["clicked"], found["predicted"]))


def test_ranks_of_clicks_are_told_once_and_their_mean_is_the_auc_of_the_time_between() -> None:
    found, quality = world(4 * KEPT, 5), Quality()
    quality.observe(found[: LEAST - 1])
    assert len(quality.ranks()) == 0, "too few outcomes"
    told = []
    for part in np.array_split(found[LEAST - 1 :], 50):
        quality.observe(part)
        told.append(quality.ranks())
        assert len(quality.ranks()) == 0, "told already"
    ranks = np.concatenate(told)
    assert len(ranks) == found["clicked"].sum()
    whole = Quality()
    whole.observe(found)
    kept, auc = whole.ranks(), whole.figures()[2]
    assert kept.mean() == pytest.approx(auc), "of what is kept, where more has come"
    assert ranks.mean() == pytest.approx(auc, abs=3 / math.sqrt(12 * len(kept)))


def test_ranks_of_clicks_in_an_order_of_chance_are_a_half_by_their_standard_error() -> None:
    found, quality, told = world(10 * KEPT, 6), Quality(), []
    found["predicted"] = np.random.default_rng(7).permutation(found["predicted"])
    for part in np.array_split(found, 100):
        quality.observe(part)
        told.append(quality.ranks())
    ranks = np.concatenate(told)
    assert ranks.std() == pytest.approx(1 / math.sqrt(12), rel=0.02)
    assert abs(ranks.mean() - 0.5) * math.sqrt(12 * len(ranks)) < 3


def test_only_the_latest_outcomes_count() -> None:
    quality = Quality()
    quality.observe(world(KEPT, 3, factor=3.0))
    quality.observe(world(2 * KEPT, 4))
    assert quality.figures()[0] == pytest.approx(1.0, rel=0.1)


def test_without_a_click_there_is_no_order_to_judge() -> None:
    quality = Quality()
    quality.observe(outcomes(np.full(LEAST, 0.02), np.zeros(LEAST)))
    calibration, loss, auc = quality.figures()
    assert (calibration, math.isnan(auc), len(quality.ranks())) == (0.0, True, 0)
    assert loss == pytest.approx(-math.log(0.98))


def test_a_steady_world_is_no_drift() -> None:
    steady = Quality()
    steady.watch(world(300_000, 5))
    assert steady.drifts == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_click_rate_that_doubles_from_two_in_a_hundred_is_a_drift_within_a_quarter_of_what_is_looked_back_on(
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    changed = Quality()
    changed.watch(outcomes(np.full(KEPT, 0.02), random.random(KEPT) < 0.02))
    assert changed.drifts == 0
    changed.watch(outcomes(np.full(KEPT // 4, 0.02), random.random(KEPT // 4) < 0.04))
    assert changed.drifts >= 1


@pytest.mark.parametrize("begins", [0, 70])
def test_clicks_wait_for_what_else_was_shown_in_their_time_also_for_who_comes_later(begins: int) -> None:
    """A shop that has just opened: a click is told after a second, that there is none after ten minutes."""
    random, count = np.random.default_rng(8), 100_000
    found = np.zeros(count, dtype=SETTLING)
    found["predicted"], found["clicked"] = 0.05, random.random(count) < 0.05
    found["shown_ms"] = 15 * np.arange(count)
    found["ends_ms"] = found["shown_ms"] + 600_000
    found["known_ms"] = np.where(found["clicked"], found["shown_ms"] + 1_000, found["ends_ms"])
    told = found[np.argsort(found["known_ms"], kind="stable")]
    as_they_come, settled, held_back = Quality(), Quality(), Settled()
    seen, worst = [], 1.0
    for part in np.array_split(told, 200)[begins:]:
        as_they_come.observe(part)
        worst = float(np.nanmax([worst, as_they_come.figures()[0]]))
        counted = held_back.take(0, part)
        settled.observe(counted)
        settled.watch(counted)
        seen.append(settled.figures()[0])
    assert 0.75 < np.nanmin(seen) <= np.nanmax(seen) < 1.3
    assert math.isfinite(seen[-1])
    assert worst == pytest.approx(20 if begins == 0 else 1, rel=0.2)
    assert (
        settled.drifts == 0
    )  # of clicks that come in a row, before what else was shown in their time, there were many


def test_what_is_counted_at_once_is_in_the_order_in_which_windows_ended_and_in_which_it_was_shown() -> None:
    rows, settled = np.zeros(5, dtype=SETTLING), Settled()
    rows["number"] = np.arange(5)
    rows["shown_ms"], rows["ends_ms"] = (9, 6, 7, 8, 9), (15, 16, 17, 17, 17)
    rows["known_ms"], rows["clicked"] = (15, 6, 17, 8, 17), (0, 1, 0, 1, 0)
    told = rows[np.argsort(rows["known_ms"], kind="stable")]
    assert len(settled.take(0, told[:2])) == 0
    assert settled.take(0, told[2:])["number"].tolist() == [0, 1, 2, 3, 4]


def evenings(apart_ms: int) -> list[np.ndarray]:
    """Outcomes of a steady shop that rests at night, in reads of a thousand: what is open is told in the morning."""
    random, count = np.random.default_rng(8), 120_000
    found = np.zeros(count, dtype=SETTLING)
    at = np.arange(count)
    found["predicted"], found["clicked"] = 0.05, random.random(count) < 0.05
    found["shown_ms"] = apart_ms * at + at // 40_000 * 12 * 3_600_000
    found["ends_ms"] = found["shown_ms"] + 600_000
    found["known_ms"] = np.where(found["clicked"], found["shown_ms"] + 1_000, found["ends_ms"])
    slices = found["shown_ms"][::100]  # a lane looks at its clock so often
    later = slices[np.minimum(np.searchsorted(slices, found["known_ms"]), len(slices) - 1)]
    found["known_ms"] = np.maximum(later, found["known_ms"].min())
    told = found[np.argsort(found["known_ms"], kind="stable")]
    moments = np.split(told, np.flatnonzero(np.diff(told["known_ms"])) + 1)
    return [part for moment in moments for part in np.split(moment, range(1_000, len(moment), 1_000))]


@pytest.mark.parametrize("apart_ms", [50, 20], ids=["what waits is held", "more waits than is held"])
def test_where_reads_end_within_what_was_told_at_one_moment_a_steady_world_is_no_drift(apart_ms: int) -> None:
    reads = evenings(apart_ms)
    assert max(map(len, reads)) == 1_000
    whole, cut = (Quality(), Settled()), (Quality(), Settled(cut=True))
    for part in reads:
        for quality, settled in (whole, cut):
            quality.watch(settled.take(0, part))
    assert whole[0].drifts > 0  # clicks of a whole night, with the first of its non-clicks
    assert cut[0].drifts == 0


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 2)), max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
    st.integers(-20, 20),
)
def test_a_lanes_counted_outcomes_are_those_whose_windows_have_ended_whatever_devices_and_other_lanes_say(
    shown: list[tuple[int, int, int]], cuts: list[int], skew: int
) -> None:
    """Of each: when it was shown by its lane's clock, after how long it was clicked (9: not), its lane."""
    rows, lane = np.zeros(len(shown), dtype=SETTLING), np.array([lane for *_, lane in shown], dtype=np.int64)
    rows["number"] = np.arange(len(shown))
    at, after = np.array(shown, dtype=np.int64).reshape(-1, 3).T[:2]
    rows["shown_ms"], rows["ends_ms"], rows["known_ms"] = 100 + at + skew, 100 + at + 9, 100 + at + after
    rows["clicked"] = after < 9
    told, settled = np.argsort(rows["known_ms"], kind="stable"), Settled()
    counted: list[int] = []
    for part in np.split(told, sorted(cuts)):
        for each in np.unique(lane[part]).tolist():
            counted += settled.take(each, rows[part[lane[part] == each]])["number"].tolist()
    expected: list[int] = []
    for each in np.unique(lane).tolist():
        of = rows[told[lane[told] == each]]
        heard = of["shown_ms"] >= of["known_ms"][0]
        expected += of["number"][heard & (of["ends_ms"] <= of["known_ms"].max())].tolist()
    assert sorted(counted) == sorted(expected)


def test_what_a_former_version_told_is_counted_as_it_comes() -> None:
    rows = np.zeros(2, dtype=SETTLING)
    rows["shown_ms"], rows["known_ms"], rows["clicked"] = 5, 5, (1, 0)
    assert len(Settled().take(0, rows)) == 2


def test_where_everything_is_clicked_no_more_is_held_back_than_the_bound() -> None:
    rows, settled = np.zeros(HELD_MAX + 7, dtype=SETTLING), Settled()
    rows["shown_ms"], rows["ends_ms"], rows["clicked"], rows["number"] = 5, 9, 1, np.arange(len(rows))
    assert len(settled.take(0, rows[:HELD_MAX])) == 0
    assert settled.take(0, rows[HELD_MAX:])["number"].tolist() == list(range(7))
