"""What is known of one attention model: outcomes that it had, what its chances cost, live and beside."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.clicks import MARGIN, probability
from scoring.evidence import KNOWN, SURE, Evidence, log_loss
from scoring.learner import Learner
from scoring.watch import BY_ADWIN
from streams.lanes.learner_rows import LearnerRow


@given(st.sampled_from([0, 1]), st.floats(0, 1))
def test_a_chance_costs_the_logarithm_of_what_it_gave_to_what_came_and_never_more_than_a_bound(
    clicked: int, chance: float
) -> None:
    given_to_it = chance if clicked else 1 - chance
    assert 0 < log_loss(clicked, chance) <= -math.log(SURE) * (1 + 1e-9)
    if SURE < chance < 1 - SURE:
        assert log_loss(clicked, chance) == pytest.approx(-math.log(given_to_it))


def test_evidence_tells_outcomes_from_clicks_and_its_own_cost_from_that_of_whoever_was_heeded() -> None:
    told = Evidence()
    assert told.add(1, 0.25) == pytest.approx(math.log(4))
    assert told.add(0, 0.5) == pytest.approx(math.log(2))
    assert (told.gain, told.gain_error) == (None, None)
    told.add_beside(0, 0.75, 0.5)
    told.add_beside(1, 0.25, 0.125)
    assert (told.outcomes, told.clicks, told.beside, told.predicted) == (2, 1, 2, pytest.approx(0.75))
    assert told.log_loss == pytest.approx(math.log(4) + math.log(2))
    assert told.beside_log_loss == pytest.approx(2 * math.log(4))
    assert told.live_log_loss == pytest.approx(math.log(2) + math.log(8))
    gains = np.array([math.log(2) - math.log(4), math.log(8) - math.log(4)])
    assert told.gain == pytest.approx(gains.mean())
    assert told.gain_error == pytest.approx(gains.std() / math.sqrt(2))
    other = Evidence(1, 2, 3.0, 4.0, 5, 6.0, 7.0, 8.0)
    other.join(Evidence(10, 20, 30.0, 40.0, 50, 60.0, 70.0, 80.0))
    assert other == Evidence(11, 22, 33.0, 44.0, 55, 66.0, 77.0, 88.0)


def test_what_a_model_scored_itself_is_watched_and_what_it_scored_beside_is_counted_alone() -> None:
    one = Learner()
    assert one.outcome(1, 0.5, 0.3) == []
    one.beside(0, 0.25, 0.5, 1_000, 2_000)
    assert (one.learned, one.evidence.outcomes) == (2, 2)
    assert [one.watch.detectors[each].width for each in BY_ADWIN] == [1, 1, 1]
    one.outcome(0, 0.5, 0.3)
    one.outcome(1, 0.5, math.nan)
    assert [one.watch.detectors[each].width for each in BY_ADWIN] == [3, 3, 1]  # interest: of clicks on what is known


def test_a_shadow_is_held_against_another_on_what_was_shown_once_enough_is_known_of_it() -> None:
    one = Learner()
    for number in range(KNOWN):
        one.beside(0, 0.25, 0.5, shown_ms=number, clock_ms=2_000 + number)
        one = LearnerRow.of(one).learner()  # a restart continues where it was
    assert (one.known_ms, one.evidence.outcomes, one.evidence.beside) == (2_000 + KNOWN - 1, KNOWN, 0)
    for after_ms, live in ((0, 0.875), (1, 0.5)):  # what was shown before it was known is no comparison
        one.beside(1, 0.25, live, (one.known_ms or 0) + after_ms, clock_ms=9_000)
    one.beside(1, 0.75, None, 9_000, clock_ms=9_000)  # another was heeded
    one = LearnerRow.of(one).learner()
    assert (one.evidence.outcomes, one.evidence.beside) == (KNOWN + 3, 1)
    assert one.evidence.gain == pytest.approx(math.log(2) - math.log(4))


def test_what_a_former_version_kept_beside_is_let_go() -> None:
    former = LearnerRow.of(Learner(evidence=Evidence(5_000, 50, 50.0, 200.0, 4_000, 160.0, 170.0)))
    assert former.learner().evidence == Evidence(5_000, 50, 50.0, 200.0)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_probability_is_never_quite_sure_and_rises_with_its_log_odds(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 < probability(low) <= probability(high) < 1
    assert probability(low) == pytest.approx(1 - probability(-low), abs=1e-12)
    assert probability(max(high, MARGIN)) == probability(MARGIN)
    assert probability(min(low, -MARGIN)) == probability(-MARGIN)
