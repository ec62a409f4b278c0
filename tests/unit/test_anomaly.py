"""The flood score over a lane's life."""

import pytest

from scoring.anomaly import FEW, GRACE, WINDOW, FloodScore


def test_a_lane_that_became_quiet_is_scored_on() -> None:
    score = FloodScore()
    for number in range(2 * WINDOW):
        assert score.observe((3, 7, 1, 0)[number % 4] if number < WINDOW // 2 else 1) == 0
    assert score.observe(FEW + 1) == pytest.approx(1)
    assert score.observe(1) == 0


def test_what_a_busy_lane_is_used_to_is_no_flood_and_ten_times_as_much_is() -> None:
    score = FloodScore()
    for number in range(10 * GRACE):
        score.observe(30 + number % 20)
    assert score.observe(45) < 0.8
    assert score.observe(450) > 0.999


def test_nothing_is_a_flood_before_the_usual_is_known() -> None:
    score = FloodScore()
    assert [score.observe(5 if number else 5_000) for number in range(GRACE - 1)] == [0] * (GRACE - 1)
    assert score.observe(5_000) == 0
