"""Bandits' arms and cohorts at their bounds."""

import numpy as np
import pytest

from scoring.policies import Experiments, Policy
from streams.control_wire import ArmSetting
from streams.experiments.registry import Bandit, ExperimentError, ExperimentSwitch, next_cohort, start
from tests.unit.test_experiments import BANDIT, draft


def test_an_arm_of_a_bandit_may_begin_with_its_minimum_and_not_with_less() -> None:
    few = (ArmSetting(arm="as-is", share=0.9), ArmSetting(arm="warmer", share=0.1, changes={"temperature": 0.3}))
    assert draft(bandit=BANDIT, arms=few).minimum == 0.1
    with pytest.raises(ExperimentError, match=r"begins with less than the minimum of 0\.11"):
        draft(bandit=Bandit(0.11, 60), arms=few)


def test_cohorts_that_were_taken_back_do_not_come_in_with_the_experiment() -> None:
    experiments = Experiments()
    switch = ExperimentSwitch(experiments)
    setting = start(draft(bandit=BANDIT, width=1.0), 0.5, 1_000)
    switch.allocate("warmth", next_cohort(setting, None, (0.1, 0.9), 10**6))
    switch.allocate("warmth", None)
    switch.follow("warmth", setting)
    users = np.random.default_rng(1).integers(0, 2**64, 4_000, dtype=np.uint64)
    groups = {group.arm: group for group in experiments.groups(users, Policy(control_share=0.0))}
    assert set(groups["warmth/warmer"].chance.tolist()) == {0.5}
