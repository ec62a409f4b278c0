"""Slots are told by their numbers, which have gaps where the rules leave a slot empty."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.json import decode
from msgspec.structs import replace

from streams.choices import Choices
from streams.wire import Placement, encode_json
from tests.unit.test_choices import _click, _decision


def read(numbers: dict[int, Sequence[int]], slots: int) -> Choices:
    """Placements by their seeds, each of two ads in the slots with these ``numbers``; the second ad is clicked."""
    choices = Choices(1.0, slots=slots)
    for seed, told in numbers.items():
        decision, (_, second) = _decision(seed, 1.0)
        placement = decode(decision.placement, type=Placement)
        shown = tuple(replace(one, slot=number) for one, number in zip(placement.slots, told, strict=True))
        choices.decided([encode_json(replace(decision, placement=encode_json(replace(placement, slots=shown))))])
        choices.clicked([_click(decision.placement_id, second)])
    return choices


def test_what_stands_below_an_empty_slot_is_of_its_own_slot_and_not_of_the_empty_one() -> None:
    choices = read({1: (0, 1), 2: (0, 2), 3: (0, 2), 4: (1, 2), 5: (0, 5)}, slots=3)
    first, second, third = choices.logged()
    assert [len(logged.reward) for logged in (first, second, third)] == [4, 2, 3]
    assert [logged.reward.tolist() for logged in (first, second, third)] == [[0] * 4, [1, 0], [1] * 3]
    for logged in (first, second, third):  # the policy is the one that ran
        assert logged.weight == pytest.approx(np.ones(len(logged.weight)))


def test_a_slot_that_is_empty_in_all_placements_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="no placement with slot 1 can be judged; is"):
        read({1: (0, 2), 2: (0, 2)}, slots=3).logged()


def test_clicks_on_what_no_placement_held_has_shown_take_no_memory() -> None:
    choices = read({1: (0, 1)}, slots=1)
    assert not choices.clicks  # the second slot's ad is not judged
    _, (first, _) = _decision(1, 1.0)
    choices.clicked([_click(f"p-{number}", first) for number in range(2, 100)])
    choices.clicked([_click("p-1", f"made-up-{number}") for number in range(100)])
    choices.clicked([_click("p-1", first)])
    assert choices.clicks == {("p-1", first)}


def test_malformed_clicks_and_other_outcomes_say_nothing() -> None:
    choices = read({1: (0, 2)}, slots=1)
    _, (first, _) = _decision(1, 1.0)
    view, nowhere = _click("p-1", first, kind="view"), _click("", first)
    broken = [dataclasses.replace(view, value=value) for value in (b"{", None)]
    choices.clicked([*broken, view, nowhere, _click("p-1", first, impression_time_ms=None)])
    assert not choices.clicks
