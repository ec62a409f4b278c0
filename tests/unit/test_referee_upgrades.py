"""Experiments that run since before an upgrade, and in which workers of this version let nobody take part."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from aiokafka import TopicPartition

from streams.control_wire import ArmSetting, ControlMessage, ExperimentSetting, ModelRoles, PushedModel
from streams.experiments.referee import Referee
from streams.experiments.report import ExperimentReport
from streams.experiments.service import RefereeError, RefereeService
from streams.experiments.store import load
from streams.privacy.consent import ERASED_KEY
from streams.settings import Settings
from streams.topics import CHANGELOG
from tests.builders import Record
from tests.unit.test_control_checkup import FORMER, pushed
from tests.unit.test_referee_service import RUNNING, EndError, Shop

MODEL = msgspec.json.decode(pushed(FORMER), type=PushedModel)
"""Of a specification that workers refuse."""


def beside(*arms: ArmSetting) -> ExperimentSetting:
    """An experiment of another layer that runs beside `RUNNING`."""
    return msgspec.structs.replace(RUNNING, experiment="many", number=2, layer="other", arms=arms)


AS_IS = ArmSetting(arm="as-is", share=0.5)
MANY = beside(AS_IS, ArmSetting(arm="more", share=0.5, changes={"slots": 60.0}))
"""As was allowed while placements had up to 100 ads."""
BY_MODEL = beside(AS_IS, ArmSetting(arm="theirs", share=0.5, model=MODEL.model))


@pytest.mark.parametrize("messages", [[MANY], [MODEL, BY_MODEL]], ids=["slots", "model"])
def test_an_experiment_that_workers_refuse_is_neither_judged_nor_ended_and_the_others_are(
    messages: list[ControlMessage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop, named = Shop([], monkeypatch, tmp_path, [RUNNING, *messages]), list[str]()

    def report(reports: Sequence[ExperimentReport]) -> None:
        named.extend(one.experiment for one in reports)
        shop._report(reports)

    shop.service._on_reports = report
    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert named == ["warmth", "warmth"]
    assert [one.experiment for one in shop.published if isinstance(one, ExperimentSetting)] == ["warmth"]
    assert shop.said == ["experiment not judged: workers refuse it", "experiment rolled back"]
    load(shop.service.file, referee := Referee())
    assert referee.watched[2].setting.status == "running"  # a former version's referee may judge it again


def test_a_watermark_that_another_version_wrote_ends_the_referee_with_the_way_out(tmp_path: Path) -> None:
    service = RefereeService(Settings(home=tmp_path), 0, lambda _: None)
    later = Record(CHANGELOG, 0, 0, 10, ERASED_KEY + bytes(16), bytes(24))
    with pytest.raises(RefereeError, match=r"a watermark has 24 bytes; .* run the referee of the workers' version"):
        service._take_rows({TopicPartition(CHANGELOG, 0): [later]})


def test_a_model_that_is_refused_and_in_no_arm_keeps_no_experiment_from_being_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path, [RUNNING, MODEL, ModelRoles(live=MODEL.model)])
    with pytest.raises(EndError):
        asyncio.run(shop.service.run())
    assert shop.reported == ["stopped", "stopped"]
