"""The referee's process when brokers fail, on clients that follow a script."""

import asyncio
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError
from typer.testing import CliRunner

from streams.cli import app
from streams.control_wire import Allocation, ArmSetting, CohortSetting, ControlMessage, ExperimentSetting, Guardrail
from streams.experiment_report import ExperimentReport
from streams.experiments import Bandit, create, start
from streams.reading import MissingTopicError
from streams.referee_service import RefereeService
from streams.settings import Settings
from streams.topic_admin import Found
from streams.topics import CHANGELOG, CONTROL, OUTCOMES

ARMS = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="warmer", share=0.5, changes={"temperature": 0.3}))
GUARDRAILS = (Guardrail(metric="ctr", most_loss=0.1),)
DRAFT = create({}, "warmth", ARMS, layer="r", width=1.0, primary="ctr", guardrails=GUARDRAILS, time_ms=1)
RUNNING = start(DRAFT, 1.0, 2)
HERE = TopicPartition(CONTROL, 0)


class EndError(Exception):
    """Ends a service that would run for ever."""


def cohort(upto: float, *shares: float) -> Allocation:
    return Allocation(experiment="warmth", number=1, cohorts=(CohortSetting(upto=upto, shares=shares),), time_ms=3)


class Broker:
    """The control topic, of which a reader's first poll after a write gives nothing yet."""

    def __init__(self, messages: Sequence[ControlMessage]) -> None:
        self.written = list(messages)
        self._given = 0

    def write(self, messages: Sequence[ControlMessage]) -> list[int]:
        """Their offsets."""
        self.written += messages
        return [*range(len(self.written) - len(messages), len(self.written))]

    def poll(self, after: int) -> list[Any]:
        """Records from the offset ``after`` on, of what was there at the poll before."""
        given, self._given = self._given, len(self.written)
        return [
            SimpleNamespace(key=one.key, value=msgspec.json.encode(one), offset=at)
            for at, one in enumerate(self.written[:given])
            if at >= after
        ]


class Client:
    """A consumer of the broker's topic, and of others that hold nothing; and a producer."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def assign(self, _partitions: object) -> None: ...

    def seek(self, _tp: object, _offset: int) -> None: ...

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def position(self, tp: TopicPartition) -> int:
        return self._at if tp == HERE else 0

    async def getmany(self, *partitions: TopicPartition, **_: object) -> dict[TopicPartition, list[Any]]:
        records = self._broker.poll(self._at) if HERE in partitions else []
        self._at += len(records)
        return {HERE: records} if records else {}

    async def send(self, *_: object, **__: object) -> "asyncio.Future[None]":
        delivered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivered.set_result(None)
        return delivered


class Shop:
    """What a referee sees and says, where publishing fails with ``errors`` first; every experiment breaks a rule.

    ``others``: messages that others write just before the referee's first.
    """

    def __init__(
        self,
        errors: Sequence[KafkaError],
        monkeypatch: pytest.MonkeyPatch,
        home: Path,
        messages: Sequence[ControlMessage] = (RUNNING,),
    ) -> None:
        self._errors = list(errors)
        self.broker = Broker(messages)
        self.others: list[ControlMessage] = []
        self.missing = ""
        self.published: list[ControlMessage] = []
        self.reported: list[str] = []
        self.said: list[str] = []
        at = "streams.referee_service"
        monkeypatch.setattr(f"{at}.AIOKafkaConsumer", lambda **_: Client(self.broker))
        monkeypatch.setattr(f"{at}.AIOKafkaProducer", lambda **_: Client(self.broker))
        monkeypatch.setattr("streams.topic_admin.found", self._found)
        monkeypatch.setattr(f"{at}.log_ends", self._log_ends)
        monkeypatch.setattr(f"{at}.publish", self._publish)
        monkeypatch.setattr(f"{at}.breached", lambda *_: "warmer costs too much")
        say = SimpleNamespace(
            warning=lambda what, **_: self.said.append(what), info=lambda what, **_: self.said.append(what)
        )
        monkeypatch.setattr(f"{at}.log", say)
        self.service = RefereeService(Settings(home=home), 0, self._report)

    def _found(self, _: str, names: Collection[str]) -> dict[str, Found]:
        return {name: Found(f"id-of-{name}", 1) for name in names if name != self.missing}

    async def _log_ends(self, *_: object) -> dict[TopicPartition, int]:
        return {HERE: len(self.broker.written)}

    async def _publish(self, _settings: Settings, messages: Sequence[ControlMessage]) -> list[int]:
        if self._errors:
            raise self._errors.pop(0)
        self.published += messages
        self.broker.write(self.others)
        self.others.clear()
        return self.broker.write(messages)

    def _report(self, reports: Sequence[ExperimentReport]) -> None:
        self.reported += [one.status for one in reports]
        if len(self.reported) == 2:
            raise EndError


def test_a_guardrail_that_breaks_in_an_outage_stops_its_experiment_when_the_brokers_are_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([NodeNotReadyError(), NodeNotReadyError()], monkeypatch, tmp_path)

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert [one.status for one in shop.published if isinstance(one, ExperimentSetting)] == ["stopped"]
    assert shop.reported == ["stopped", "stopped"]
    assert shop.said == [
        "no experiment is judged: the brokers fail",
        "experiment rolled back",
        "experiments are judged again",
    ]


@pytest.mark.parametrize("topic", [CONTROL, OUTCOMES, CHANGELOG])
def test_a_topic_that_is_not_there_yet_is_not_left_out_for_good(
    topic: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.missing = topic
    with pytest.raises(MissingTopicError, match=f"no topic '{topic}'; make it with: salience topics create"):
        asyncio.run(shop.service.run())


def test_what_no_outage_explains_ends_the_referee_and_so_does_an_outage_at_its_only_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([TopicAuthorizationFailedError(CONTROL), NodeNotReadyError()], monkeypatch, tmp_path)

    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(shop.service.run())
    with pytest.raises(NodeNotReadyError):
        asyncio.run(shop.service.run(follow=False))


def test_of_two_referees_the_first_lets_a_cohort_in_and_its_word_is_made_the_newest_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, other = cohort(0.4, 0.8, 0.2), cohort(0.4, 0.2, 0.8)
    shop = Shop([], monkeypatch, tmp_path, [RUNNING, first, other])

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert shop.published[0] == first


def test_a_referee_lets_nobody_in_before_it_has_read_its_last_word_and_what_others_wrote_before_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bandit = Bandit(minimum=0.1, epoch_s=1)
    draft = create({}, "warmth", ARMS, layer="r", width=1.0, primary="ctr", guardrails=(), time_ms=1, bandit=bandit)
    shop = Shop([], monkeypatch, tmp_path, [start(draft, 0.2, 2)])
    monkeypatch.setattr("streams.referee_service.breached", lambda *_: None)
    monkeypatch.setattr("streams.referee_service.wall_ms", itertools.count(10_000, 1_000 * bandit.epoch_s).__next__)
    shop.others.append(others := cohort(0.4, 0.8, 0.2))

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    ours, again, further = shop.published
    assert isinstance(ours, Allocation)
    assert isinstance(further, Allocation)
    assert not ours.stands_after(others)
    assert again == others
    assert further.cohorts[:-1] == others.cohorts


def test_the_command_keeps_the_clients_from_telling_an_outage_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[bool] = []
    monkeypatch.setattr("streams.running.configure_logging", lambda **_: configured.append(True))

    async def run(_self: RefereeService, *, follow: bool = True) -> None: ...

    monkeypatch.setattr(RefereeService, "run", run)

    assert CliRunner().invoke(app, ["experiment", "referee"]).exit_code == 0
    assert configured == [True]
