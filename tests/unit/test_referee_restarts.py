"""Where the referee's process goes on, what it makes of topics that are others now, and of an answer that was lost."""

import asyncio
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, NodeNotReadyError, OffsetOutOfRangeError

from streams.control_wire import Allocation, ControlMessage
from streams.experiments.referee import Referee
from streams.experiments.registry import Bandit, start
from streams.experiments.report import ExperimentReport
from streams.experiments.service import RefereeError
from streams.experiments.store import load, save
from streams.settings import Settings
from streams.topic_admin import Found
from streams.topics import AD_IMPRESSIONS, ADS, CHANGELOG, CONTROL, EXPERIMENT_REPORTS, OUTCOMES
from streams.wire import RESERVED
from tests.unit.test_experiments import draft
from tests.unit.test_referee_privacy import Books
from tests.unit.test_referee_service import Broker, Client, EndError, Shop

TOPICS = (CONTROL, ADS, AD_IMPRESSIONS, OUTCOMES, CHANGELOG)
BANDIT = start(draft(guardrails=(), bandit=Bandit(0.1, 1), width=1.0), 0.2, 2)


class Heard(Client):
    """Remembers where it was let go on, and what was sent."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.begun: dict[str, int] = {}
        self.sent: list[tuple[object, object]] = []

    def seek(self, tp: Any, offset: int) -> None:
        self.begun[tp.topic] = offset

    async def send(self, *told: object, **named: object) -> "asyncio.Future[None]":
        self.sent.append((told[0], named["key"]))
        return await super().send()


def test_a_referee_goes_on_where_it_was_and_reads_control_and_ads_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    client = Heard(shop.broker)
    for name in ("reading.AIOKafkaConsumer", "experiments.service.AIOKafkaProducer"):
        monkeypatch.setattr(f"streams.{name}", lambda **_: client)
    save(shop.service.file, Referee(), {(topic, 0): at for at, topic in enumerate(TOPICS, start=5)}, {})

    asyncio.run(shop.service.run(follow=False))

    assert client.begun == {CONTROL: 0, ADS: 0, AD_IMPRESSIONS: 7, OUTCOMES: 8, CHANGELOG: 9}
    assert client.sent == [(EXPERIMENT_REPORTS, b"warmth")]
    _, ids = load(shop.service.file, Referee())
    assert ids == {topic: f"id-of-{topic}" for topic in TOPICS}


def test_the_report_of_a_stopped_experiment_is_published_once_by_each_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for process in (1, 2):
        shop = Shop([], monkeypatch, tmp_path)
        client, shop.looks = Heard(shop.broker), 3
        monkeypatch.setattr("streams.experiments.service.AIOKafkaProducer", lambda *, client=client, **_: client)
        with pytest.raises(EndError):
            asyncio.run(shop.service.run())
        assert shop.reported == ["stopped"] * 3, process
        assert client.sent == [(EXPERIMENT_REPORTS, b"warmth")], process


@pytest.mark.parametrize("topic", [CONTROL, AD_IMPRESSIONS, OUTCOMES, CHANGELOG])
def test_a_topic_that_was_made_anew_ends_the_referee_but_where_it_is_read_whole_at_every_start(
    topic: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    save(shop.service.file, Referee(), {}, {ADS: "former"})
    asyncio.run(shop.service.run(follow=False))

    save(shop.service.file, Referee(), {}, {topic: "former"})
    with pytest.raises(RefereeError, match=rf"{topic}: deleted or made anew.*; delete .* to judge anew"):
        asyncio.run(shop.service.run(follow=False))


def test_ads_that_are_made_anew_while_they_are_read_need_no_more_than_another_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)
    shop = Shop([], monkeypatch, tmp_path)
    shop.looks, found, names = sys.maxsize, shop._found, itertools.count()

    def anew(bootstrap: str, topics: Sequence[str]) -> dict[str, Any]:
        there = found(bootstrap, topics)
        return there | {name: Found(str(next(names)), 1) for name in there if name == ADS}

    monkeypatch.setattr("streams.topic_admin.found", anew)
    with pytest.raises(RefereeError, match=rf"{ADS}: deleted or made anew.*; start the referee again: it goes on"):
        asyncio.run(shop.service.run())


def test_a_referee_whose_place_is_no_longer_in_a_topic_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Late(Client):
        async def getmany(self, *partitions: TopicPartition, **_: object) -> dict[TopicPartition, list[Any]]:
            raise OffsetOutOfRangeError(dict.fromkeys(partitions, 3))

    shop = Shop([], monkeypatch, tmp_path)
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Late(shop.broker))
    with pytest.raises(RefereeError, match=r"no longer hold what .* was to go on from; delete it to start anew"):
        asyncio.run(shop.service.run())


def test_rows_of_another_version_end_the_referee_and_records_that_are_of_no_user_do_not(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.change((RESERVED + b"lane", b"no row"), (b"", b"no row"))
    assert books.referee.people.number == 0
    with pytest.raises(RefereeError, match="run the referee of the workers' version"):
        books.change((b"u1", b"no row"))


def let_in(
    monkeypatch: pytest.MonkeyPatch, home: Path, errors: Sequence[KafkaError | TimeoutError] = ()
) -> tuple[Shop, list[list[ExperimentReport]]]:
    """A shop whose bandit lets in a cohort at every look, and what it reports; ``errors`` come after what is written.

    The first is that of the first word, and so on.
    """
    shop, left, told = Shop([], monkeypatch, home, [BANDIT]), list(errors), []
    publish = shop._publish

    async def lost(settings: Settings, messages: Sequence[ControlMessage]) -> list[int]:
        offsets = await publish(settings, messages)
        if left:
            raise left.pop(0)
        return offsets

    def report(reports: Sequence[ExperimentReport]) -> None:
        told.append([*reports])
        if len(told) == shop.looks:
            raise EndError

    monkeypatch.setattr("streams.experiments.service.breached", lambda *_: None)
    monkeypatch.setattr("streams.experiments.service.publish", lost)
    monkeypatch.setattr("streams.experiments.service.wall_ms", itertools.count(10_000, 1_000).__next__)
    shop.service._on_reports = report
    with pytest.raises(EndError):
        asyncio.run(shop.service.run())
    return shop, told


def test_a_cohort_that_is_let_in_is_in_the_very_report_of_that_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop, told = let_in(monkeypatch, tmp_path)
    assert isinstance(shop.published[0], Allocation)
    assert [one.cohorts for one in told[0]] == [2]


@pytest.mark.parametrize("error", [NodeNotReadyError(), KafkaTimeoutError(), TimeoutError()])
def test_no_cohort_is_let_in_twice_where_the_answer_to_the_first_was_lost(
    error: KafkaError | TimeoutError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop, _ = let_in(monkeypatch, tmp_path, [error])
    first, *further = shop.published
    assert isinstance(first, Allocation)
    assert further
    for one in further:
        assert isinstance(one, Allocation)
        assert one.cohorts[: len(first.cohorts)] == first.cohorts
        assert one.revision > first.revision
    revisions = [one.revision for one in shop.published if isinstance(one, Allocation)]
    assert len(set(revisions)) == len(revisions)
    assert msgspec.structs.astuple(shop.broker.written[1]) == msgspec.structs.astuple(first)
