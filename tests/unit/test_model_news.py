"""What a lane tells of models: when, how often, and no more of it than a message has room for."""

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.attention import AttentionModel, load
from scoring.engine import Engine
from scoring.evidence import Evidence
from scoring.feedback import ClickLayer, Learning
from scoring.models import Models, Roles, number_of
from streams.control import Control
from streams.control_wire import ModelStatus
from streams.lanes.clicks import LaneClicks
from streams.models.news import OUTCOMES_MORE, REASON_MAX, WORKER_MAX, Differences, ModelNews
from streams.step import LaneState, Slice, Step
from streams.wire import ShadowScore
from tests.builders import START_MS, made_up_log, records
from tests.models import fails_on_what_is_new, toy_model
from tests.unit.consenting import told
from tests.unit.test_models import engine_of, hold, lane, run


@pytest.fixture
def new(tmp_path: Path) -> AttentionModel:
    return load(toy_model(tmp_path / "new", seed=1))


@pytest.fixture
def models(tmp_path: Path, new: AttentionModel) -> Models:
    models = engine_of(load(toy_model(tmp_path / "old")), new).models
    models.play(Roles(shadow=new.version, shadow_share=1.0))
    return models


class Lane:
    """One that tells of its models, and what its click layer knows of the shadow."""

    def __init__(self, models: Models) -> None:
        self.models, self.news, self.layer = models, ModelNews(), ClickLayer(Learning())
        assert models.shadow is not None
        self.evidence = self.layer.learner(models.shadow.number).evidence

    def tell(self, outcomes: int | None = None, worker: str = "w") -> list[ModelStatus]:
        if outcomes is not None:
            self.evidence.outcomes = outcomes
        return self.news.tell(3, self.models, self.layer, worker, START_MS)


def score(shadow: str, candidates: int, mean: float, largest: float) -> ShadowScore:
    return ShadowScore(
        decision="0" * 16,
        time_ms=START_MS,
        model="old-00000000",
        shadow=shadow,
        slots=(),
        candidates=candidates,
        mean_difference=mean,
        largest_difference=largest,
    )


def test_a_role_is_told_at_once_and_then_as_outcomes_come_in_ever_less_often(models: Models) -> None:
    lane = Lane(models)
    assert lane.news.waits(models)
    assert len(lane.tell()) == 1
    assert not lane.news.waits(models)
    assert lane.tell() == []
    heard = [count for count in range(2_000) if lane.tell(count)]
    assert heard[:3] == [OUTCOMES_MORE, 2 * OUTCOMES_MORE, 3 * OUTCOMES_MORE]
    apart = [after - before for before, after in pairwise(heard)]
    assert apart == [max(OUTCOMES_MORE, before // 20) for before in heard[:-1]]
    assert apart[-1] > 80


def test_a_change_of_any_model_is_told_of_all_that_have_a_role(models: Models, new: AttentionModel) -> None:
    lane = Lane(models)
    lane.tell(7)
    models.play(Roles(shadow=new.version, shadow_share=0.5))
    assert lane.news.waits(models)
    (status,) = lane.tell()
    assert (status.model, status.outcomes, status.refused) == (new.version, 7, "")
    models.refuse(new.version, "it is bad")
    (status,) = lane.tell()
    assert status.refused == "it is bad"
    assert lane.tell(7 + OUTCOMES_MORE - 1) == []


def test_a_status_is_what_the_lane_knows_of_the_model(models: Models, new: AttentionModel) -> None:
    lane = Lane(models)
    lane.evidence.join(Evidence(40, 2, 1.5, 9.0, 30, 7.0, 8.0, 0.5))
    lane.news.differ([score(new.version, 10, 0.5, 0.75), score(new.version, 30, 0.25, 0.5)])
    (status,) = lane.tell(worker="worker-0:17")
    assert status == ModelStatus(
        lane=3,
        model=new.version,
        worker="worker-0:17",
        outcomes=40,
        clicks=2,
        predicted=1.5,
        log_loss=9.0,
        beside=30,
        beside_log_loss=7.0,
        live_log_loss=8.0,
        gain_squares=0.5,
        candidates=40,
        difference=12.5,
        largest_difference=0.75,
        time_ms=START_MS,
    )


def test_what_was_told_of_a_model_that_has_lost_its_role_is_forgotten(models: Models, new: AttentionModel) -> None:
    lane = Lane(models)
    lane.news.differ([score(new.version, 10, 0.5, 0.75)])
    lane.tell(100)
    models.play(Roles())
    assert lane.tell() == []
    assert (lane.news.told, lane.news.differences) == ({}, {})


def test_a_refusal_in_more_words_than_a_message_holds_is_heard_all_the_same(
    models: Models, new: AttentionModel
) -> None:
    lane = Lane(models)
    models.refuse(new.version, "it does not run: " + "x" * 10_000)
    (status,) = lane.tell(worker="w" * 300)
    assert (len(status.refused), len(status.worker)) == (REASON_MAX, WORKER_MAX)
    assert status.refused.startswith("it does not run: x")
    control = Control()
    assert control.take([told(status, 0)]) == 0
    assert control.get(ModelStatus, status.name) == status
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.convert(msgspec.to_builtins(status) | {"refused": "x" * (REASON_MAX + 1)}, ModelStatus)
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.convert(msgspec.to_builtins(status) | {"worker": "x" * (WORKER_MAX + 1)}, ModelStatus)


def test_differences_are_those_of_all_candidates() -> None:
    apart = Differences()
    for one in (score("m", 4, 0.25, 0.5), score("m", 0, 0.0, 0.0), score("m", 2, 0.5, 0.75), score("m", 1, 0.1, 0.1)):
        apart.add(one)
    assert (apart.candidates, apart.total, apart.largest) == (7, pytest.approx(2.1), 0.75)


def compared(state: LaneState, shadow: AttentionModel) -> None:
    """Let a lane have held a shadow that it knows against what is live."""
    learner = state.clicks.layer.learners[number_of(shadow.version)]
    assert learner.evidence.outcomes > 0
    learner.known_ms = START_MS
    learner.evidence.join(Evidence(beside=5_000, beside_log_loss=1.0, live_log_loss=2.0, gain_squares=3.0))


def told_in(engine: Engine, state: LaneState, events: int = 0) -> dict[str, ModelStatus]:
    """What a lane tells of models in a slice of so many events."""
    given = records(made_up_log(seed=5, events=400).events)[:events]
    order = np.array([each.topic == "clicks" for each in given], dtype=np.uint8)
    newest_ms = max((each.timestamp for each in given), default=0)
    step = Step(engine, lambda _: 0, 0, 10**12)
    effects = step.run(state, Slice(given, order, (newest_ms, newest_ms)), 2**42)
    statuses = [msgspec.json.decode(message.value or b"", type=ModelStatus) for message in effects.control]
    return {one.model: one for one in statuses}


def test_a_lane_to_which_nobody_comes_does_not_tell_what_a_shadow_was_beside_a_model_that_is_live_no_more(
    tmp_path: Path, new: AttentionModel
) -> None:
    old, other = load(toy_model(tmp_path / "old")), load(toy_model(tmp_path / "other", seed=2))
    engine, state = engine_of(old, new, other), lane()
    run(engine, state, roles=[Roles(canary=other.version, canary_share=0.5, shadow=new.version, shadow_share=1.0)])
    compared(state, new)
    engine.models.play(Roles(live=other.version, former=(old.version,), shadow=new.version, shadow_share=1.0))
    status = told_in(engine, state)[new.version]
    assert status.outcomes > 0
    assert (status.beside, status.gain_squares) == (0, 0.0)


def test_a_lane_to_which_nobody_comes_tells_nothing_of_a_role_that_has_ended_and_was_given_again(
    tmp_path: Path, new: AttentionModel
) -> None:
    engine, state = engine_of(load(toy_model(tmp_path / "old")), new), lane()
    shadow = Roles(shadow=new.version, shadow_share=1.0)
    run(engine, state, roles=[shadow])
    compared(state, new)
    engine.models.play(Roles())
    assert told_in(engine, state) == {}
    hold(engine, new)
    engine.models.play(shadow)
    status = told_in(engine, state)[new.version]
    assert (status.outcomes, status.beside) == (0, 0)


def test_a_lane_in_which_the_live_model_fails_tells_at_once_nothing_of_a_shadow_beside_it(
    tmp_path: Path, new: AttentionModel
) -> None:
    old, bad = load(toy_model(tmp_path / "old")), load(toy_model(tmp_path / "bad", graphs=fails_on_what_is_new))
    engine, state = engine_of(old, new), lane()
    run(engine, state, roles=[Roles(shadow=new.version, shadow_share=1.0)])
    hold(engine, bad)
    engine.models.play(Roles(live=bad.version, former=(old.version,), shadow=new.version, shadow_share=1.0))
    state.clicks.layer.heed(number_of(bad.version))
    compared(state, new)
    statuses = told_in(engine, state, events=400)
    assert "no finite numbers" in statuses[bad.version].refused
    assert (statuses[new.version].beside, engine.models.live.version) == (0, old.version)


def test_what_a_shadow_was_beside_what_is_live_is_kept_from_slice_to_slice_and_when_its_lane_is_given_to_another(
    tmp_path: Path, new: AttentionModel
) -> None:
    engine, state = engine_of(load(toy_model(tmp_path / "old")), new), lane()
    run(engine, state, roles=[Roles(shadow=new.version, shadow_share=1.0)])
    compared(state, new)
    told_in(engine, state, events=400)
    state.clicks = LaneClicks.restore(state.clicks.layer.learning, state.clicks.parts())
    assert told_in(engine, state) == {}
    assert state.clicks.layer.learners[number_of(new.version)].evidence.beside == 5_000
