"""A trial's look in numbers: its metrics, what came before, the strongest evidence yet, and who leaves."""

import math

import numpy as np
import pytest

from scoring.arrays import Floats, Ints
from scoring.assignment import OUTSIDE
from scoring.confidence import of_trials, split_log_e_value
from scoring.trial import DOERS_MIN, SUMS, Trial

IMPRESSIONS, CLICKS = SUMS.index("impressions"), SUMS.index("clicks")


def nothing(users: int) -> Floats:
    return np.zeros((users, len(SUMS)))


def did(clicks: Floats, impressions: Floats | float = 10.0) -> Floats:
    totals = nothing(len(clicks))
    totals[:, IMPRESSIONS], totals[:, CLICKS] = impressions, clicks
    return totals


def exposed(arm: Ints, before: Floats, shares: Floats | None = None) -> Trial:
    trial = Trial(np.full(arm.max() + 1, 1 / (arm.max() + 1)) if shares is None else shares)
    trial.expose(np.arange(len(arm)), arm, before)
    return trial


def test_every_metric_is_what_its_name_says_divided_by_what_it_is_of() -> None:
    each = {"impressions": 10, "clicks": 4, "conversions": 1, "revenue_micros": 700, "viewed_s": 30, "switches": 3}
    totals = nothing(20)
    for name, value in (each | {"shown": 12}).items():
        totals[:, SUMS.index(name)] = value
    look = exposed(np.arange(20) % 2, nothing(20)).look(totals)
    found = {metric: values[0] for metric, values in look.values.items()}
    assert found == {"ctr": 0.4, "cvr": 0.25, "revenue_micros": 700.0, "viewed_s": 3.0, "diversity": 0.25}


@pytest.mark.parametrize("shares", [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.8, 0.2]]], ids=["alike", "of a bandit"])
def test_a_rates_variance_is_what_leaving_out_each_user_tells_of_it_however_much_each_was_shown(
    shares: list[list[float]],
) -> None:
    draw, users = np.random.default_rng(8), 800
    arm, cohort, shown = np.arange(users) % 2, draw.integers(0, 2, users), draw.integers(1, 60, users).astype(float)
    clicked = shown * np.where(shown > 30, 0.3, 0.1) + draw.integers(0, 2, users)  # who is shown more clicks more often
    look = exposed(arm, nothing(users), np.array(shares)).look(did(clicked, shown), cohort)
    for at in (0, 1):
        weight = 1 / np.array(shares)[cohort, at] * (arm == at)
        above, below = weight * clicked, weight * shown
        without = ((above.sum() - above) / (below.sum() - below))[arm == at]
        assert look.values["ctr"][at] == pytest.approx(above.sum() / below.sum())
        assert look.variances["ctr"][at] == pytest.approx(without.var() * (len(without) - 1), rel=0.02)


@pytest.mark.parametrize(
    ("metric", "does", "of"),
    [("ctr", "clicks", "impressions"), ("cvr", "conversions", "clicks"), ("diversity", "switches", "shown")],
)
def test_of_what_can_be_done_once_a_time_those_who_left_it_undone_are_waited_for(
    metric: str, does: str, of: str
) -> None:
    arm, totals = np.arange(400) % 2, nothing(400)
    trial = exposed(arm, nothing(400))
    totals[:, SUMS.index(of)] = totals[:, SUMS.index(does)] = 1
    for undone, told in ((DOERS_MIN - 1, False), (DOERS_MIN, True)):
        totals[: 2 * undone, SUMS.index(does)] = 0
        assert (1 in trial.look(totals).differences[metric]) == told


def test_what_arms_users_did_before_by_chance_is_taken_off_their_difference() -> None:
    draw, arm = np.random.default_rng(1), np.repeat([0, 1], 2_000)
    eager = draw.random(4_000) < np.array([0.7, 0.3])[arm]  # the first arm got more of them
    before, after = (did(np.where(eager, 8.0, 1.0) + draw.binomial(1, 0.5, 4_000)) for _ in range(2))
    after[:, CLICKS] += 0.5 * arm
    look = exposed(arm, before).look(before + after)
    found = look.differences["ctr"][1]
    assert look.values["ctr"][1] < look.values["ctr"][0] - 0.2
    assert found.low < 0.05 < found.high  # what the second arm really adds
    assert found.value == pytest.approx(0.05, abs=0.01)


def test_what_is_taken_off_is_how_often_users_clicked_before_and_not_how_much_they_were_shown() -> None:
    draw, arm = np.random.default_rng(2), np.arange(4_000) % 2
    rate, impressions = draw.uniform(0.1, 0.9, 4_000), draw.integers(50, 60, 4_000).astype(float)
    impressions[:2_000] *= 40  # some were there for years
    before = did(rate.mean() * impressions + (rate - rate.mean()) * 50, impressions)
    look = exposed(arm, before).look(before + did(draw.binomial(10, rate).astype(float)))
    assert look.differences["ctr"][1].variance_cut > 0.5


def test_who_was_there_before_and_who_is_new_are_users_alike() -> None:
    draw, arm, before = np.random.default_rng(3), np.arange(400) % 2, nothing(400)
    before[:200, SUMS.index("revenue_micros")] = draw.integers(1, 900, 200)
    after = before * 2
    after[:, SUMS.index("revenue_micros")] += draw.integers(0, 100, 400)
    found = []
    for known in (200, 400):  # of whom there was a row when they were exposed
        before[:known, SUMS.index("days")] = 1
        found.append(exposed(arm, before.copy()).look(after).differences["revenue_micros"][1])
    assert found[0] == found[1]


def test_a_p_value_never_rises_and_that_of_arms_that_are_alike_is_1() -> None:
    arm = np.arange(900) % 3
    trial = exposed(arm, nothing(900))
    clicks = np.arange(900) // 3 % 2 * 1.0
    told = [
        trial.look(did(clicks + lead * (arm == 1), 10.0)).differences["ctr"] for lead in (0.0, 2.0, 0.0)
    ]  # what one was ahead is made up for
    assert [each[1].p_value for each in told] == [1.0, told[1][1].p_value, told[1][1].p_value]
    assert told[1][1].p_value < 1e-6
    assert [each[2].p_value for each in told] == [1.0] * 3


def test_of_a_metric_of_which_the_first_arm_has_nothing_a_difference_has_no_share() -> None:
    arm = np.arange(400) % 2
    found = exposed(arm, nothing(400)).look(did((arm * (np.arange(400) % 3)).astype(float))).differences["ctr"][1]
    assert found.low > 0
    assert math.isnan(found.relative)


def test_a_split_that_was_wrong_stays_so_and_the_evidence_of_cohorts_multiplies() -> None:
    shares = np.array([[0.5, 0.5], [0.2, 0.8]])
    arm = np.concatenate([np.arange(2_000) % 20 < 9, np.arange(2_000) % 20 < 17]).astype(np.int64)
    cohort = np.repeat([0, 1], 2_000)
    trial = exposed(arm, nothing(4_000), shares)
    alone = [split_log_e_value(np.bincount(arm[cohort == at], minlength=2), shares[at]) for at in (0, 1)]
    assert min(alone) > 0
    wrong = trial.look(nothing(4_000), cohort).split_p_value
    assert wrong == pytest.approx(math.exp(-sum(alone)))
    trial.forget(np.arange(4_000))
    assert trial.look(nothing(4_000), cohort).split_p_value == wrong


@pytest.mark.parametrize("weight", [10.0, 100_000.0])
def test_a_split_a_few_per_cent_off_is_found_sooner_than_by_another_weight(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves, counts = np.array([0.5, 0.5]), np.array([5_200, 4_800])
    told = split_log_e_value(counts, halves)
    monkeypatch.setattr("scoring.confidence.SPLIT_CONCENTRATION", weight)
    assert split_log_e_value(counts, halves) < told - 1


def test_of_who_leaves_nothing_is_kept_and_a_place_that_no_trial_knows_yet_is_none_to_leave() -> None:
    before = did(np.full(10, 3.0))
    trial = exposed(np.arange(10) % 2, before)
    trial.expose(np.array([3, 4]), np.array([0, 1]), before)  # who cross
    trial.forget(np.array([3, 8, 90]))
    for place in (3, 8):
        assert (trial.arm[place], trial.crossed[place], trial.before[place].any()) == (OUTSIDE, False, False)
    look = trial.look(before)
    assert (look.crossed, look.users.tolist()) == (1, [3, 4])
    trial.expose(np.array([3]), np.array([0]), before)  # somebody else has the place
    assert trial.look(before).users.tolist() == [4, 4]


def test_the_interval_of_single_trials_is_of_those_who_tried_however_they_are_numbered() -> None:
    person = np.arange(60) // 12
    succeeded = person % 2 == 0  # all of theirs, or none: people differ, and few say little
    assert of_trials(succeeded, person) == of_trials(succeeded, 7 * person + 5)
