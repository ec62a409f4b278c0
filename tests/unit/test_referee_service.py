"""The referee's process when brokers fail, on clients that follow a script."""

import asyncio
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError
from typer.testing import CliRunner

from scoring.rows import RowStore
from streams.cli import app
from streams.control import Control
from streams.control_wire import Allocation, ArmSetting, CohortSetting, ControlMessage, ExperimentSetting, Guardrail
from streams.experiments.referee import Referee
from streams.experiments.registry import Bandit, create, start
from streams.experiments.report import ExperimentReport
from streams.experiments.service import RefereeService
from streams.experiments.store import load
from streams.reading import MissingTopicError
from streams.settings import Settings
from streams.topic_admin import Found
from streams.topics import AD_IMPRESSIONS, CHANGELOG, CONTROL, OUTCOMES
from streams.wire import LANE_KEY

ARMS = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="warmer", share=0.5, changes={"temperature": 0.3}))
GUARDRAILS = (Guardrail(metric="ctr", most_loss=0.1),)
DRAFT = create({}, "warmth", ARMS, layer="r", width=1.0, primary="ctr", guardrails=GUARDRAILS, time_ms=1)
RUNNING = start(DRAFT, 1.0, 2)
HERE, IMPRESSIONS, ROWS = (TopicPartition(name, 0) for name in (CONTROL, AD_IMPRESSIONS, CHANGELOG))
POLLS_MAX = 100
STORE = RowStore()
STORE.add([b"u"])
ROW = STORE.rows[:1].tobytes()


class EndError(Exception):
    """Ends a service that would run for ever."""


def cohort(upto: float, *shares: float, revision: int = 0) -> Allocation:
    cohorts = (CohortSetting(upto=upto, shares=shares),)
    return Allocation(experiment="warmth", number=1, cohorts=cohorts, time_ms=3, revision=revision)


class Broker:
    """The control topic, of which a reader's first poll after a write gives nothing yet.

    Where the shop is ``busy``, another impression comes at every poll; the first `POLLS_MAX` are answered. A poll gives
    one of the users' ``rows``.
    """

    def __init__(self, messages: Sequence[ControlMessage]) -> None:
        self.written = list(messages)
        self.tombstones: set[int] = set()
        """Offsets of records that take back what is written there."""
        self.busy = False
        self.rows = 0
        self.impressions = 0
        self._given = 0

    def impression(self) -> list[Any]:
        """One that names nobody."""
        self.impressions += 1
        if self.impressions > POLLS_MAX:
            raise AssertionError("impressions are read for ever")
        return [SimpleNamespace(key=b"u", value=b"{}", offset=self.impressions - 1)]

    def write(self, messages: Sequence[ControlMessage]) -> list[int]:
        """Their offsets."""
        self.written += messages
        return [*range(len(self.written) - len(messages), len(self.written))]

    def poll(self, after: int) -> list[Any]:
        """Records from the offset ``after`` on, of what was there at the poll before."""
        given, self._given = self._given, len(self.written)
        return self.records()[after:given]

    def records(self) -> list[Any]:
        """All of them."""
        return [
            SimpleNamespace(key=one.key, value=value, offset=at, headers=())
            for at, one in enumerate(self.written)
            for value in (None if at in self.tombstones else msgspec.json.encode(one),)
        ]


class Client:
    """A consumer of the broker's topic, and of others that hold nothing; and a producer."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at = self._row = 0

    async def start(self) -> None: ...

    stop = start

    def last_poll_timestamp(self, _tp: object) -> None: ...

    def assign(self, _partitions: object) -> None: ...

    def seek(self, _tp: object, _offset: int) -> None: ...

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def position(self, tp: TopicPartition) -> int:
        return {HERE: self._at, ROWS: self._row}.get(tp, self._broker.impressions)

    def last_stable_offset(self, tp: TopicPartition) -> int:
        return {HERE: len(self._broker.written), ROWS: self._broker.rows}.get(tp, self._broker.impressions)

    highwater = last_stable_offset

    async def getmany(self, *partitions: TopicPartition, **_: object) -> dict[TopicPartition, list[Any]]:
        if self._broker.busy and IMPRESSIONS in partitions:
            return {IMPRESSIONS: self._broker.impression()}
        if ROWS in partitions and self._row < self._broker.rows:
            self._row += 1
            whole = ((b"u", self._row * 2 - 2), (LANE_KEY, self._row * 2 - 1))
            return {ROWS: [SimpleNamespace(key=key, value=ROW, offset=at) for key, at in whole]}
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
        self.looks = 2
        self.missing = ""
        self.published: list[ControlMessage] = []
        self.reported: list[str] = []
        self.said: list[str] = []
        at = "streams.experiments.service"
        monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Client(self.broker))
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
        return {HERE: len(self.broker.written), ROWS: self.broker.rows}

    async def _publish(self, _settings: Settings, messages: Sequence[ControlMessage]) -> list[int]:
        if self._errors:
            raise self._errors.pop(0)
        self.published += messages
        self.broker.write(self.others)
        self.others.clear()
        return self.broker.write(messages)

    def _report(self, reports: Sequence[ExperimentReport]) -> None:
        self.reported += [one.status for one in reports]
        if len(self.reported) == self.looks:
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


def test_an_experiment_that_is_taken_back_is_judged_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = Shop([], monkeypatch, tmp_path, [RUNNING, RUNNING])
    shop.broker.tombstones.add(1)

    asyncio.run(shop.service.run(follow=False))

    assert shop.published == []


def test_what_no_outage_explains_ends_the_referee_and_so_does_an_outage_at_its_only_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([TopicAuthorizationFailedError(CONTROL), NodeNotReadyError()], monkeypatch, tmp_path)

    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(shop.service.run())
    with pytest.raises(NodeNotReadyError):
        asyncio.run(shop.service.run(follow=False))


@pytest.mark.parametrize("revision", [0, 1])
def test_of_two_referees_the_first_lets_a_cohort_in_and_its_word_is_made_the_newest_again(
    revision: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, other = (cohort(0.4, *shares, revision=revision) for shares in ((0.8, 0.2), (0.2, 0.8)))
    shop = Shop([], monkeypatch, tmp_path, [RUNNING, first, other])

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    again = shop.published[0]
    assert again == msgspec.structs.replace(first, revision=revision + 1)
    assert again.stands_after(other)  # all that compaction leaves


def test_a_referee_lets_nobody_in_before_it_has_read_its_last_word_and_what_others_wrote_before_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bandit = Bandit(minimum=0.1, epoch_s=1)
    draft = create({}, "warmth", ARMS, layer="r", width=1.0, primary="ctr", guardrails=(), time_ms=1, bandit=bandit)
    shop = Shop([], monkeypatch, tmp_path, [start(draft, 0.2, 2)])
    monkeypatch.setattr("streams.experiments.service.breached", lambda *_: None)
    monkeypatch.setattr("streams.experiments.service.wall_ms", itertools.count(10_000, 1_000 * bandit.epoch_s).__next__)
    shop.others.append(others := cohort(0.4, 0.8, 0.2, revision=1))
    shop.looks = 3

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    ours, again, further = shop.published
    assert isinstance(ours, Allocation)
    assert isinstance(further, Allocation)
    assert not ours.stands_after(others)
    assert again == msgspec.structs.replace(others, revision=2)
    assert further.cohorts[:-1] == others.cohorts
    assert further.stands_after(again)


def test_of_two_changes_of_an_experiment_the_one_that_stands_is_made_the_newest_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, other = start(DRAFT, 0.2, 2), start(DRAFT, 1.0, 2)
    shop = Shop([], monkeypatch, tmp_path, [DRAFT, first, other])

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    again, stopped = shop.published
    assert again == msgspec.structs.replace(first, revision=first.revision + 1)
    assert again.stands_after(other)  # all that compaction leaves
    assert isinstance(stopped, ExperimentSetting)
    assert (stopped.status, stopped.ramp) == ("stopped", first.ramp)


TASTE = msgspec.structs.replace(RUNNING, experiment="taste", number=2)
BANDIT = msgspec.structs.replace(TASTE, allocation="bandit", epoch_s=1, minimum=0.1, ramp=0.2)
BACKWARDS = msgspec.structs.replace(cohort(0.1, 0.5, 0.5), experiment="taste", number=2)
THREE = tuple(ArmSetting(arm=name, share=1 / 3) for name in ("as-is", "warmer", "third"))


@pytest.mark.parametrize(
    "refused",
    [
        [msgspec.structs.replace(TASTE, high=0.0)],
        [msgspec.structs.replace(TASTE, number=RUNNING.number)],
        [msgspec.structs.replace(RUNNING, high=0.0, revision=9)],
        [msgspec.structs.replace(RUNNING, arms=THREE, revision=9)],
        [msgspec.structs.replace(RUNNING, interleaved=True, revision=9)],
        [BANDIT, BACKWARDS],
        [BACKWARDS, BANDIT],
    ],
)
def test_what_cannot_be_is_refused_and_ends_no_referee(
    refused: Sequence[ControlMessage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path, [RUNNING, *refused])

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert shop.said[0] == "experiment's message refused"


def test_no_cohort_is_let_in_after_cohorts_that_cannot_be_for_it_would_not_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path, [BANDIT, BACKWARDS])
    monkeypatch.setattr("streams.experiments.service.breached", lambda *_: None)

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert shop.published == []


def test_a_shop_that_is_never_quiet_is_judged_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.broker.busy = True

    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert shop.reported == ["stopped", "stopped"]


def test_a_single_look_at_a_shop_that_is_never_quiet_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.broker.busy = True

    asyncio.run(shop.service.run(follow=False))

    assert shop.reported == ["stopped"]


def test_a_single_look_is_taken_when_all_rows_are_read_that_were_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path, messages=[])
    shop.broker.rows = 3

    asyncio.run(shop.service.run(follow=False))

    assert shop.service.offsets[CHANGELOG, 0] == 2 * 3


def test_an_experiment_that_is_rolled_back_keeps_none_of_its_people_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.broker.rows = 1

    asyncio.run(shop.service.run(follow=False))

    load(shop.service.file, referee := Referee())
    over = referee.watched[RUNNING.number]
    assert (referee.people.number, over.setting.reason, shop.reported) == (1, "warmer costs too much", ["stopped"])
    assert len(over.exposed_arm) == len(over.trial.arm) == 0
    assert over.last is not None


def test_the_command_keeps_the_clients_from_telling_an_outage_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[bool] = []
    monkeypatch.setattr("streams.log_lines.configure_logging", lambda **_: configured.append(True))

    async def run(_self: RefereeService, *, follow: bool = True) -> None: ...

    monkeypatch.setattr(RefereeService, "run", run)

    assert CliRunner().invoke(app, ["experiment", "referee"]).exit_code == 0
    assert configured == [True]


def test_the_list_shows_an_experiment_that_cannot_be_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    control.take(Broker([RUNNING, msgspec.structs.replace(TASTE, high=0.0)]).records())
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _: control)

    listed = CliRunner().invoke(app, ["experiment", "list"], env={"COLUMNS": "200"})

    assert listed.exit_code == 0
    assert "warmer 50%" in listed.output
    assert "refused: experiment taste: range 0.0 to 0.0" in listed.output
