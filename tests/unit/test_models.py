"""Roles of models: who scores whom, what is logged beside, and who answers where a model cannot."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.assignment import Arm, Experiment
from scoring.attention import AttentionModel, load
from scoring.catalogue import Catalogue, learned_column
from scoring.engine import Engine
from scoring.evidence import KNOWN
from scoring.feedback import Learning
from scoring.ids import id64
from scoring.models import Models, Roles
from scoring.policies import CONTROL_ARM, ENGINE_ARM, Policy
from streams.explain import recompute
from streams.lanes.clicks import _MODELS_MAX, LaneClicks
from streams.step import LaneState, Slice, Step
from streams.wire import Decision, Impression, Outcome, Placement
from tests.builders import entry, made_up_log, records
from tests.models import Graphs, fails_on_what_is_new, gives_fewer, toy_model

ADS = 20


def toy(directory: Path, seed: int) -> AttentionModel:
    return load(toy_model(directory / str(seed), seed=seed))


def engine_of(model: AttentionModel, *further: AttentionModel) -> Engine:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert([entry(f"ad-{n}", category=f"c{n % 7}/s{n % 21}", bid_micros=100 + n) for n in range(ADS)])
    engine = Engine(shop, model, Policy(control_share=0.2))
    for other in further:
        hold(engine, other)
    return engine


def number_of(engine: Engine) -> int:
    """The shadow's, among the click layer's learners."""
    assert engine.models.shadow is not None
    return engine.models.shadow.number


def hold(engine: Engine, model: AttentionModel) -> None:
    column = learned_column(model.version)
    engine.catalogue.attach(column, model.encode, model.dim)
    tokens, dense, revisions = engine.catalogue.told(0, len(engine.catalogue))
    engine.catalogue.encoded(column, 0, model.encode(tokens, dense), revisions)
    engine.models.hold(model)


@pytest.fixture
def old(tmp_path: Path) -> AttentionModel:
    return toy(tmp_path, 0)


@pytest.fixture
def new(tmp_path: Path) -> AttentionModel:
    return toy(tmp_path, 1)


def users_of(count: int) -> np.ndarray:
    return np.array([id64(f"user-{number}") for number in range(count)], dtype=np.uint64)


def shares(models: Models, users: np.ndarray) -> dict[str, int]:
    return {served.version: len(places) for served, places in models.split(users)}


def test_a_canary_scores_its_share_of_people_and_a_larger_share_only_adds(
    old: AttentionModel, new: AttentionModel
) -> None:
    models, users = engine_of(old, new).models, users_of(4_000)
    before = np.zeros(0, dtype=np.int64)
    for share in (0.0, 0.1, 0.5, 1.0):
        models.play(Roles(canary=new.version, canary_share=share))
        of = {served.version: places for served, places in models.split(users)}
        assert sum(map(len, of.values())) == len(users)
        chosen = of.get(new.version, before[:0])
        assert len(chosen) / len(users) == pytest.approx(share, abs=0.03)
        assert set(before.tolist()) <= set(chosen.tolist())
        before = chosen


def test_promotion_and_rollback_change_who_is_live_and_let_go_of_what_has_no_role(
    old: AttentionModel, new: AttentionModel
) -> None:
    engine, users = engine_of(old, new), users_of(10)
    models = engine.models
    models.play(Roles(live=new.version, former=(old.version,)))
    assert shares(models, users) == {new.version: 10}
    models.play(Roles(live=old.version))
    assert shares(models, users) == {old.version: 10}
    assert new.version not in models
    with pytest.raises(AttributeError):
        _ = getattr(engine.catalogue, learned_column(new.version))


def test_a_refused_model_has_no_role_until_it_is_named_anew(old: AttentionModel, new: AttentionModel) -> None:
    models, users = engine_of(old, new).models, users_of(10)
    models.refuse(new.version, "it is bad")
    models.play(Roles(live=new.version, former=(old.version,)))
    assert shares(models, users) == {old.version: 10}
    assert models.refused == {new.version: "it is bad"}
    models.play(Roles())
    assert models.refused == {}


def run(
    engine: Engine, lane: LaneState, size: int = 20, roles: Sequence[Roles] = (), seed: int = 4
) -> tuple[list[Decision], list[Outcome], list[int]]:
    """The step over a log, in slices; before slice n the n-th roles are taken. Slices of the decisions, too."""
    given = records(made_up_log(seed=seed, events=400).events)
    step = Step(engine, lambda _: 0, 0, 10**12)
    decisions, outcomes, numbers = [], [], []
    for number, start in enumerate(range(0, len(given), size)):
        if number < len(roles):
            engine.models.play(roles[number])
        taken = given[start : start + size]
        order = np.array([each.topic == "clicks" for each in taken], dtype=np.uint8)
        newest_ms = max(each.timestamp for each in taken)
        effects = step.run(lane, Slice(taken, order, (newest_ms, newest_ms)), 2**42)
        found = [msgspec.json.decode(m.value or b"", type=Decision) for m in effects.messages["decisions"]]
        outcomes += [msgspec.json.decode(m.value or b"", type=Outcome) for m in effects.messages["outcomes"]]
        decisions += found
        numbers += [number] * len(found)
    return decisions, outcomes, numbers


def lane() -> LaneState:
    return LaneState(0, ("a", "b"), 1, clicks=LaneClicks(Learning(window_ms=60_000, wait_ms=5_000)))


def judged(outcomes: Sequence[Outcome], state: LaneState) -> list[Outcome]:
    """Those of impressions whose window has ended."""
    ended_ms = state.clicks.layer.clock_ms - state.clicks.layer.learning.window_ms
    return [one for one in outcomes if one.shown_ms <= ended_ms]


def test_every_placement_names_the_model_that_scored_it_and_is_computed_again_by_that_one(
    old: AttentionModel, new: AttentionModel
) -> None:
    after = Roles(live=new.version, former=(old.version,))
    canary = Roles(canary=new.version, canary_share=0.5)
    before = Roles(canary=new.version, canary_share=0.0)
    engine = engine_of(old, new)
    decisions, outcomes, slices = run(engine, lane(), roles=[*[before] * 5, *[canary] * 5, *[after] * 5])
    by_slice: dict[int, set[str]] = {}
    for decision, number in zip(decisions, slices, strict=True):
        placement = msgspec.json.decode(decision.placement, type=Placement)
        assert decision.versions["model"] == placement.model
        by_slice.setdefault(number, set()).add(placement.model)
        model = {one.version: one for one in (old, new)}[placement.model]
        assert recompute(decision, engine_of(model)).identical
    assert all(found == {old.version} for number, found in by_slice.items() if number < 5)
    assert set.union(*(found for number, found in by_slice.items() if 5 <= number < 10)) == {old.version, new.version}
    assert all(found == {new.version} for number, found in by_slice.items() if number >= 10)
    assert {one.model for one in outcomes} == {old.version, new.version}


def test_a_shadow_changes_nothing_and_is_told_beside(old: AttentionModel, new: AttentionModel) -> None:
    shadow = [Roles(shadow=new.version, shadow_share=1.0)]
    alone, silent, _ = run(engine_of(old), lane())
    engine, state = engine_of(old, new), lane()
    beside, outcomes, _ = run(engine, state, roles=shadow)
    assert [one.placement for one in beside] == [one.placement for one in alone]
    assert [one.predicted for one in outcomes] == [one.predicted for one in silent]
    assert {one.shadow for one in outcomes} == {new.version}
    assert all(0 < one.shadow_predicted < 1 for one in outcomes)
    differences = state.models.differences[new.version]
    assert differences.candidates > 100
    assert 0 < differences.total / differences.candidates < differences.largest < 1
    found = state.clicks.layer.learner(number_of(engine)).evidence
    known = judged(outcomes, state)
    assert found.outcomes == len(known) < KNOWN
    assert found.beside == 0
    assert found.clicks == sum(one.clicked for one in known) < len(known)
    assert found.predicted == pytest.approx(sum(one.shadow_predicted for one in known))


def test_a_shadow_shows_nothing_by_what_it_was_trained_on(old: AttentionModel, new: AttentionModel) -> None:
    shown_ms = [event.time_ms for event in made_up_log(seed=4, events=400).events if isinstance(event, Impression)]
    until_ms = sorted(shown_ms)[len(shown_ms) // 2]
    learnt = msgspec.structs.replace(new.manifest, data_from_ms=0, data_to_ms=until_ms)
    engine, state = engine_of(old, replace(new, manifest=learnt)), lane()
    _, outcomes, _ = run(engine, state, roles=[Roles(shadow=new.version, shadow_share=1.0)])
    assert {bool(one.shadow) for one in outcomes if one.shown_ms <= until_ms} == {False}
    assert {bool(one.shadow) for one in outcomes if one.shown_ms > until_ms} == {True}
    found = state.clicks.layer.learner(number_of(engine)).evidence
    assert found.outcomes == sum(one.shown_ms > until_ms for one in judged(outcomes, state)) > 0


def test_a_slice_in_which_nobody_is_a_shadows_to_score_is_a_slice_without_it(
    old: AttentionModel, new: AttentionModel
) -> None:
    alone, silent, _ = run(engine_of(old), lane(), size=200)
    engine = engine_of(old, new)
    beside, outcomes, _ = run(engine, lane(), size=200, roles=[Roles(shadow=new.version, shadow_share=1e-12)])
    assert engine.models.shadow is not None
    assert [one.placement for one in beside] == [one.placement for one in alone]
    assert [one.predicted for one in outcomes] == [one.predicted for one in silent]
    assert {one.shadow for one in outcomes} == {""}


def test_what_a_shadow_has_learned_is_there_when_it_is_promoted(old: AttentionModel, new: AttentionModel) -> None:
    engine, state = engine_of(old, new), lane()
    run(engine, state, roles=[Roles(shadow=new.version, shadow_share=1.0)])
    number = number_of(engine)
    learned = state.clicks.layer.learner(number).model.array
    former = state.clicks.layer.model.array
    engine.models.play(Roles(live=new.version, former=(old.version,)))
    decisions, _, _ = run(engine, state, size=1_000, seed=5)
    assert np.frombuffer(decisions[0].weights)[1] != 1.0
    assert learned[1] != 1.0
    engine.models.play(Roles(live=old.version))
    run(engine, state, size=1_000, seed=6)
    assert state.clicks.layer.learners.keys() == {engine.models.live.number}
    assert state.clicks.layer.model.array[1] != 1.0
    assert former[1] != 1.0


def test_what_a_lane_has_learned_of_a_model_is_there_when_a_worker_gets_it_after_all(
    old: AttentionModel, new: AttentionModel
) -> None:
    engine, state, roles = engine_of(old, new), lane(), Roles(shadow=new.version, shadow_share=1.0)
    run(engine, state, roles=[roles])
    number = number_of(engine)
    learned = state.clicks.layer.learner(number)
    assert learned.evidence.outcomes > 0

    without = engine_of(old)
    without.models.refuse(new.version, "not got yet")
    state.clicks = LaneClicks.restore(state.clicks.layer.learning, state.clicks.parts())
    run(without, state, roles=[roles], size=1_000, seed=5)
    kept = LaneClicks.restore(state.clicks.layer.learning, state.clicks.parts()).layer.learners[number]
    assert kept.evidence.outcomes >= learned.evidence.outcomes
    assert kept.model.array[1] != 1.0

    without.models.play(Roles())
    run(without, state, size=1_000, seed=6)
    assert number not in state.clicks.layer.learners


def test_the_name_of_a_model_that_is_held_is_not_dropped_for_that_of_a_new_one(
    old: AttentionModel, new: AttentionModel
) -> None:
    engine, state = engine_of(old, new), lane()
    engine.models.play(Roles(shadow=new.version, shadow_share=1.0))
    base = engine.models.live
    state.clicks.models = {base.number: base.version} | {number: f"gone-{number}" for number in range(1, _MODELS_MAX)}
    _, outcomes, _ = run(engine, state)
    assert {one.model for one in outcomes} == {old.version}
    assert list(state.clicks.models) == [*range(2, _MODELS_MAX), base.number, number_of(engine)]
    engine.models.play(Roles())  # whoever was held last is remembered longest: their windows are open
    run(engine, state, seed=5)
    assert {base.version, new.version} < set(state.clicks.models.values())


@pytest.mark.parametrize(
    ("graphs", "reason"),
    [
        (fails_on_what_is_new, "it gives scores that are no finite numbers"),
        (partial(fails_on_what_is_new, output="attention"), "it gives weights of the past that are no finite numbers"),
        (partial(gives_fewer, output="logit"), r"it gives scores of shape \(4, \d+\); expected \(\d+, \d+\)"),
        (partial(gives_fewer, output="attention"), r"weights of the past of shape \(4, \d+, 50\); expected"),
    ],
    ids=["scores", "attention", "fewer scores", "less attention"],
)
@pytest.mark.parametrize(
    "roles",
    [
        {"canary_share": 1.0, "canary": True},
        {"live": True},
        {"shadow_share": 1.0, "shadow": True},
    ],
)
def test_a_model_that_fails_while_it_scores_is_refused_and_the_one_before_answers(
    tmp_path: Path, old: AttentionModel, roles: dict[str, object], graphs: Callable[[Graphs], None], reason: str
) -> None:
    bad = load(toy_model(tmp_path / "bad", graphs=graphs))
    named = {name: bad.version if value is True else value for name, value in roles.items()}
    engine = engine_of(old, bad)
    decisions, _, _ = run(engine, lane(), roles=[Roles(former=(old.version,), **named)])  # type: ignore[arg-type]  # by name
    alone, _, _ = run(engine_of(old), lane())
    assert re.search(reason, engine.models.refused[bad.version])
    assert engine.models.live.version == old.version
    assert {one.versions["model"] for one in decisions} == {old.version}
    assert len(decisions) == len(alone)
    for decision in decisions[-5:]:
        assert recompute(decision, engine_of(old)).identical


def test_a_model_that_cannot_encode_an_ad_that_comes_is_refused(old: AttentionModel, new: AttentionModel) -> None:
    engine, state = engine_of(old, new), lane()
    engine.models.play(Roles(live=new.version, former=(old.version,)))

    def encode(*_: object) -> np.ndarray:
        raise RuntimeError("index out of range")

    engine.catalogue.attach(learned_column(new.version), encode, new.dim)
    engine.catalogue.upsert([entry("ad-new")])
    decisions, _, _ = run(engine, state)
    assert "does not encode an ad: index out of range" in engine.models.refused[new.version]
    assert {one.versions["model"] for one in decisions} == {old.version}


def test_an_ad_that_changes_while_a_catalogue_is_encoded_keeps_its_newest_vectors(
    old: AttentionModel, new: AttentionModel
) -> None:
    shop = engine_of(old).catalogue
    column = learned_column(new.version)
    shop.attach(column, new.encode, new.dim)
    tokens, dense, revisions = shop.told(0, len(shop))
    shop.upsert([entry("ad-3", category="other/thing"), entry("ad-more", category="c1/s1")])
    shop.encoded(column, 0, new.encode(tokens, dense), revisions)
    np.testing.assert_array_equal(getattr(shop, column), new.encode(shop.tokens, shop.dense))


def duel(*models: str) -> Experiment:
    arms = tuple(Arm(f"arm-{at}", 1 / len(models), model=model) for at, model in enumerate(models))
    return Experiment("duel", "ranking", 0, 1, 1, arms)


def test_the_users_of_an_arm_are_scored_by_the_model_that_it_names_and_by_no_other(
    old: AttentionModel, new: AttentionModel
) -> None:
    engine = engine_of(old, new)
    engine.experiments.set(1, duel("", new.version))
    canary = {"canary": new.version, "canary_share": 1.0, "arms": (new.version,)}
    decisions, outcomes, _ = run(engine, lane(), roles=[*[Roles(arms=(new.version,))] * 5, Roles(**canary)])
    by = {arm: {one.versions["model"] for one in decisions if one.arm == arm} for arm in {one.arm for one in decisions}}
    assert by["duel/arm-0"] == {old.version, new.version}  # whichever has the role
    assert by["duel/arm-1"] == {new.version}
    assert by.keys() == {"duel/arm-0", "duel/arm-1", CONTROL_ARM}
    for decision in decisions:
        model = {one.version: one for one in (old, new)}[decision.versions["model"]]
        assert recompute(decision, engine_of(model)).identical
    assert {one.model for one in outcomes} == {old.version, new.version}


def test_what_comes_of_an_arms_placements_is_learnt_by_the_arms_model(old: AttentionModel, new: AttentionModel) -> None:
    engine, state = engine_of(old, new), lane()
    engine.experiments.set(1, duel("", new.version))
    arms = Roles(arms=(new.version,), shadow=new.version, shadow_share=1.0)
    _, outcomes, _ = run(engine, state, roles=[arms])
    learners = {one.version: state.clicks.layer.learner(one.number) for one in engine.models.held}
    assert engine.models.shadow is None  # whom an arm heeds, nobody asks beside it
    for version, learner in learners.items():
        assert 0 < learner.evidence.outcomes == sum(one.model == version for one in judged(outcomes, state))
        assert learner.model.array[1] != 1.0
    users = users_of(500)
    parts = {served.version: places for served, places in engine.scorers(users)}
    assert sorted(np.concatenate([*parts.values()]).tolist()) == list(range(500))
    assert len(parts[new.version]) == pytest.approx(0.4 * 500, rel=0.2)  # half, but for the control arm


def test_nobody_takes_part_until_the_models_of_all_arms_are_held_nor_once_one_is_refused(
    old: AttentionModel, new: AttentionModel
) -> None:
    engine, state = engine_of(old), lane()
    engine.experiments.set(1, duel(old.version, new.version))
    outside = {ENGINE_ARM, CONTROL_ARM}
    assert {one.arm for one in run(engine, state)[0]} <= outside
    hold(engine, new)
    engine.models.play(Roles(arms=(old.version, new.version)))
    assert {one.arm for one in run(engine, state, seed=5)[0]} == {"duel/arm-0", "duel/arm-1", CONTROL_ARM}
    engine.models.refuse(new.version, "it is bad")
    assert {one.arm for one in run(engine, state, seed=6)[0]} <= outside


def test_an_arm_whose_model_fails_while_it_scores_exposes_nobody(tmp_path: Path, old: AttentionModel) -> None:
    bad = load(toy_model(tmp_path / "bad", graphs=fails_on_what_is_new))
    engine = engine_of(old, bad)
    engine.experiments.set(1, duel("", bad.version))
    decisions, _, _ = run(engine, lane(), roles=[Roles(arms=(bad.version,))])
    assert "no finite numbers" in engine.models.refused[bad.version]
    assert {one.versions["model"] for one in decisions} == {old.version}
    assert "duel/arm-1" not in {one.arm for one in decisions}
    assert all("." not in one.placement_id for one in decisions if one.arm == ENGINE_ARM)
