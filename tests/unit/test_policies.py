"""Experiments in the engine: every user is decided for by the arms they are in, and the placement's id says which."""

import numpy as np
import pytest

from scoring.assignment import Arm, Experiment
from scoring.candidates import Shares
from scoring.policies import BOUNDS, CONTROL_ARM, Experiments, Policy, arm_tag, arms_of, changed, in_control
from streams.settings import Settings

USERS = np.arange(1, 2_001, dtype=np.uint64)
POLICY = Policy(shares=Shares(count=50), control_share=0.1)
WARMTH = Experiment("warmth", "ranking", 0, 0.5, 1, (Arm("as-is", 0.5), Arm("warmer", 0.5, {"temperature": 0.4})))
WIDTH = Experiment("width", "candidates", 0, 1, 1, (Arm("as-is", 0.5), Arm("wide", 0.5, {"candidates": 80})))


def test_without_experiments_everyone_has_the_shops_policy_and_an_id_without_tag():
    (group,) = Experiments().groups(USERS, POLICY)
    assert group.policy is POLICY
    assert (group.arm, group.tag) == ("engine", "")
    assert group.people.tolist() == list(range(len(USERS)))


def test_everyone_is_in_one_group_whose_policy_has_the_changes_of_all_their_arms():
    experiments = Experiments()
    experiments.set(3, WARMTH)
    experiments.set(10, WIDTH)
    groups = {group.arm: group for group in experiments.groups(USERS, POLICY)}
    people = np.concatenate([group.people for group in groups.values()])
    assert sorted(people.tolist()) == list(range(len(USERS)))
    both = groups["warmth/warmer+width/wide"]
    assert (both.policy.temperature, both.policy.shares.count, both.policy.slots) == (0.4, 80, POLICY.slots)
    assert arms_of("0-1-2-ff" + both.tag) == [(3, 1), (10, 1)]
    assert groups["engine"].policy == POLICY


def test_an_arm_that_names_no_model_leaves_the_one_that_the_arm_of_another_experiment_names():
    experiments = Experiments()
    experiments.set(3, Experiment("models", "ranking", 0, 1, 1, (Arm("as-is", 0.5), Arm("newer", 0.5, model="m-1"))))
    experiments.set(10, WIDTH)
    models = {group.arm: group.policy.model for group in experiments.groups(USERS, POLICY)}
    assert (models["models/newer+width/wide"], models["models/as-is+width/wide"]) == ("m-1", "")


def test_the_control_arm_and_the_holdout_are_in_no_experiment():
    experiments = Experiments(holdout_share=0.2)
    experiments.set(1, WIDTH)
    outside = next(group for group in experiments.groups(USERS, POLICY) if group.arm == "engine")
    assert in_control(USERS, POLICY.control_share)[outside.people].sum() == in_control(USERS, 0.1).sum()
    assert len(outside.people) == pytest.approx(0.28 * len(USERS), rel=0.1)  # 1 - 0.9 × 0.8
    assert CONTROL_ARM == "control"


def test_an_experiment_that_ended_leaves_no_trace():
    experiments = Experiments()
    experiments.set(1, WIDTH)
    experiments.set(1, None)
    assert len(experiments) == 0
    assert len(experiments.groups(USERS, POLICY)) == 1


def test_an_arm_that_changes_what_it_may_not_is_refused_and_nothing_changes():
    experiments = Experiments()
    bold = Experiment("bold", "ranking", 0, 1, 1, (Arm("a", 0.5), Arm("b", 0.5, {"control_share": 0.0})))
    with pytest.raises(ValueError, match="cannot change control_share; expected some of slots"):
        experiments.set(1, bold)
    assert len(experiments) == 0
    assert changed(POLICY, {}) == POLICY


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("slots", 0),
        ("slots", -1),
        ("slots", 51),
        ("slots", "inf"),
        ("slots", "many"),
        ("candidates", 0),
        ("candidates", 1e300),
        ("fresh_share", 5.0),
        ("random_share", -0.1),
        ("temperature", "nan"),
        ("temperature", -1),
        ("ucb_alpha", float("nan")),
        ("placement_ttl_ms", 1e300),
        ("placement_ttl_ms", 0.5),
    ],
)
def test_an_arm_out_of_bounds_is_refused_and_the_experiment_as_it_ran_goes_on(name: str, change: float | str):
    experiments = Experiments()
    experiments.set(1, WIDTH)
    wild = Experiment("width", "candidates", 0, 1, 1, (Arm("as-is", 0.5), Arm("wild", 0.5, {name: change})))
    with pytest.raises(ValueError, match=name if change != "many" else "many"):
        experiments.set(1, wild)
    assert {group.arm for group in experiments.groups(USERS, POLICY)} == {"engine", "width/as-is", "width/wide"}


@pytest.mark.parametrize(
    ("name", "change", "instead"),
    [("slots", 2.7, "2 or 3"), ("candidates", "1.9", "1 or 2"), ("placement_ttl_ms", 1_000.5, "1000 or 1001")],
)
def test_an_arm_that_changes_by_parts_what_has_none_is_refused(name: str, change: float | str, instead: str):
    with pytest.raises(ValueError, match=f"{name} {change!r}; expected a whole number: say {instead}"):
        changed(POLICY, {name: change})
    assert changed(POLICY, {"slots": 2.0, "candidates": "30", "fresh_share": 0.25}).slots == 2


@pytest.mark.parametrize("name", BOUNDS)
def test_an_arm_may_go_as_far_as_the_shops_own_settings_and_no_further(name: str):
    limits = Settings.model_json_schema()["properties"][name]
    assert BOUNDS[name] == (limits["minimum"], limits["maximum"])
    for bound in BOUNDS[name]:
        changed(POLICY, {name: bound})


@pytest.mark.parametrize("name", ["0-1-2-ff", "made-up", "a.b", "x.1-", ""])
def test_an_id_without_arms_or_of_somebody_elses_making_has_none(name):
    assert arms_of(name) == []


def test_a_tag_is_read_back_as_it_was_written_and_fits_an_id_with_three_experiments():
    arms = [(1, 0), (255, 7), (4_000, 15)]
    assert arms_of("0" + arm_tag(arms)) == arms
    assert len("3f-ffffffff-ffffffff-" + 16 * "f" + arm_tag(arms)) <= 64
