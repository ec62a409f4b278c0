"""Ids of placements: as long as they ever become, they come back on events and are read."""

import msgspec
import numpy as np
import pytest

from scoring.policies import LAYERS_MAX, Experiments, Policy, arms_of
from streams.control_wire import ArmSetting, ExperimentSetting
from streams.experiments.referee import Referee
from streams.experiments.registry import ExperimentError, create, definition, start, stop
from streams.placement_ids import made_for, placement_id
from streams.wire import Click, Impression, encode_json
from tests.unit.showing import see
from tests.unit.test_experiments import row

LARGEST_NUMBER, LARGEST_LANE, LARGEST_OFFSET = 65_535, 65_535, 2**63 - 2


def layered(known: dict[str, ExperimentSetting], layer: str) -> ExperimentSetting:
    arms = tuple(ArmSetting(arm=f"arm-{at}", share=1 / 16) for at in range(16))
    return create(known, layer, arms, layer=layer, width=1.0, primary="ctr", guardrails=(), time_ms=1)


def layers(number: int) -> dict[str, ExperimentSetting]:
    known: dict[str, ExperimentSetting] = {}
    for at in range(number):
        known[f"layer-{at}"] = start(layered(known, f"layer-{at}"), 1.0, 2, known.values())
    return known


def longest_id() -> tuple[str, list[ExperimentSetting]]:
    """The id that most experiments, with the largest numbers and the last arms, make of the largest offsets."""
    settings = [
        msgspec.structs.replace(one, number=LARGEST_NUMBER - at) for at, one in enumerate(layers(LAYERS_MAX).values())
    ]
    experiments = Experiments()
    for one in settings:
        last = msgspec.structs.replace(one.arms[-1], share=1 - 15e-9)
        few = tuple(msgspec.structs.replace(arm, share=1e-9) for arm in one.arms[:-1])
        experiments.set(one.number, definition(msgspec.structs.replace(one, arms=(*few, last))))
    (group,) = experiments.groups(np.array([7], dtype=np.uint64), Policy(control_share=0.0))
    return placement_id(LARGEST_LANE, b"u1", (LARGEST_OFFSET, LARGEST_OFFSET)) + group.tag, settings


def test_the_longest_id_of_a_placement_is_read_wherever_it_comes_back() -> None:
    name, settings = longest_id()
    assert [number for number, _ in arms_of(name)] == sorted(one.number for one in settings)
    assert len(name) == 55 + 7 * LAYERS_MAX
    shown = {"event_id": "e", "user_id": "u1", "ad_id": "a", "time_ms": 10, "placement_id": name}
    assert msgspec.json.decode(encode_json(shown), type=Impression).placement_id == name
    assert msgspec.json.decode(encode_json(shown), type=Click).placement_id == name
    referee = Referee()
    for setting in settings:
        referee.follow(setting)
    see(referee, [encode_json(shown)])
    referee.take_rows([b"u1"], row(10, 1, 0))
    looks = [watched.last for watched in referee.look()]
    assert [look.users.tolist() for look in looks if look] == [[0] * 15 + [1]] * LAYERS_MAX


def test_a_placement_is_told_to_be_its_users_whatever_tags_stand_behind_its_id_and_nobody_elses() -> None:
    name = placement_id(3, "zoë".encode(), (41, -1))
    own = [name, f"{name}.1-0", longest_id()[0]]
    assert made_for(own, ["zoë", "zoë", "u1"]).tolist() == [True] * 3
    others = [name, "", "p", name[:-1], f"{name}0", f"p.{name}", longest_id()[0]]
    assert made_for(others, ["zoe", *["zoë"] * 6]).tolist() == [False] * 7


def test_a_layer_beyond_those_whose_tags_fit_into_an_id_is_neither_made_nor_started() -> None:
    known = layers(LAYERS_MAX)
    with pytest.raises(ExperimentError, match="10 layers at most, or the ids of placements would be too long"):
        layered(known, "another")
    drafted = layered({}, "another")  # by a former version
    with pytest.raises(ExperimentError, match="use one of those, or stop the experiments of one first"):
        start(drafted, 1.0, 3, known.values())
    known["layer-3"] = stop(known["layer-3"], "enough", 3)
    assert start(layered(known, "another"), 1.0, 4, known.values()).layer == "another"


def test_a_layer_that_is_there_has_room_for_further_experiments_beside_all_others() -> None:
    known = layers(LAYERS_MAX)
    known["layer-3"] = msgspec.structs.replace(known["layer-3"], high=0.5)
    arms = (ArmSetting(arm="a", share=0.5), ArmSetting(arm="b", share=0.5))
    made = create(known, "more", arms, layer="layer-3", width=0.5, primary="ctr", guardrails=(), time_ms=3)
    assert start(made, 1.0, 4, known.values()).status == "running"
    for number in (90, 91):  # of a former version, which had no bound
        beyond = start(layered({}, f"layer-{number}"), 1.0, 2)
        known[f"layer-{number}"] = msgspec.structs.replace(beyond, number=number)
    made = create(known, "more", arms, layer="layer-3", width=0.5, primary="ctr", guardrails=(), time_ms=3)
    assert start(made, 1.0, 4, known.values()).status == "running"
