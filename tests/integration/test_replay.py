"""A log through real workers on a real broker: undisturbed, killed again and again, and with poison in it."""

import asyncio
import gzip
import json
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from typer.testing import CliRunner

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin, topics
from streams.audit import audit, compare, pure_core
from streams.cli import app
from streams.clock import wall_ms
from streams.identity import partitioner
from streams.lag.watch import LagWatch
from streams.logs import Log
from streams.reading import read_topic
from streams.replay import REQUEST_BYTES, ReplayError, fill, prepare
from streams.replay_check import Plan, check, run_worker
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS, click, impression
from tests.integration.lanes import Shop
from tests.integration.workers import SALIENCE_WORKER, STANDING, Worker, until
from tests.logs import busy_log
from tests.models import toy_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LANES = 3
KILLS = 5
SLICE = 20
WINDOW_MS = 20_000
"""Of the click layer: so short that most outcomes are known before the log ends."""


@pytest.fixture(autouse=True)
def small_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many slices, so that there is much between which things can go wrong; and a model that costs nothing."""
    monkeypatch.setenv("SALIENCE_SLICE_RECORDS", str(SLICE))
    monkeypatch.setenv("SALIENCE_SESSION_TIMEOUT_MS", "6000")  # the least that Kafka allows by default
    monkeypatch.setenv("SALIENCE_HEARTBEAT_MS", "500")
    monkeypatch.setenv("SALIENCE_CLICK_WINDOW_MS", str(WINDOW_MS))
    monkeypatch.setenv("SALIENCE_MODEL", str(toy_model(tmp_path / "model")))


def plan_on(broker: Broker, prefix: str, guarantee: str = "exactly_once") -> Plan:
    if guarantee == "exactly_once" and not broker.transactions:
        pytest.skip("exactly_once needs a broker with transactions, and Apache Kafka could not be had")
    return Plan(broker.bootstrap, prefix, LANES, guarantee)


def worker_of(plan: Plan, folder: Path, *command: str) -> Worker:
    """The plan's worker, as a process that can be killed; ``command``: another than ``salience worker``."""
    settings = Settings(
        bootstrap=plan.bootstrap, topic_prefix=plan.prefix, group=plan.group, home=folder, guarantee=plan.guarantee
    )
    return Worker(Shop(settings), folder / "worker.log", command=command or SALIENCE_WORKER)


async def filled(log: Log, plan: Plan) -> None:
    await asyncio.to_thread(prepare, log, plan.bootstrap, plan.prefix, plan.partitions, wall_ms())
    await fill(log, plan.bootstrap, plan.prefix)


def test_a_log_filled_before_the_start_leads_to_what_the_core_makes_of_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    log, plan = busy_log(1), plan_on(kafka, topic_prefix)

    async def scenario() -> Any:
        await filled(log, plan)
        seconds = await run_worker(log, plan, tmp_path, lambda _lag: None)
        return await check(log, plan, 0.0, seconds)

    report = asyncio.run(scenario())

    assert report.differences == []
    assert report.ok, report
    assert report.events == len(log.events) == report.applied + report.duplicates
    assert report.slices > len(log.events) / SLICE
    assert report.outcomes > 100


def test_the_worker_predicts_of_every_impression_what_the_core_does_which_evaluation_runs(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SALIENCE_MODEL")  # the packaged one: its predictions depend on everything
    log, plan = busy_log(3), plan_on(kafka, topic_prefix)

    async def scenario() -> Any:
        await filled(log, plan)
        seconds = await run_worker(log, plan, tmp_path, lambda _lag: None)
        seen = await audit(plan.bootstrap, plan.prefix)
        return await check(log, plan, 0.0, seconds), seen.layers

    report, layers = asyncio.run(scenario())

    assert report.differences == []
    assert report.predictions_equal
    assert report.outcomes == len(layers.told) > 100
    predicted = [chance for _, chance in layers.told.values()]
    assert len(set(predicted)) > 0.9 * len(predicted)
    assert all(clicks.layer.learned > 0 for clicks in layers.lanes.values())


def test_a_log_leads_to_the_same_state_at_least_once_on_the_embedded_broker(
    embedded: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    log, plan = busy_log(2), plan_on(embedded, topic_prefix, "at_least_once")

    async def scenario() -> Any:
        await filled(log, plan)
        seconds = await run_worker(log, plan, tmp_path, lambda _lag: None)
        return await check(log, plan, 0.0, seconds)

    report = asyncio.run(scenario())

    assert report.differences == []
    assert report.ok, report


def test_a_log_is_filled_by_requests_that_a_slow_link_carries_in_time(
    embedded: EmbeddedBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, plan = busy_log(1, events=15_000), plan_on(embedded, topic_prefix, "at_least_once")
    sent: list[int] = []
    send = AIOKafkaClient.send

    async def noted(self: AIOKafkaClient, node: int, request: Any, **how: Any) -> Any:
        if isinstance(request, ProduceRequest):
            parts = dict(request._topics).values()
            sent.append(sum(len(batch) for part in parts for _, batch in part))
        return await send(self, node, request, **how)

    monkeypatch.setattr(AIOKafkaClient, "send", noted)
    asyncio.run(filled(log, plan))
    assert sum(sent) > 2 * REQUEST_BYTES, "of which one request would be too large"
    assert max(sent) <= REQUEST_BYTES


async def killed_again_and_again(log: Log, plan: Plan, folder: Path, seed: int) -> None:
    """Run workers one after the other; each but the last is killed.

    Every other one in the midst of a drawn transaction, the others after a drawn number of records of their own,
    wherever that finds them.
    """
    rng = np.random.default_rng(seed)
    watch = LagWatch(plan.bootstrap, plan.prefix, plan.group)
    for number in range(KILLS):
        if number % 2 == 0:
            commits = int(rng.integers(1, len(log.events) // (2 * KILLS * SLICE)))
            with worker_of(plan, folder, *STANDING, str(commits)) as worker:
                await until(partial(stands, worker), f"worker {number} before its commit {commits}")
                worker.signal(signal.SIGKILL)
                await asyncio.to_thread(worker.status)
        else:
            mark = (await watch.look()).consumed + int(rng.integers(1, len(log.events) // (2 * KILLS)))
            with worker_of(plan, folder) as worker:
                await until(partial(consumed, watch, worker, mark), f"record {mark}, by worker {number}")
                worker.signal(signal.SIGKILL)
                await asyncio.to_thread(worker.status)
    with worker_of(plan, folder) as worker:
        await watch.until_zero(len(log.events), lambda: alive(worker))
        worker.signal(signal.SIGTERM)
        # Where its predecessors have left it nothing it may be stopped before it listens to signals.
        assert await asyncio.to_thread(worker.status) in (0, -signal.SIGTERM)


async def stands(worker: Worker) -> bool:
    alive(worker)
    return worker.stands


async def consumed(watch: LagWatch, worker: Worker, mark: int) -> bool:
    alive(worker)
    return (await watch.look()).consumed >= mark


async def aborted(plan: Plan) -> int:
    """Records on the changelog that no committed reader sees."""
    counts = []
    for committed in (False, True):
        batches = read_topic(plan.bootstrap, plan.prefix + topics.CHANGELOG, committed=committed)
        counts.append(sum([len(records) async for records in batches]))
    return counts[0] - counts[1]


def alive(worker: Worker) -> None:
    assert worker.process.poll() is None, worker.said


def test_a_worker_killed_five_times_loses_doubles_and_reorders_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    log, plan = busy_log(3), plan_on(kafka, topic_prefix)

    async def scenario() -> tuple[Any, int]:
        await filled(log, plan)
        await killed_again_and_again(log, plan, tmp_path, seed=3)
        return await check(log, plan, 0.0, 0.0), await aborted(plan)

    report, given_up = asyncio.run(scenario())

    assert report.differences == []
    assert report.ok, report
    assert report.replayed == 0
    assert report.users_without_placement == report.placements_doubled == report.placements_stale == 0
    assert given_up >= len(
        range(0, KILLS, 2)
    )  # each that stood in a transaction left its lane row, which came to nothing
    assert (tmp_path / "worker.log").read_text().count("lane taken over") >= KILLS + LANES


Poison = tuple[str, bytes, bytes, int]
"""Topic, key, value, timestamp."""


def poison(times_ms: Sequence[int]) -> list[Poison]:
    """Records that no event can be read from, one for each time, each wrong in another way."""
    first, middle, last = times_ms
    shown = impression("user-0", "ad-0", middle)
    return [
        (topics.CLICKS, b"user-0", b"{not json", first),
        (topics.AD_IMPRESSIONS, b"user-1", encode_json(shown), middle),  # another user's key
        (topics.CLICKS, b"user-2", encode_json(click("user-2", "ad-0", last, viewed_s=-1.0)), last),
    ]


async def produce(plan: Plan, record: Poison) -> tuple[str, int, int]:
    """Produce it, and where it went: topic, partition, offset."""
    name, key, value, time_ms = record
    lane = partitioner(plan.partitions)(key)
    async with AIOKafkaProducer(bootstrap_servers=plan.bootstrap) as producer:
        sent = await producer.send_and_wait(plan.prefix + name, value, key=key, partition=lane, timestamp_ms=time_ms)
    return sent.topic, sent.partition, sent.offset


def test_poison_first_midway_and_last_becomes_dead_letters_and_stops_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    log, plan = busy_log(4), plan_on(kafka, topic_prefix)
    half = len(log.events) // 2
    poisoned = poison([START_MS - 1, log.events[half].time_ms, log.events[-1].time_ms + 1])

    async def scenario() -> tuple[list[tuple[str, int, int]], Any, Any]:
        await filled(Log(log.ads, []), plan)
        places = [await produce(plan, poisoned[0])]
        await fill(Log([], log.events[:half]), plan.bootstrap, plan.prefix)
        places.append(await produce(plan, poisoned[1]))
        await fill(Log([], log.events[half:]), plan.bootstrap, plan.prefix)
        places.append(await produce(plan, poisoned[2]))
        await run_worker(log, plan, tmp_path, lambda _lag: None)
        lag = await LagWatch(plan.bootstrap, plan.prefix, plan.group).look()
        return places, lag, await audit(plan.bootstrap, plan.prefix)

    places, lag, seen = asyncio.run(scenario())

    expected = pure_core(log, plan.partitions)
    dead = {place_of(record): record for record in seen.dead}
    assert len(seen.dead) == len(poisoned)
    for place, (_, key, value, time_ms) in zip(places, poisoned, strict=True):
        assert (dead[place].key, dead[place].value) == (key, value)
        told = dict(dead[place].headers)
        assert told["salience.stage"] == b"decode"
        assert told["salience.timestamp_ms"] == str(time_ms).encode()
        assert told["salience.error"]
        assert told["salience.message"]
    assert compare(expected.state, seen.state, offsets=False) == []
    assert seen.totals["applied"] == expected.totals["applied"]
    assert seen.totals["dead"] == len(poisoned)
    assert seen.totals["events_in"] == len(log.events) + len(poisoned)
    assert (lag.behind, seen.stale(plan.partitions)) == (0, [])
    assert seen.placed.keys() == set(expected.state.users)


def place_of(record: Any) -> tuple[str, int, int]:
    """Where a dead letter says that it comes from."""
    told = dict(record.headers)
    return told["salience.topic"].decode(), int(told["salience.partition"]), int(told["salience.offset"])


def test_topics_that_would_delete_the_log_are_refused_before_anything_is_produced(
    kafka: Broker, topic_prefix: str
) -> None:
    topic_admin.create(kafka.bootstrap, LANES, topic_prefix)
    if topic_admin.retentions_ms(kafka.bootstrap, [topic_prefix + topics.CLICKS])[topic_prefix + topics.CLICKS] is None:
        pytest.skip("this broker does not tell how long a topic keeps its records")

    with pytest.raises(ReplayError, match=r"keeps records for 7\.0 days .* retention\.ms=-1"):
        prepare(busy_log(5), kafka.bootstrap, topic_prefix, LANES, wall_ms())


def test_topics_made_for_a_replay_keep_its_times_for_ever_and_are_taken_again(kafka: Broker, topic_prefix: str) -> None:
    log = busy_log(5)

    created = prepare(log, kafka.bootstrap, topic_prefix, LANES, wall_ms())

    assert created == topics.names(topic_prefix)
    assert prepare(log, kafka.bootstrap, topic_prefix, LANES, wall_ms()) == []
    with pytest.raises(ReplayError, match=f"expected {LANES + 1}; say --partitions {LANES}"):
        prepare(log, kafka.bootstrap, topic_prefix, LANES + 1, wall_ms())


VIDEOS = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag"
SHOWN = "time_ms,user_id,video_id,tab,is_click,play_time_ms"


def command(data: Path, bootstrap: str, *options: str) -> Any:
    """``salience replay kuairand --json`` on a made-up folder of 60 impressions, 20 of them clicked."""
    videos = [f"{number},{number % 3},NORMAL,2022-04-10,Web,9000.0,9.0,{number % 5}" for number in range(12)]
    shown = [f"{1_650_812_741_436 + 7 * n},{n % 9},{n % 12},1,{int(n % 3 == 0)},1500" for n in range(60)]
    for name, lines in (("videos", [VIDEOS, *videos]), ("impressions_0425_0430", [SHOWN, *shown])):
        (data / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    given = ["replay", "kuairand", "--data", str(data), "--bootstrap", bootstrap, "--partitions", "2", "--json"]
    return CliRunner().invoke(app, [*given, *options])


def test_the_command_replays_checks_and_tells_one_object(kafka: Broker, tmp_path: Path) -> None:
    guarantee = "exactly_once" if kafka.transactions else "at_least_once"

    result = command(tmp_path, kafka.bootstrap, "--guarantee", guarantee)

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["ok"]
    assert told["state_equal"]
    assert (told["events"], told["applied"], told["duplicates"], told["dead_letters"]) == (80, 80, 0, 0)
    assert (told["users"], told["users_without_placement"]) == (9, 0)
    assert told["placements"] >= 9
    assert told["events_per_s"] > 0


def test_the_command_fails_with_the_end_of_the_log_of_a_worker_that_dies(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIENCE_MODEL", str(tmp_path / "no-model"))

    result = command(tmp_path, kafka.bootstrap)

    assert result.exit_code == 1
    assert "The worker ended with status 1" in json.loads(result.stdout)["error"]
    assert "no-model" in json.loads(result.stdout)["error"]


def test_the_command_refuses_topics_that_it_has_not_filled_alone(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    filled_only = command(tmp_path, kafka.bootstrap, "--prefix", topic_prefix, "--no-worker", "--limit", "10")
    again = command(tmp_path, kafka.bootstrap, "--prefix", topic_prefix)

    assert (filled_only.exit_code, json.loads(filled_only.stdout)["events"]) == (0, 10)
    assert again.exit_code == 1
    assert "are there already" in json.loads(again.stdout)["error"]


@pytest.mark.parametrize("speed", ["3x", "0", "-1", "inf", "nan", "60"])
def test_the_command_refuses_a_speed_that_is_none_or_has_a_worker_beside_it(tmp_path: Path, speed: str) -> None:
    assert command(tmp_path, "127.0.0.1:1", "--speed", speed).exit_code == 2
