"""A receipt computed again: byte for byte, or with what differs."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from scoring.assignment import Arm, Experiment
from scoring.attention import AttentionModel, load
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.policies import Policy, arms_of
from streams.explain import recompute
from streams.step import LaneState, Slice, Step
from streams.wire import Decision
from tests.builders import START_MS, entry, made_up_log, records

ADS = 120


@pytest.fixture(scope="module")
def model() -> AttentionModel:
    return load()


def engine_of(model: AttentionModel, policy: Policy | None = None, bid: int = 100) -> Engine:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert([entry(f"ad-{n}", category=f"c{n % 7}/s{n % 21}", bid_micros=bid + n) for n in range(ADS)])
    return Engine(shop, model, policy or Policy())


def decisions(engine: Engine) -> list[Decision]:
    """Receipts of a made-up log, both arms among them."""
    taken = records([event for event in made_up_log(seed=1).events if event.time_ms >= START_MS][:600])
    order = np.array([each.topic == "clicks" for each in taken], dtype=np.uint8)
    state = LaneState(0, ("a", "b"), 1)
    step = Step(engine, lambda _: 0, 300_000, 10**12)
    effects = step.run(state, Slice(taken, order, (0, 0)), START_MS + 10**10)
    values: Sequence[bytes | None] = [message.value for message in effects.messages["decisions"]]
    return [msgspec.json.decode(value, type=Decision) for value in values if value is not None]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(control_share=0.5),
        Policy(temperature=0.5, shares=Shares(count=40), slots=7),
        Policy(temperature=3.0, control_share=0.0),
    ],
    ids=["greedy and control", "cool", "warm"],
)
def test_a_receipt_gives_the_same_placement_byte_for_byte(model: AttentionModel, policy: Policy) -> None:
    made = decisions(engine_of(model, policy))
    assert len(made) >= 10
    another = engine_of(model, Policy(slots=1, temperature=9.0))  # the receipt's own policy counts
    for decision in made:
        result = recompute(decision, another)
        assert result.differences == []
        assert result.identical
        assert result.pctr_difference < 1e-6


def test_the_receipt_of_an_experiments_arm_is_recomputed_without_the_experiment(model: AttentionModel) -> None:
    engine = engine_of(model)
    engine.experiments.set(
        5, Experiment("warmth", "ranking", 0, 1, 1, (Arm("as-is", 0.5), Arm("warmer", 0.5, {"temperature": 0.5})))
    )
    made = decisions(engine)
    assert {decision.arm for decision in made} >= {"warmth/as-is", "warmth/warmer"}
    for decision in made:
        assert arms_of(decision.placement_id) == (
            [] if decision.arm == "control" else [(5, int(decision.arm == "warmth/warmer"))]
        )
        assert recompute(decision, engine_of(model)).identical


def test_an_ad_changed_since_is_named(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    shown = msgspec.json.decode(decision.placement)["slots"][0]["ad_id"]
    engine.catalogue.upsert([entry(shown, category="elsewhere", bid_micros=1)])
    result = recompute(decision, engine)
    assert not result.identical
    assert any(shown in difference for difference in result.differences)


def test_a_receipt_that_was_tampered_with_does_not_rank_as_it_says(model: AttentionModel) -> None:
    engine = engine_of(model, Policy(control_share=0.0))
    decision = decisions(engine)[0]
    pctr = np.frombuffer(decision.pctr, dtype=np.float32).copy()
    pctr[decision.chosen[0]] /= 10
    result = recompute(msgspec.structs.replace(decision, pctr=pctr.tobytes()), engine)
    assert not result.identical
    assert any("rank" in difference for difference in result.differences)


def test_another_model_is_said_to_be_another(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    versions = decision.versions | {"model": "another-1"}
    result = recompute(msgspec.structs.replace(decision, versions=versions), engine)
    assert any("another-1" in difference for difference in result.differences)
