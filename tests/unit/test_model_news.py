"""What a lane tells of models: when, how often, and no more of it than a message has room for."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from scoring.attention import AttentionModel, load
from scoring.feedback import ClickLayer, Learning
from scoring.learner import Evidence
from scoring.models import Models, Roles
from streams.control import Control
from streams.control_wire import ModelStatus
from streams.models.news import OUTCOMES_MORE, REASON_MAX, WORKER_MAX, Differences, ModelNews
from streams.wire import ShadowScore
from tests.builders import START_MS
from tests.models import toy_model
from tests.unit.consenting import told
from tests.unit.test_models import engine_of


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
