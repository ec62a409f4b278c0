"""The event loop's pulse, and topics that are others than they were."""

import asyncio
import re
from dataclasses import replace
from typing import Never
from unittest.mock import Mock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams import topic_admin
from streams.connection import ConnectionSettingsError
from streams.fatal import guarded
from streams.identity import TopicIdentity, check_topics
from streams.lanes.recovery import RecoveryError
from streams.settings import Settings
from streams.topic_admin import Found
from streams.vitals import LaneVitals, Vitals
from streams.watchdog import GONE_LOOKS, LOOK_S, LoopPulse, Watchdog, WatchdogError
from tests.builders import known_topics
from tests.unit.lanes import turns

KNOWN = known_topics(lanes=4)
IDENTITY = TopicIdentity(KNOWN)
STANDS = Vitals(joined=True, lanes={3: LaneVitals("running", (7,), busy=True)})
EVENTS = ("ad-impressions", "clicks")
OF_LANES = (*EVENTS, "state-changelog")
READ_WHOLE = ("control", "ads", "tones", "campaign-metrics", "click-layers")


def test_a_loop_that_beats_lives_and_one_that_does_not_is_found() -> None:
    pulse = LoopPulse(silence_ms=int(4_000 * LOOK_S))
    for _ in range(10):
        pulse.beat()
        assert not pulse.look()
    assert [pulse.look() for _ in range(4)] == [False, False, False, True]


def broker_knows(monkeypatch: pytest.MonkeyPatch, now: dict[str, Found]) -> None:
    """Let the broker tell of ``now``, by full name, those that it is asked for."""
    monkeypatch.setattr(topic_admin, "found", lambda _, names: {name: now[name] for name in names if name in now})


def test_topics_that_are_as_they_were_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    broker_knows(monkeypatch, KNOWN)
    assert check_topics(Settings(), IDENTITY)


@pytest.mark.parametrize(
    ("recreated", "help_"),
    [
        *((name, "restore the topics.*salience lanes adopt") for name in EVENTS),
        ("state-changelog", "the state is gone.*restore that from a mirror"),
        *((name, "start the workers again") for name in READ_WHOLE),
    ],
)
def test_a_topic_recreated_under_a_running_worker_is_refused(
    recreated: str, help_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = KNOWN | {recreated: replace(KNOWN[recreated], id="x")}
    broker_knows(monkeypatch, {f"shop-{name}": found for name, found in now.items()})
    with pytest.raises(RecoveryError, match=f"{recreated} is another topic of that name, under .*: {help_}"):
        check_topics(Settings(topic_prefix="shop-"), IDENTITY)


@pytest.mark.parametrize(
    ("name", "had", "help_"),
    [
        *((name, 4, "users have moved to other partitions") for name in OF_LANES),
        *((name, 1, "start the workers again") for name in ("control", "ads", "tones")),
    ],
)
def test_partitions_that_came_under_a_running_worker_are_not_overlooked(
    name: str, had: int, help_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker_knows(monkeypatch, KNOWN | {name: replace(KNOWN[name], partitions=had + 2)})
    with pytest.raises(RecoveryError, match=f"{name} has {had + 2} partitions and had {had}, under .*: {help_}"):
        check_topics(Settings(), IDENTITY)


@pytest.mark.parametrize("gone", OF_LANES)
def test_a_topic_that_is_gone_is_told_from_one_recreated(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker_knows(monkeypatch, {name: found for name, found in KNOWN.items() if name != gone})
    assert not check_topics(Settings(), IDENTITY)


@pytest.mark.parametrize("gone", READ_WHOLE)
def test_what_was_read_of_a_topic_holds_while_it_is_gone(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker_knows(monkeypatch, {name: found for name, found in KNOWN.items() if name != gone})
    assert check_topics(Settings(), IDENTITY)


def found_by(watchdog: Watchdog) -> BaseException | None:
    """What the watchdog ends the worker for, if it does."""
    asyncio.run(guarded("it", watchdog._watch(), watchdog._fail))
    fail = watchdog._fail
    assert isinstance(fail, Mock)
    return fail.call_args.args[0] if fail.called else None


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    """One that looks without pause at a worker that holds no lanes."""
    out = Watchdog(Settings(), IDENTITY, lambda _: Vitals(joined=True, polls=1), list, Mock())
    monkeypatch.setattr("streams.watchdog.LOOK_S", 0)
    return out


async def test_a_watchdog_that_is_cancelled_by_nobody_ends_the_worker(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled() -> Never:  # as a part of aiokafka's ends that it cancels itself
        raise asyncio.CancelledError

    monkeypatch.setattr(watchdog, "_pulse", Mock())
    monkeypatch.setattr(watchdog, "_watch", cancelled)
    await watchdog.on_start()
    await turns()
    fail = watchdog._fail
    assert isinstance(fail, Mock)
    assert str(fail.call_args.args[0]) == "the watchdog was cancelled by nobody"


@pytest.mark.parametrize("name", OF_LANES + READ_WHOLE)
def test_a_topic_made_anew_ends_the_worker(name: str, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    broker_knows(monkeypatch, KNOWN | {name: replace(KNOWN[name], id="x")})
    found = found_by(watchdog)
    assert isinstance(found, RecoveryError)
    assert f"{name} is another topic of that name" in str(found)


def test_a_topic_that_stays_gone_ends_the_worker(watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def without_clicks(_: object, names: list[str]) -> dict[str, Found]:
        looks.append(names)
        return {name: KNOWN[name] for name in names if name != "clicks"}

    monkeypatch.setattr(topic_admin, "found", without_clicks)
    found = found_by(watchdog)
    assert isinstance(found, RecoveryError)
    assert "a topic is gone" in str(found)
    assert len(looks) == GONE_LOOKS


def test_a_worker_that_does_not_get_on_is_ended(watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    broker_knows(monkeypatch, KNOWN)
    monkeypatch.setattr(watchdog._judge, "look", lambda *_: "the poll loop is silent")
    found = found_by(watchdog)
    assert isinstance(found, WatchdogError)
    assert str(found) == "the poll loop is silent"


@pytest.mark.parametrize(
    ("limits", "vitals", "said"),
    [
        ({"silence_ms": 4_000}, Vitals(joined=True), "the poll loop is silent for 4 s"),
        ({"rebalance_limit_ms": 10_000}, Vitals(), "no lanes from the group for 10 s"),
        ({"stall_ms": 1_000}, STANDS, r"lane 3 \(running\) has stood at \(7,\) for 1 s"),
    ],
    ids=["silence", "no lanes", "a lane that stands"],
)
def test_a_worker_is_given_as_long_as_the_settings_say(limits: dict[str, int], vitals: Vitals, said: str) -> None:
    of = Watchdog(Settings(**limits), IDENTITY, lambda _: vitals, list, Mock())
    looks = [of._judge.look(replace(vitals, polls=at * (vitals is STANDS)), 500) for at in range(30)]
    first = next(verdict for verdict in looks if verdict)
    assert re.match(said, first)


class Stale:
    """A client that no broker lets in any more; the one made after it is let in."""

    made = 0

    def __init__(self, **_: object) -> None:
        Stale.made += 1
        self._is_let_in = Stale.made > 1

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if not self._is_let_in:
            raise KafkaConnectionError("no connection to node with id 0")
        return dict.fromkeys(partitions, 7)


async def test_lanes_are_judged_again_where_brokers_let_in_only_clients_that_begin_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clicks = TopicPartition("clicks", 0)
    out = Watchdog(Settings(), IDENTITY, lambda _: Vitals(), lambda: [clicks], Mock())
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", Stale)
    monkeypatch.setattr(Stale, "made", 0)
    assert [await out._log_ends() for _ in range(3)] == [{}, {clicks: 7}, {clicks: 7}]
    assert Stale.made == 2


def test_a_worker_goes_on_while_its_certificates_are_renewed(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(*_: object) -> Never:
        raise ConnectionSettingsError("SALIENCE_SSL_CERT_FILE: key values mismatch")

    monkeypatch.setattr(topic_admin, "found", half)
    monkeypatch.setattr("streams.reading.aiokafka_options", half)
    asyncio.run(watchdog._check_identity())
    monkeypatch.setattr(watchdog, "_partitions", lambda: [TopicPartition("clicks", 0)])
    assert asyncio.run(watchdog._log_ends()) == {}


def test_a_worker_whom_brokers_let_in_no_more_goes_on_and_says_so_until_they_do(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Never:
        raise topic_admin.ShutOutError("b does not let this process in")

    def silent(*_: object) -> Never:
        raise topic_admin.TopicsError("no broker answers")

    told = []
    for answer in (refused, silent, refused, lambda *_: KNOWN):
        monkeypatch.setattr(topic_admin, "found", answer)
        asyncio.run(watchdog._check_identity())
        told.append(watchdog.doubt)
    assert told == ["b does not let this process in", "", "b does not let this process in", ""]
