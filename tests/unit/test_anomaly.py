"""The flood score over a lane's life."""

import math

import numpy as np
import pytest

from scoring.anomaly import FEW, GRACE, WINDOW, FloodScore


def test_a_lane_that_became_quiet_is_scored_on() -> None:
    score = FloodScore()
    for number in range(2 * WINDOW):
        assert score.observe((3, 7, 1, 0)[number % 4] if number < WINDOW // 2 else 1) == 0
    assert score.observe(FEW) == 0
    assert score.observe(FEW + 1) == pytest.approx(1)
    assert score.observe(1) == 0


def test_what_a_lane_has_done_for_the_whole_window_is_no_flood_whatever_rounding_leaves_of_what_was_before() -> None:
    rng, score = np.random.default_rng(1), FloodScore()
    for actions in rng.integers(FEW + 1, 200, 3_000).tolist():
        score.observe(actions)
    told = [score.observe(17) for _ in range(WINDOW + 500)]
    assert max(told[WINDOW:]) < 0.01
    assert score.observe(18) > 0.99


def test_what_a_busy_lane_is_used_to_is_no_flood_and_ten_times_as_much_is() -> None:
    score = FloodScore()
    for number in range(10 * GRACE):
        score.observe(30 + number % 20)
    assert score.observe(45) < 0.8
    assert score.observe(450) > 0.999


def test_the_score_is_that_of_a_gaussian_over_the_logarithms_of_what_came_before() -> None:
    usual, score = np.random.default_rng(2).integers(20, 60, 3 * GRACE), FloodScore()
    for at, actions in enumerate(usual.tolist()):
        told, before = score.observe(actions), np.log1p(usual[:at])
        if at < GRACE:
            assert told == 0
            continue
        above = (math.log1p(actions) - before.mean()) / before.std(ddof=1)
        assert told == pytest.approx(max(math.erf(above / math.sqrt(2)), 0), abs=1e-9)
    assert score.observe(500) > 0.999


def test_a_flood_that_goes_on_does_not_soon_become_usual_and_a_busier_shop_does() -> None:
    flooded, busier = FloodScore(), FloodScore()
    for _ in range(10 * GRACE):
        flooded.observe(20)
        busier.observe(20)
    assert min(flooded.observe(2_000) for _ in range(300)) > 0.99
    for _ in range(10 * GRACE):
        busier.observe(25)
    assert busier.observe(25) < 0.8


def test_nothing_is_a_flood_before_the_usual_is_known() -> None:
    score = FloodScore()
    assert [score.observe(5 if number else 5_000) for number in range(GRACE - 1)] == [0] * (GRACE - 1)
    assert score.observe(5_000) == 0
