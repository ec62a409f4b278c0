"""Bandits: what a cohort's shares are made from, that nobody is moved, and that the report stays fair."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.allocation import allocation, best_chances
from scoring.assignment import OUTSIDE, Arm, Cohort, Experiment
from scoring.policies import CONTROL_ARM, Experiments, Policy
from streams.simulate.experiments import bandit, bandits

USERS = np.random.default_rng(1).integers(0, 2**64, 40_000, dtype=np.uint64)
ARMS = (Arm("a", 0.5), Arm("b", 0.5))


def test_an_only_arm_is_the_best():
    assert best_chances(np.array([0.3]), np.array([1e-4])) == pytest.approx(1)


def test_the_better_of_two_arms_is_known_by_the_normal_distribution_of_their_difference():
    means, variances = np.array([0.30, 0.32]), np.array([1e-4, 3e-4])
    wanted = NormalDist().cdf(0.02 / 4e-4**0.5)
    assert best_chances(means, variances)[1] == pytest.approx(wanted, abs=1e-9)


def test_of_many_arms_each_is_best_as_often_as_draws_from_what_is_known_say():
    means, variances = np.array([0.1, 0.12, 0.11, 0.05]), np.array([1e-4, 4e-4, 1e-6, 9e-4])
    draws = np.random.default_rng(2).normal(means, np.sqrt(variances), (200_000, 4)).argmax(axis=1)
    frequency = np.bincount(draws, minlength=4) / len(draws)
    np.testing.assert_allclose(best_chances(means, variances), frequency, atol=0.004)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-9, 1)), min_size=2, max_size=16), st.floats(0.01, 0.06))
def test_every_arm_has_its_minimum_and_all_is_given_away(known: list[tuple[float, float]], minimum: float) -> None:
    means, variances = (np.array(column) for column in zip(*known, strict=True))
    shares = allocation(means, variances, minimum)
    assert shares.sum() == pytest.approx(1)
    assert shares.min() >= minimum - 1e-12


def grown(*cohorts: tuple[float, float]) -> Experiment:
    """A first cohort of a tenth, and later ones: where each ends, and the second arm's share."""
    return Experiment("b", "x", 0.2, 0.7, 0.1, ARMS, tuple(Cohort(end, (1 - share, share)) for end, share in cohorts))


def test_a_cohort_that_comes_in_moves_nobody_and_has_its_own_shares():
    first, second, third = grown(), grown((0.2, 0.9)), grown((0.2, 0.9), (1.0, 0.25))
    before, after = second.assign(USERS), third.assign(USERS)
    for earlier, later in ((first.assign(USERS), before), (before, after)):
        inside = earlier != OUTSIDE
        np.testing.assert_array_equal(later[inside], earlier[inside])
    cohort = third.cohort(USERS)
    np.testing.assert_allclose(np.bincount(cohort[cohort >= 0]) / len(USERS), [0.05, 0.05, 0.4], atol=0.01)
    arm, chance = third.allocate(USERS)
    for number, share in enumerate((0.5, 0.9, 0.25)):
        assert (arm[cohort == number] == 1).mean() == pytest.approx(share, abs=0.02)
        np.testing.assert_allclose(chance[(cohort == number) & (arm == 1)], share)
    assert (chance[arm == OUTSIDE] == 1).all()


@pytest.mark.parametrize(
    ("cohorts", "message"),
    [
        (((0.1, 0.5),), "expected each beyond the last"),
        (((0.4, 0.5), (0.3, 0.5)), "expected each beyond the last"),
        (((1.1, 0.5),), "1 at most"),
        (((0.5, 1.0),), "one above 0 an arm"),
    ],
)
def test_cohorts_that_would_move_somebody_are_refused(cohorts, message):
    with pytest.raises(ValueError, match=message):
        grown(*cohorts)


def test_everybody_is_told_with_the_chance_of_all_their_arms():
    experiments = Experiments()
    experiments.set(1, grown((1.0, 0.9)))
    experiments.set(2, Experiment("c", "y", 0, 1, 1, (Arm("c", 0.2), Arm("d", 0.8))))
    groups = experiments.groups(USERS, Policy(control_share=0.1))
    arms = {group.arm: set(np.round(group.chance, 6).tolist()) for group in groups}
    assert arms["b/b+c/d"] == {round(0.5 * 0.8, 6), round(0.9 * 0.8, 6)}
    assert arms["c/c"] == {0.2}
    assert arms["engine"] == {1.0}
    assert CONTROL_ARM not in arms
    some = next(group for group in groups if group.arm == "b/b+c/d")
    parts = some.parts(100)
    np.testing.assert_array_equal(np.concatenate([part.chance for part in parts]), some.chance)


def test_a_bandits_report_is_right_at_all_times_where_its_plain_means_would_not_be():
    runs = [bandit(seed, 0.0) for seed in range(120)]
    found = bandits(runs, runs)
    assert found["bandit_false_positive_rate"] <= 0.05
    assert found["bandit_plain_means_wrong"] > 0.15
    values = [run.trial.look(run.totals, run.cohort).differences["ctr"][1].value for run in runs]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_a_bandit_gives_the_better_arm_more_users_and_its_split_is_that_of_its_chances():
    runs = [bandit(seed, 0.03) for seed in range(40)]
    found = bandits(runs, runs)
    assert found["bandit_better_arm_share"] > 0.75
    assert found["bandit_coverage"] >= 0.95
    assert min(run.trial.look(run.totals, run.cohort).split_p_value for run in runs) > 0.001
    assert max(run.plain.look(run.totals).split_p_value for run in runs) < 0.001
