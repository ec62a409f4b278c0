"""What is made of a look: the verdict, a broken guardrail, the report, and a bandit's next cohort."""

import math

import msgspec
import numpy as np
import pytest

from scoring.interleaving import Preference, Score
from scoring.trial import Difference, Look
from streams.control_wire import Allocation, ArmSetting, CohortSetting, Guardrail
from streams.experiments.findings import SPLIT_P_MIN, trial_finding
from streams.experiments.registry import Bandit, next_cohort, start, stop
from streams.experiments.report import breached, duel_report, report
from streams.experiments.watched import Watched
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import draft

ARMS = tuple(
    ArmSetting(arm=name, share=share, changes={"temperature": at / 10})
    for at, (name, share) in enumerate((("as-is", 0.5), ("warm", 0.25), ("hot", 0.25)), start=1)
)
RAILS = (Guardrail(metric="viewed_s", most_loss=0.5), Guardrail(metric="ctr", most_loss=0.1))
RUNNING = start(draft(arms=ARMS, primary="cvr", guardrails=RAILS), 1.0, 2)
Found = tuple[float, float, float]
SURELY, WORSE, OPEN = (0.02, 0.01, 0.03), (-0.02, -0.03, -0.01), (0.02, -0.01, 0.05)


def difference(value: float, low: float, high: float, relative: float = 0.2) -> Difference:
    return Difference(value=value, low=low, high=high, relative=relative, p_value=0.5, variance_cut=0.0)


def looked(
    *found: Found, metric: str = "cvr", first: float = 0.5, relative: float = 0.2, split: float = 1.0, crossed: int = 3
) -> Look:
    """A look at which the arms after the first differ from it as ``found``."""
    differences: dict[str, dict[int, Difference]] = {name: {} for name in ("ctr", "cvr", "viewed_s")}
    differences[metric] = {at: difference(*one, relative) for at, one in enumerate(found, start=1)}
    values = {name: [first, first + 0.02, first + 0.04] for name in differences}
    variances = {name: [1e-4] * 3 for name in differences}
    return Look(np.array([100, 50, 50]), crossed, split, values, variances, differences)


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (looked(SURELY, OPEN), "warm is better by 20.0% in cvr"),
        (looked(SURELY, (0.03, 0.02, 0.04)), "hot is better by 20.0% in cvr"),
        (looked((0.03, 0.02, 0.04), SURELY), "warm is better by 20.0% in cvr"),
        (looked(SURELY, relative=math.nan), "warm is better by 0.02 in cvr"),
        (looked(OPEN, OPEN), "no difference is certain yet"),
        (looked((-0.02, -0.05, 0.01), OPEN), "no difference is certain yet"),
        (looked(), "too little yet"),
        (looked(SURELY, metric="ctr"), "too little yet"),
        (looked(WORSE, WORSE), "as-is is better than every other arm in cvr"),
        (looked(OPEN, WORSE), "hot is worse than as-is in cvr; the others are open"),
        (looked(SURELY, split=SPLIT_P_MIN * 1.01), "warm is better by 20.0% in cvr"),
    ],
)
def test_a_verdict_says_what_is_certain_and_no_more(look: Look, words: str) -> None:
    assert trial_finding(RUNNING, look).sentence.partition(" (")[0] == words  # the figures behind it follow
    assert trial_finding(stop(RUNNING, "", 9), look).sentence == "stopped: no reason given"
    assert trial_finding(stop(RUNNING, "enough", 9), look).sentence == "stopped: enough"


def test_a_split_that_chance_makes_once_in_a_thousand_times_is_not_believed() -> None:
    assert SPLIT_P_MIN == 0.001
    assert "do not have their shares" in trial_finding(RUNNING, looked(SURELY, split=SPLIT_P_MIN * 0.99)).sentence


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (looked((-0.2, -0.3, -0.051), metric="ctr"), "guardrail ctr: warm loses 40.0%, surely more than 10.0%"),
        (looked((-0.2, -0.3, -0.049), metric="ctr"), None),
        (looked(OPEN, (-0.2, -0.3, -0.1), metric="ctr"), "guardrail ctr: hot loses 40.0%, surely more than 10.0%"),
        (looked((-0.2, -0.3, -0.1), metric="viewed_s"), None),
        (
            looked((-0.3, -0.4, -0.26), metric="viewed_s"),
            "guardrail viewed_s: warm loses 60.0%, surely more than 50.0%",
        ),
        (looked((-0.4, -0.4, -0.4)), None),  # of which no guardrail speaks
    ],
)
def test_a_guardrail_is_broken_by_any_arm_that_surely_loses_more_than_its_share_of_the_first(
    look: Look, why: str | None
) -> None:
    assert breached(RUNNING, look) == why


def test_a_report_tells_who_has_crossed_and_no_share_of_nothing() -> None:
    told = report(RUNNING, looked(SURELY, relative=math.nan), 9)
    assert (told.crossed_users, told.arms[1].against_first["cvr"].relative) == (3, None)
    assert [arm.users for arm in told.arms] == [100, 50, 50]
    assert told.arms[2].against_first == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.4, "warmer is preferred: its picks win 70.0% of the clicks"),
        (-0.4, "as-is is preferred: its picks win 70.0% of the clicks"),
    ],
)
def test_the_share_of_the_clicks_is_told_of_whichever_ranking_is_preferred(value: float, words: str) -> None:
    found = Preference(value=value, low=value - 0.1, high=value + 0.1, p_value=0.01)
    told = duel_report(start(duel_draft(), 1.0, 2), Score(100, (30.0, 70.0), found), 9)
    assert told.verdict == words
    assert [arm.metrics["preference"] for arm in told.arms] == [0.3, 0.7]


BANDIT = start(draft(arms=ARMS, primary="cvr", guardrails=(), bandit=Bandit(0.1, 60)), 0.2, 1_000)
SECOND = Allocation(
    experiment="warmth", number=1, cohorts=(CohortSetting(upto=0.4, shares=(0.2, 0.2, 0.6)),), time_ms=2_000
)


def bandit() -> Watched:
    watched = Watched.of(BANDIT)
    watched.allocation, watched.trial.shares = SECOND, np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    return watched


def test_shares_stay_as_they_are_while_of_an_arm_nothing_differs_between_its_users() -> None:
    watched = bandit()
    watched.last = looked(OPEN, OPEN)
    watched.last.variances["cvr"][2] = 0.0
    made = watched.next_cohort(SECOND, 10**6)
    assert made is not None
    assert made.cohorts[-1].shares == (0.2, 0.2, 0.6)


@pytest.mark.parametrize(("found", "compared"), [((), False), ((OPEN,), False), ((OPEN, OPEN), True)])
def test_shares_stay_as_they_are_until_every_arm_is_compared(found: tuple[Found, ...], compared: bool) -> None:
    watched = bandit()
    watched.last = looked(*found)
    made = watched.next_cohort(SECOND, 10**6)
    assert made is not None
    assert (made.cohorts[-1].shares == (0.2, 0.2, 0.6)) == (not compared)
    assert min(made.cohorts[-1].shares) >= 0.1


def test_a_bandit_that_leaves_its_arms_less_than_a_new_one_may_goes_on_as_it_was_made() -> None:
    made = msgspec.structs.replace(draft(arms=ARMS, primary="cvr", bandit=Bandit(0.1, 60)), minimum=0.01)
    watched = Watched.of(start(made, 0.2, 1_000))
    watched.last = looked((0.9, 0.8, 1.0), OPEN)
    watched.last.values["cvr"][1] = 0.9
    further = watched.next_cohort(None, 10**6)
    assert further is not None
    assert min(further.cohorts[-1].shares) == pytest.approx(0.01)


def test_who_shares_users_out_by_hand_has_no_cohorts_let_in() -> None:
    fixed = msgspec.structs.replace(RUNNING, ramp=0.2)
    watched = Watched.of(fixed)
    watched.last = looked(OPEN, OPEN)
    assert watched.next_cohort(None, 10**9) is None


def test_the_report_of_a_bandit_that_is_over_tells_its_cohorts() -> None:
    watched = bandit()
    watched.last = looked(OPEN, OPEN)
    over = watched.ended(stop(BANDIT, "enough", 9_000))
    assert over.last is not None
    told = report(over.setting, over.last, 10_000, over.allocation)
    assert (told.cohorts, [arm.share for arm in told.arms], told.status) == (2, [0.2, 0.2, 0.6], "stopped")


@pytest.mark.parametrize(("ramp", "number"), [(0.1, 10), (0.05, 20), (0.2, 5), (1 / 64, 64), (1 / 3, 3), (0.3, 4)])
def test_cohorts_end_with_the_last_user_and_none_comes_after_it(ramp: float, number: int) -> None:
    setting, stands = msgspec.structs.replace(BANDIT, ramp=ramp), None
    for at in range(1, number):
        stands = next_cohort(setting, stands, (0.5, 0.25, 0.25), 1_000 + 60_000 * at)
    assert stands is not None
    assert 1 + len(stands.cohorts) == number
    assert stands.cohorts[-1].upto == 1.0
    assert next_cohort(setting, stands, (0.5, 0.25, 0.25), 10**9) is None


def test_cohorts_that_a_former_version_let_in_almost_to_the_end_have_none_after_them() -> None:
    almost = Allocation(
        experiment="warmth", number=1, cohorts=(CohortSetting(upto=1 - 2**-53, shares=(0.2, 0.2, 0.6)),), time_ms=2_000
    )
    assert next_cohort(BANDIT, almost, (0.5, 0.25, 0.25), 10**9) is None
