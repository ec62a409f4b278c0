"""Position bias from random placements: the curve that is there is found, with intervals that cover it."""

import tracemalloc

import numpy as np
import pytest

from scoring.confidence import Z_95
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.positions import CLICKS_MIN, PEOPLE_MIN, examination
from streams.behaviour.positions import positions
from streams.demo.shop import SLOT_WEIGHT
from tests.builders import START_MS, click, impression
from tests.unit.test_behaviour import behaviour_of

SLOTS, PEOPLE, PLACEMENTS = 6, 400, 12
TRUTH = 1 / (1 + SLOT_WEIGHT * np.arange(SLOTS))
"""The demo shop's: how likely its shoppers click in each slot, by the first."""


def shop(seed: int, people: int = PEOPLE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots, clicks and people of random placements; people differ in how much they click, and in how far they look."""
    draw = np.random.default_rng(seed)
    slot = np.tile(np.arange(SLOTS), people * PLACEMENTS)
    person = np.repeat(np.arange(people), SLOTS * PLACEMENTS)
    liking = draw.beta(2, 8, people)[person] * draw.uniform(0.5, 1.5, len(slot))
    seen = draw.geometric(0.15, people * PLACEMENTS).repeat(SLOTS) > slot  # what nobody scrolls to is no impression
    clicked = draw.random(len(slot)) < liking * TRUTH[slot]
    return slot[seen], clicked[seen], person[seen]


def test_the_shops_own_curve_is_found_and_its_intervals_cover_it():
    covered = []
    for seed in range(60):
        found = examination(*shop(seed))
        assert [one.slot for one in found] == list(range(SLOTS))
        covered += [one.low <= truth <= one.high for one, truth in zip(found[1:], TRUTH[1:], strict=True)]
        if seed == 0:
            np.testing.assert_allclose([one.examined for one in found], TRUTH, rtol=0.25)
    assert 0.92 <= np.mean(covered) <= 0.99
    many = examination(*shop(99, people=6_000))
    np.testing.assert_allclose([one.examined for one in many], TRUTH, rtol=0.06)


def test_a_slot_with_few_clicks_is_not_spoken_of():
    slot, person = np.repeat([0, 1], 500), np.tile(np.arange(500), 2)
    clicked = np.concatenate([np.arange(500) % 5 == 0, np.arange(500) < CLICKS_MIN - 1])
    first, second = examination(slot, clicked, person)
    assert (first.examined, first.clicks) == (1.0, 100)
    assert (first.low, first.high) == (1.0, 1.0)  # by itself
    assert (second.examined, second.low, second.clicks) == (None, None, CLICKS_MIN - 1)
    assert examination(slot[:0], clicked[:0], person[:0]) == []


@pytest.mark.parametrize("people", [1, 2, PEOPLE_MIN - 1, PEOPLE_MIN])
def test_a_slot_that_few_people_were_shown_has_no_interval_however_many_clicks_there_are(people: int) -> None:
    everybody = PEOPLE_MIN + 10
    slot = np.repeat([0, 1], [100 * everybody, 100 * people])
    person = np.concatenate([np.repeat(np.arange(everybody), 100), np.repeat(np.arange(people), 100)])
    clicked = np.arange(len(slot)) % (3 + person % 4) == 0
    first, second = examination(slot, clicked, person)
    assert first.low == first.high == 1.0
    assert second.clicks >= CLICKS_MIN
    assert second.examined == pytest.approx(second.clicks / second.impressions / (first.clicks / first.impressions))
    assert [second.low is None, second.high is None] == [people < PEOPLE_MIN] * 2
    alone = person == 0
    assert [one.low for one in examination(slot[alone], clicked[alone], person[alone])] == [None, None]


def test_a_few_people_who_were_shown_nearly_all_count_as_few_whoever_else_was_there() -> None:
    times = np.array([2_000] * 5 + [2] * 200)
    person = np.tile(np.repeat(np.arange(len(times)), times), 2)
    slot = np.repeat([0, 1], times.sum())
    _, second = examination(slot, np.arange(len(slot)) % 3 == 0, person)
    assert second.examined is not None
    assert second.low is None


def test_a_report_tells_of_the_control_groups_impressions_alone():
    events, decisions = [], []
    for number in range(200):
        control = number % 2 == 0
        name, arm = f"p-{number}", CONTROL_ARM if control else ENGINE_ARM
        made = {"placement_id": name, "user_id": f"u-{number}", "arm": arm}
        decisions.append(made | {"policy": {"control_share": 0.5}})
        for slot in range(2):
            told = {"placement_id": name, "slot": None if number == 0 else slot}
            time_ms = START_MS + 1_000 * slot
            events.append(impression(f"u-{number}", f"ad-{slot}", time_ms, **told))
            if slot == 0 or not control or number % 4 == 2:
                events.append(click(f"u-{number}", f"ad-{slot}", time_ms + 5, impression_time_ms=time_ms))
    found = positions(behaviour_of(events, [], decisions))
    assert found is not None
    assert found.people == 99  # one of them did not say where its ads stood
    assert [one.impressions for one in found.slots] == [99, 99]
    assert [one.clicks for one in found.slots] == [99, 50]
    assert found.slots[1].examined == pytest.approx(50 / 99)
    assert positions(behaviour_of(events, [])) is None


def test_a_report_tells_nothing_by_slots_that_were_not_drawn():
    events, decisions = [], []
    for number in range(200):
        name, propensities = f"p-{number}", [1.0 if number % 2 else 0.3, 1.0 if number % 4 == 0 else 0.5, 0.5, 1.0]
        made = {"placement_id": name, "user_id": f"u-{number}", "arm": CONTROL_ARM}
        decisions.append(made | {"policy": {}, "propensities": propensities})
        for slot in range(4):
            time_ms = START_MS + 1_000 * slot
            events.append(impression(f"u-{number}", f"ad-{slot}", time_ms, placement_id=name, slot=slot))
    found = positions(behaviour_of(events, [], decisions))
    assert found is not None
    assert [one.impressions for one in found.slots] == [100, 150, 200, 200]  # for the last one ad may have been left


def test_an_interval_is_that_of_the_definition_person_by_person() -> None:
    slot, clicked, person = shop(5)
    found = examination(slot, clicked, person)
    people, slots = int(person.max()) + 1, int(slot.max()) + 1
    shown, clicks = np.zeros((people, slots)), np.zeros((people, slots))
    np.add.at(shown, (person, slot), 1)
    np.add.at(clicks, (person, slot), clicked)
    part = (clicks - clicks.sum(0) / shown.sum(0) * shown) / clicks.sum(0)  # of the logarithm of a slot's rate
    error = np.sqrt(((part - part[:, :1]) ** 2).sum(0) * people / (people - 1))
    assert [(one.impressions, one.clicks) for one in found] == [*zip(shown.sum(0), clicks.sum(0), strict=True)]
    for one, off in zip(found, error.tolist(), strict=True):
        assert one.examined is not None
        assert (one.low, one.high) == pytest.approx(
            (one.examined * np.exp(-Z_95 * off), one.examined * np.exp(Z_95 * off))
        )
    assert (found[0].low, found[0].high) == (1, 1)


def test_an_impression_that_tells_a_far_slot_takes_no_room_for_everybody() -> None:
    people = 20_000
    slot, person = np.arange(people) % 5, np.arange(people)
    slot[7] = 999
    tracemalloc.start()
    found = examination(slot, np.zeros(people, dtype=np.bool_), person)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 1_000
    assert most < 500 * people  # bytes: of 999 slots each takes thirty times that
