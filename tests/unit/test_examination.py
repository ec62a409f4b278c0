"""Examination learned from all traffic: the true curve where good ads stand high, and lifts that no slot has made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.calibration import chance_of
from scoring.events import EVENT, Kind, Source
from scoring.examination import (
    MEMORY,
    NOWHERE,
    SLOTS_MAX,
    Examination,
    assumed,
    looked,
    over,
)
from scoring.feedback import ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM

SLOTS = 6
TRUTH = 1 / (1 + 0.25 * np.arange(SLOTS))
"""Far from what is assumed before anything is seen."""
STEP_MS = 2_000


class World:
    """A page of `SLOTS` whose ads are liked and looked at as it pleases, before a click layer that sees all of it."""

    def __init__(self, seed: int, ads: int, *, examination: tuple[float, ...] = ()) -> None:
        self.draw = np.random.default_rng(seed)
        self.layer = ClickLayer(Learning(window_ms=1_000, examination=examination))
        self.lifts = np.zeros(ads)
        self.clicks, self.shown = np.zeros(SLOTS), np.zeros(SLOTS)
        self._time_ms = 10_000

    def learned(self) -> np.ndarray:
        """The layer's lifts of the ads, numbered from 1."""
        return np.array([self.layer.lifts.lift(1 + ad) for ad in range(len(self.lifts))])

    def show(self, ads: np.ndarray, logit: np.ndarray) -> None:
        """Placements of ``ads [B, S]``, of which the attention model thinks ``logit [B, S]``; what comes of them."""
        people, slots = ads.shape
        clicked = self.draw.random(ads.shape) < TRUTH[:slots] * chance_of(logit + self.lifts[ads])
        self.clicks[:slots] += clicked.sum(axis=0)
        self.shown[:slots] += people
        shown_ms = np.repeat(self._time_ms + STEP_MS * np.arange(people), slots)
        self._time_ms += STEP_MS * people
        events = np.zeros((ads.size, 2), dtype=EVENT)
        events["ad"], events["shown_ms"] = 1 + ads.reshape(-1, 1), shown_ms[:, None]
        events["time_ms"] = shown_ms[:, None] + [0, 1]
        events["kind"], events["source"] = [Kind.SHOWN, Kind.CLICKED], [Source.IMPRESSION, Source.CLICK]
        events["slot"], events["answers"] = (
            np.column_stack([np.tile(np.arange(slots), people), np.full(ads.size, -1)]),
            [
                False,
                True,
            ],
        )
        events = events.reshape(-1)[np.column_stack([np.ones(ads.size, dtype=bool), clicked.ravel()]).ravel()]
        events = events[np.argsort(events["time_ms"], kind="stable")]
        events["stream_ms"] = events["time_ms"]
        place = np.flatnonzero(events["source"] == Source.IMPRESSION)
        seen = Impressions(place, logit.ravel().astype(np.float32), np.zeros((ads.size, CONTEXT_DIM), dtype=np.float32))
        users = (1 + events["shown_ms"] // STEP_MS).astype(np.uint64)
        self.layer.observe(events, users, np.zeros(len(events), dtype=bool), seen)


def confounded(seed: int, base: float, placements: int) -> World:
    """The layer ranks what it has learned to like: whom a person likes, and what ad is liked, stands high."""
    world = World(seed, ads=40)
    world.lifts = world.draw.normal(0, 0.6, 40)
    for _ in range(placements // 500):
        candidates = world.draw.permuted(np.tile(np.arange(40), (500, 1)), axis=1)[:, :12]
        logit = base + world.draw.normal(0, 0.8, candidates.shape)
        utility = logit + world.learned()[candidates] + world.draw.gumbel(0, 0.3, candidates.shape)
        best = np.argsort(-utility, axis=1)[:, :SLOTS]
        world.show(np.take_along_axis(candidates, best, axis=1), np.take_along_axis(logit, best, axis=1))
    return world


@pytest.mark.parametrize(("base", "placements"), [(-1.2, 20_000), (-3.0, 50_000)])
def test_the_true_curve_is_found_although_better_ads_stand_higher(base: float, placements: int) -> None:
    world = confounded(1, base, placements)
    rates = world.clicks / world.shown
    assert (rates / rates[0])[-1] < 0.6 * TRUTH[-1]  # what the clicks alone would say
    apart = np.abs(world.layer.examination.curve[:SLOTS] / TRUTH - 1)
    assert apart.max() < 0.08
    assert apart[1:].mean() < 0.05


def test_an_ads_lift_does_not_depend_on_the_slots_that_it_was_shown_in() -> None:
    def lifts(examination: tuple[float, ...]) -> tuple[float, float]:
        """Mean lift of ads that stand above four times of five, and of those that do below; all are liked alike."""
        world = World(3, ads=12, examination=examination)
        for _ in range(16):
            above, below = (np.tile(half, (500, 1)) for half in (np.arange(6), np.arange(6, 12)))
            turned = world.draw.random((500, 1)) < 0.2
            above, below = np.where(turned, below, above), np.where(turned, above, below)
            halves = [world.draw.permuted(half, axis=1)[:, : SLOTS // 2] for half in (above, below)]
            world.show(np.column_stack(halves), np.full((500, SLOTS), -1.0))
        return float(world.learned()[:6].mean()), float(world.learned()[6:].mean())

    naive, found = lifts((1.0,)), lifts(())
    assert naive[0] - naive[1] > 0.2  # as if every slot were looked at alike
    assert abs(found[0] - found[1]) < 0.05


def test_click_rates_that_drift_everywhere_are_no_matter_of_slots() -> None:
    examination = Examination()
    for level in (1.0, 0.5):
        for _ in range(20_000):
            for slot in range(SLOTS):
                examination.learn(slot, level * TRUTH[slot] * 0.3, 0.3)
    assert examination.curve[:SLOTS] == pytest.approx(TRUTH, rel=0.02)
    assert examination.record[1].max() == MEMORY


def test_before_outcomes_the_curve_is_the_assumed_one_and_a_declared_one_is_held_to() -> None:
    assert Examination().curve == pytest.approx(assumed(SLOTS_MAX))
    declared = Examination((1.0, 0.5))
    for _ in range(1_000):
        declared.learn(1, 1.0, 1.0)
    assert declared.curve[:3].tolist() == [1.0, 0.5, 0.5]
    assert over((1.0, 0.5), 4).tolist() == [1.0, 0.5, 0.5, 0.5]


@given(st.lists(st.tuples(st.integers(0, NOWHERE), st.sampled_from([0.0, 1.0]), st.floats(1e-9, 1)), max_size=60))
def test_no_slot_is_looked_at_more_than_the_first_and_a_restored_record_goes_on_as_it_was(
    told: list[tuple[int, float, float]],
) -> None:
    examination, again = Examination(), Examination()
    for at, outcome in enumerate(told):
        if at == len(told) // 2:
            again.restore(examination.record)
        examination.learn(*outcome)
        if at >= len(told) // 2:
            again.learn(*outcome)
    assert (again.curve == examination.curve).all()
    assert (examination.curve > 0).all()
    assert (examination.curve <= 1).all()
    assert examination.examined(0) == examination.examined(NOWHERE) == 1.0


@given(st.floats(0.01, 1), st.floats(0.001, 0.999))
def test_a_non_click_counts_as_the_slope_of_the_likelihood_says(examined: float, liking: float) -> None:
    # The logistic loss's slope by the log-odds is the liking; that of -log(1 - examined * liking) is what is wanted.
    slope = examined * liking * (1 - liking) / (1 - examined * liking)
    assert looked(examined, examined * liking) * liking == pytest.approx(slope, rel=1e-9, abs=1e-12)
    assert looked(1.0, liking) == 1.0  # in the first slot a non-click is one
