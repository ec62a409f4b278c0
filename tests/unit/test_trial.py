"""Experiments: who is in them, and what their figures promise while they are watched."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoring.assignment import OUTSIDE, Arm, Cohort, Experiment, free_range, in_holdout
from scoring.confidence import log_e_value, mixture_width, radius, split_log_e_value
from scoring.trial import DOERS_MIN, EXPECTED_MIN, FIRST_PLAN, SUMS, USERS_MIN, Look, Trial
from streams.control_wire import ArmSetting, Guardrail
from streams.experiments.registry import create, start
from streams.experiments.report import breached
from streams.simulate.experiments import one, shoppers, users_until_split_found, watch

USERS = np.arange(1, 100_001, dtype=np.uint64)
HALVES = (Arm("control", 0.5), Arm("warmer", 0.5, {"temperature": 0.3}))


def _experiment(name: str = "one", *, low: float = 0.0, high: float = 0.5, ramp: float = 1.0, layer: str = "ranking"):
    return Experiment(name, layer, low, high, ramp, HALVES)


def test_a_ramp_only_adds_users_and_never_moves_one():
    before = np.full(len(USERS), OUTSIDE)
    for ramp in (0.0, 0.1, 0.5, 1.0):
        now = _experiment(ramp=ramp).assign(USERS)
        assert (now[before != OUTSIDE] == before[before != OUTSIDE]).all()
        assert (now != OUTSIDE).mean() == pytest.approx(0.5 * ramp, abs=0.01)
        before = now
    assert (before[before != OUTSIDE] == 1).mean() == pytest.approx(0.5, abs=0.01)


def test_experiments_of_one_layer_share_no_user_and_those_of_two_meet_at_random():
    one_, two = _experiment("one"), _experiment("two", low=0.5, high=1.0)
    elsewhere = _experiment("three", low=0.0, high=0.5, layer="prices")
    in_one = one_.assign(USERS) != OUTSIDE
    assert not (in_one & (two.assign(USERS) != OUTSIDE)).any()
    assert (in_one & (elsewhere.assign(USERS) != OUTSIDE)).mean() == pytest.approx(0.25, abs=0.01)


def test_the_holdout_has_its_share_and_is_independent_of_every_layer():
    held = in_holdout(USERS, 0.1)
    assert held.mean() == pytest.approx(0.1, abs=0.005)
    assert (held & (_experiment().assign(USERS) != OUTSIDE)).mean() == pytest.approx(0.05, abs=0.005)


def test_the_first_gap_that_fits_is_taken_and_a_full_layer_says_so():
    assert free_range([], 0.2) == (0.0, 0.2)
    assert free_range([(0.5, 1.0), (0.0, 0.3)], 0.2) == (0.3, 0.5)
    assert free_range([(0.0, 0.6), (0.1, 0.2)], 0.4) == (0.6, 1.0)  # drafts that were made at once may overlap
    with pytest.raises(ValueError, match=r"widest gap is 0.200"):
        free_range([(0.0, 0.3), (0.5, 1.0)], 0.3)


def test_the_last_gap_of_a_layer_is_taken_to_its_end_and_not_a_bit_beyond():
    taken: list[tuple[float, float]] = []
    for width in (0.05, 0.55, 0.3, 0.1):
        taken.append(free_range(taken, width))
    assert taken[-1][1] == 1.0  # which the sum of the widths is not
    assert _experiment(low=taken[-1][0], high=taken[-1][1]).high == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 0.6, "high": 0.5}, "range"),
        ({"ramp": 1.5}, "ramp 1.5"),
        ({"arms": HALVES[:1]}, "two or more arms"),
        ({"arms": (Arm("a", 0.5), Arm("b", 0.6))}, "1 in total"),
        ({"arms": (Arm("a", 1.5), Arm("b", -0.5))}, "all above 0"),
        ({"arms": (Arm("a", 0.5), Arm("a", 0.5))}, "names of their own"),
        ({"low": -0.1}, "range"),
        ({"high": 1.1}, "range"),
        ({"ramp": -0.1}, "ramp -0.1"),
        ({"ramp": 0.5, "later": (Cohort(1.0, (0.5, 0.5)),), "interleaved": True}, "to interleave"),
        ({"ramp": 0.5, "later": (Cohort(1.0, (0.3, 0.3, 0.4)),)}, "one above 0 an arm"),
        ({"ramp": 0.5, "later": (Cohort(1.0, (0.5, 0.6)),)}, "one above 0 an arm"),
    ],
)
def test_a_definition_that_cannot_be_is_refused(fields, message):
    whole = {"name": "one", "layer": "ranking", "low": 0.0, "high": 1.0, "ramp": 1.0, "arms": HALVES}
    with pytest.raises(ValueError, match=message):
        Experiment(**(whole | fields))


@given(variance=st.floats(1e-9, 1e3), alpha=st.floats(0.001, 0.2), information=st.floats(1e-3, 1e9))
@example(variance=1.0, alpha=0.05, information=1e18)  # far more was hoped for than is known
@example(variance=1e-30, alpha=0.05, information=1e-3)
def test_zero_is_outside_the_interval_exactly_when_the_evidence_says_so(variance, alpha, information):
    width = mixture_width(information, alpha)
    edge = radius(variance, width, alpha)
    assert log_e_value(edge * 1.001, variance, width) > math.log(1 / alpha)
    assert log_e_value(edge * 0.999, variance, width) < math.log(1 / alpha)


def test_the_interval_is_narrowest_near_the_planned_information():
    at = {plan: radius(1e-4, mixture_width(plan, 0.05), 0.05) for plan in (1e2, 1e4, 1e6)}
    assert at[1e4] < min(at[1e2], at[1e6])
    assert at[1e4] > 1.96 * 1e-2  # and wider than one that may be looked at once


def test_a_split_as_meant_is_no_evidence_and_users_in_an_arm_without_a_share_are_certain():
    assert split_log_e_value(np.array([50_100, 49_900]), np.array([0.5, 0.5])) < 0
    assert split_log_e_value(np.array([52_000, 48_000]), np.array([0.5, 0.5])) > math.log(1_000)
    assert split_log_e_value(np.array([5, 5, 1]), np.array([0.5, 0.5, 0.0])) == math.inf


def _totals(users: int) -> np.ndarray:
    return np.zeros((users, len(SUMS)))


def test_users_of_an_arm_without_a_share_are_told_beside_a_split_that_is_not_to_be_believed():
    trial, arm, totals = Trial(np.array([1.0, 0.0])), np.arange(400) % 2, np.zeros((400, len(SUMS)))
    trial.expose(np.arange(400), arm, totals)
    totals[:, SUMS.index("impressions")] = 10
    totals[:, SUMS.index("clicks")] = 1 + arm
    look = trial.look(totals)
    assert look.values["ctr"] == pytest.approx([0.1, 0.2])
    assert look.split_p_value == 0


def test_only_what_a_user_does_after_exposure_is_outcome_and_what_came_before_is_not():
    totals, clicks = _totals(400), SUMS.index("clicks")
    totals[:, SUMS.index("impressions")] = 10
    totals[:200, clicks] = 9  # the first arm clicked much, before
    trial = Trial(shares=np.array([0.5, 0.5]))
    trial.expose(np.arange(400), np.repeat([0, 1], 200), totals)
    totals[:, SUMS.index("impressions")] += 10
    totals[::2, clicks] += 1
    look = trial.look(totals)
    assert look.users.tolist() == [200, 200]
    assert look.values["ctr"] == pytest.approx([0.05, 0.05])


def test_a_user_who_saw_two_arms_is_counted_as_crossed_and_no_more():
    trial, totals = Trial(shares=np.array([0.5, 0.5])), _totals(10)
    trial.expose(np.arange(10), np.arange(10) % 2, totals)
    trial.expose(np.array([3, 4]), np.array([1, 1]), totals)
    look = trial.look(totals)
    assert look.crossed == 1
    assert look.users.tolist() == [4, 5]


def test_a_lift_is_found_covered_and_its_variance_cut_by_what_came_before():
    watched = one(seed=7, users=20_000, lift=0.05)
    assert watched.found
    assert watched.covered
    assert not watched.raised
    assert watched.variance_cut > 0.4


def test_watching_experiments_without_a_lift_raises_few_false_alarms():
    assert sum(one(seed, users=1_000, lift=0.0).found for seed in range(60)) <= 3


RAIL = Guardrail(metric="ctr", most_loss=0.1)
RAILED = start(
    create(
        {},
        "warmth",
        (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="other", share=0.5, changes={"temperature": 0.3})),
        layer="ranking",
        width=1.0,
        primary="ctr",
        guardrails=(RAIL,),
        time_ms=1,
    ),
    1.0,
    2,
)


def _is_ended(seed: int, users: int, lift: float) -> bool:
    """Whether the guardrail ends an experiment at some look."""
    found: list[str] = []

    def seen(look: Look) -> bool:
        found.extend(why for why in [breached(RAILED, look)] if why)
        return bool(found)

    watch(shoppers(seed, users, lift), seen)
    return bool(found)


def test_a_guardrail_ends_few_experiments_that_lose_just_what_it_allows_and_those_that_lose_more():
    assert sum(_is_ended(seed, users=600, lift=-RAIL.most_loss) for seed in range(20)) <= 1
    assert all(_is_ended(seed, users=1_200, lift=-0.35) for seed in range(4))


def test_the_covariate_never_raises_the_variance_even_when_it_is_noise():
    for seed in range(20):
        people = shoppers(seed, 300, 0.0)
        noise = np.random.default_rng(seed).permutation(people.before)
        trial = Trial(shares=np.array([0.5, 0.5]))
        trial.expose(np.arange(300), people.arm, noise)
        difference = trial.look(noise + people.after).differences["ctr"].get(1)
        assert difference is not None
        assert difference.variance_cut >= 0


def test_a_split_one_per_cent_off_is_found_and_a_fair_one_is_not():
    assert users_until_split_found(1, 0.505, 400_000) is not None
    assert users_until_split_found(1, 0.5, 400_000) is None


def _acted(arms: list[int], acting: list[int], alpha: float = 0.05) -> Look:
    """What a trial shows of ``arms`` users with an impression each, of whom ``acting`` clicked."""
    arm = np.repeat(np.arange(len(arms)), arms)
    totals = _totals(len(arm))
    trial = Trial(shares=np.full(len(arms), 1 / len(arms)), alpha=alpha)
    trial.expose(np.arange(len(arm)), arm, totals)
    totals[:, SUMS.index("impressions")] = 1
    totals[:, SUMS.index("clicks")] = np.concatenate(
        [np.arange(of) < clicked for of, clicked in zip(arms, acting, strict=True)]
    )
    return trial.look(totals)


def test_arms_of_few_users_or_in_which_few_did_it_are_not_compared():
    few = DOERS_MIN - 1
    for arms, acting, told in (
        ([USERS_MIN, USERS_MIN], [DOERS_MIN, DOERS_MIN], True),
        ([USERS_MIN, USERS_MIN], [DOERS_MIN, few], False),
        ([USERS_MIN, USERS_MIN], [few, DOERS_MIN], False),
        ([USERS_MIN, USERS_MIN - 1], [50, 50], False),
        ([1_900, USERS_MIN], [40, 0], False),
        ([USERS_MIN, USERS_MIN], [USERS_MIN - DOERS_MIN] * 2, True),
        ([USERS_MIN, USERS_MIN], [USERS_MIN - DOERS_MIN, USERS_MIN - few], False),  # who left it undone are as few
        ([USERS_MIN, USERS_MIN], [USERS_MIN - 2 * EXPECTED_MIN, USERS_MIN], True),
        ([USERS_MIN, USERS_MIN], [2 * EXPECTED_MIN, 0], True),  # that nobody does it is what tells something here
    ):
        assert (1 in _acted(arms, acting).differences["ctr"]) == told, (arms, acting)


def test_a_rare_event_in_a_small_arm_raises_few_false_alarms_while_it_is_watched():
    alarms = 0
    for seed in range(25):
        draw, users = np.random.default_rng(seed), 12_000
        arm = (draw.random(users) < 0.05).astype(np.int64)
        totals, trial = _totals(users), Trial(shares=np.array([0.95, 0.05]))
        totals[:, SUMS.index("revenue_micros")] = 20e6 * (draw.random(users) < 0.006)
        alarm = False
        for until in range(2_200, users + 1, 700):
            trial.expose(np.arange(until), arm[:until], np.zeros((until, len(SUMS))))
            if found := trial.look(totals[:until]).differences["revenue_micros"].get(1):
                alarm |= not found.low <= 0 <= found.high
        alarms += alarm
    assert alarms <= 2  # 5 %, and were 8


def test_where_nearly_every_click_buys_a_small_arm_raises_few_false_alarms_while_it_is_watched():
    alarms = 0
    for seed in range(40):
        draw, users = np.random.default_rng(seed), 4_000
        arm = (draw.random(users) < 0.1).astype(np.int64)
        totals, trial, alarm = _totals(users), Trial(shares=np.array([0.9, 0.1])), False
        totals[:, SUMS.index("clicks")] = draw.poisson(0.06 * draw.gamma(0.5, 2, users))
        totals[:, SUMS.index("conversions")] = draw.binomial(totals[:, SUMS.index("clicks")].astype(int), 0.9)
        for until in range(600, users + 1, 200):
            trial.expose(np.arange(until), arm[:until], np.zeros((until, len(SUMS))))
            if found := trial.look(totals[:until]).differences["cvr"].get(1):
                alarm |= not found.low <= 0 <= found.high
        alarms += alarm
    assert alarms <= 2  # 5 %


def test_an_interval_is_as_wide_as_the_variance_between_users_makes_it():
    found = _acted([200, 300], [60, 120]).differences["ctr"][1]
    variance = sum(p * (1 - p) / (n - 1) for p, n in ((0.3, 200), (0.4, 300)))
    assert found.value == pytest.approx(0.1)
    assert (found.high - found.low) / 2 == pytest.approx(
        radius(variance, mixture_width(FIRST_PLAN / variance, 0.05), 0.05)
    )


def test_arms_beside_the_first_share_the_chance_of_being_wrong():
    three = _acted([200, 300, 300], [60, 180, 20]).differences["ctr"]
    for arm, (users, acting) in enumerate(((300, 180), (300, 20)), start=1):
        alone = _acted([200, users], [60, acting], alpha=0.05 / 2).differences["ctr"][1]
        assert (three[arm].low, three[arm].high) == pytest.approx((alone.low, alone.high))
        assert three[arm].p_value == pytest.approx(min(2 * alone.p_value, 1.0))
        assert three[arm].p_value < 1
