"""What personalisation changed, where the control group's share of the people did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from scoring.confidence import Z_95
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.units import HOUR_MS
from streams.behaviour.personal import Personalisation, personalisation
from streams.logs import Event
from tests.builders import START_MS, ad, impression
from tests.unit.test_behaviour import _groups, behaviour_of

LOOKS = 12
KINDS = [ad(f"ad-{at}", category=f"c{at}") for at in range(4)]


@dataclass(frozen=True)
class Crowd:
    """Who came while the control group's share was ``share``: so many of each group, shown so many ``kinds`` of ads."""

    share: float
    control: int
    engine: int
    kinds: int = 1
    looks: int = LOOKS


def compared(crowds: Sequence[Crowd]) -> Personalisation:
    """One crowd after the other, an hour each."""
    events: list[Event] = []
    decisions: list[dict[str, object]] = []
    for hour, crowd in enumerate(crowds):
        for number in range(crowd.control + crowd.engine):
            name, arm = f"{hour}-{number}", CONTROL_ARM if number < crowd.control else ENGINE_ARM
            made = {"placement_id": name, "user_id": name, "arm": arm}
            decisions.append(made | {"policy": {"control_share": crowd.share}})
            for at in range(crowd.looks):
                time_ms = START_MS + HOUR_MS * hour + 1_000 * at
                events.append(impression(name, f"ad-{at % crowd.kinds}", time_ms, placement_id=name))
    found = personalisation(behaviour_of(events, KINDS, decisions))
    assert found is not None
    return found


def test_entropy_weighs_people_by_the_chance_of_their_group_so_that_early_and_late_ones_stand_alike_in_both() -> None:
    crowds = Crowd(0.5, 40, 40, kinds=2), Crowd(0.1, 30, 270, kinds=4)
    told = next(each for each in compared(crowds).changes if each.metric == "category_entropy_bits")
    bits = [math.log2(each.kinds) + (each.kinds - 1) / (2 * LOOKS * math.log(2)) for each in crowds]
    means, variances = [], []
    for group in ("control", "engine"):
        people = [getattr(crowd, group) for crowd in crowds]
        chances = [crowd.share if group == "control" else 1 - crowd.share for crowd in crowds]
        entropy, weight = np.repeat(bits, people), 1 / np.repeat(chances, people)
        mean = (weight * entropy).sum() / weight.sum()
        spread = (weight**2 * (entropy - mean) ** 2).sum() / weight.sum() ** 2
        means.append(mean)
        variances.append(spread * len(entropy) / (len(entropy) - 1))
    reach = Z_95 * math.sqrt(sum(variances))
    assert (told.control, told.personalised) == pytest.approx(means)
    assert (told.difference, told.low, told.high) == pytest.approx((0, -reach, reach))


@pytest.mark.parametrize(
    "few",
    [Crowd(0.01, 1, 150, looks=1), Crowd(0.01, 25, 125, looks=1), Crowd(0.99, 150, 1, looks=1)],
    ids=["few are in control", "more than were meant are", "few are ranked for"],
)
def test_who_came_while_a_group_was_meant_for_hardly_anybody_stands_for_nobody(few: Crowd) -> None:
    found = compared([Crowd(0.5, 20, 20), few])
    assert found.people == {"control": 20, "personalised": 20}
    assert found.impressions == {"control": 240, "personalised": 240}
    assert compared([few]).people == {"control": few.control, "personalised": few.engine}  # where nobody outweighs them


def test_a_few_people_under_another_share_take_nobody_from_those_who_were_there() -> None:
    main = Crowd(0.05, 19, 361, looks=1)
    for others in (Crowd(0.06, 0, 1, looks=1), Crowd(0.06, 18, 282, looks=1)):
        assert compared([main, others]).people == {"control": 19, "personalised": 361}


def test_impressions_are_of_the_people_who_count() -> None:
    found = personalisation(behaviour_of(*_groups(40, crossed=10)))
    assert found is not None
    assert found.people == {"control": 20, "personalised": 15}
    assert found.impressions == {"control": 400, "personalised": 300}
