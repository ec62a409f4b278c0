"""Whole workers: started, joined, left, stopped, frozen; judged by what is on the topics."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from streams import topic_admin, topics
from streams.lag.watch import LagWatch
from streams.metrics.table import worker_rows
from streams.settings import Settings
from streams.wire import Impression, encode_json
from tests.integration.chaos.cluster import Cluster
from tests.integration.chaos.fleet import STOP_S
from tests.integration.lanes import ADS, LAST_MS, Shop, events, play, shop_on
from tests.integration.workers import STANDING, Worker, children, until

pytestmark = pytest.mark.integration

GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])


@GUARANTEES
def test_a_stopped_worker_ends_in_order_and_its_successor_goes_on(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "first.log") as worker:
            await until(lambda: shop.has_applied(80), "80 events applied")
            assert "/scipy/stats/" not in worker.maps  # put off: streams/sparing.py
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        await shop.publish(events(30, start=60))
        with Worker(shop, tmp_path / "second.log") as worker:
            await until(lambda: shop.has_applied(120), "120 events applied")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.totals["replayed"], row.totals["duplicate"]) == (120, 0, 0)

    play(scenario)


def test_lanes_move_between_workers_without_losing_or_doubling(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", partitions=4)
        await shop.publish([*ADS, *events(60)])
        with Worker(shop, tmp_path / "first.log", home=tmp_path / "a") as first:
            await until(lambda: shop.has_applied(80), "the first worker's 80 events")
            with Worker(shop, tmp_path / "second.log", home=tmp_path / "b") as second:
                await until(_says(second, "lane taken over"), "the second worker has lanes")
                await shop.publish(events(60, start=60))
                await until(lambda: shop.has_applied(160), "160 events by two workers")
                second.signal(signal.SIGTERM)
                assert second.status() == 0, second.said
            await shop.publish(events(60, start=120))
            await until(lambda: shop.has_applied(240), "240 events")
            first.signal(signal.SIGTERM)
            assert first.status() == 0, first.said
        assert set((await shop.placement_ids()).values()) == {1}
        assert await shop.applied() == 240

    play(scenario)


def _says(worker: Worker, line: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        assert worker.process.poll() is None, worker.said
        return line in worker.said

    return said


def test_a_worker_whose_name_another_process_takes_ends_and_says_so_and_others_may_come_and_go(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", partitions=2)
        await shop.publish([*ADS, *events()])

        def worker(log: str, name: str) -> Worker:
            return Worker(shop, tmp_path / f"{log}.log", home=tmp_path / log, instance_id=name)

        with worker("first", "w0") as first:
            await until(lambda: shop.has_applied(80), "the first worker's 80 events")
            with worker("second", "w0") as second:
                assert first.status() == 70
                assert "SALIENCE_INSTANCE_ID" in first.said.rstrip().splitlines()[-1]
                await shop.publish(events(30, start=60))
                await until(lambda: shop.has_applied(120), "the second worker's 40 events")
                with worker("other", "w1") as other:
                    await until(_says(other, "lane taken over"), "a lane of the other worker")
                    second.signal(signal.SIGTERM)
                    assert second.status() == 0, second.said
                    with worker("third", "w0") as third:
                        await shop.publish(events(30, start=90))
                        await until(lambda: shop.has_applied(160), "another 40 events")
                        assert (other.process.poll(), third.process.poll()) == (None, None)

    play(scenario)


def test_a_frozen_worker_that_wakes_after_its_lanes_went_to_another_changes_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "zombie.log", home=tmp_path / "a") as zombie:
            await until(lambda: shop.has_applied(80), "80 events")
            zombie.signal(signal.SIGSTOP)
            await shop.publish(events(30, start=60))
            with Worker(shop, tmp_path / "owner.log", home=tmp_path / "b"):
                await until(lambda: shop.has_applied(120), "120 events, by the new owner")
                zombie.signal(signal.SIGCONT)
                await shop.publish(events(30, start=90))
                await until(lambda: shop.has_applied(160), "160 events")
        assert set((await shop.placement_ids()).values()) == {1}
        assert await shop.applied() == 160
        row = await shop.lane_row()
        assert row is not None
        assert row.totals["events_in"] == row.totals["applied"] == 160

    play(scenario)


def test_bad_ads_are_one_dead_letter_each_whichever_worker_and_however_often_it_starts(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([*ADS, ("ads", b"bad-1", b"{", LAST_MS)])

        async def letters() -> list[bytes]:
            return [key for key, _ in await shop.read("dead-letters")]

        async def are(*keys: bytes) -> bool:
            return await letters() == [*keys]

        with Worker(shop, tmp_path / "first.log") as worker:
            await until(lambda: are(b"bad-1"), "a letter, without an event to bring it along")
            await shop.publish([("ads", b"bad-2", b"\xff", LAST_MS)])
            await until(lambda: are(b"bad-1", b"bad-2"), "a letter of an ad that came later")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        with Worker(shop, tmp_path / "second.log", home=tmp_path / "other") as worker:
            await shop.publish([*events(), ("ads", b"bad-3", b"[]", LAST_MS)])
            await until(lambda: are(b"bad-1", b"bad-2", b"bad-3"), "a letter of the third, and no more of the others")

    play(scenario)


def test_a_lane_held_back_by_tiny_bounds_loses_nothing(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events(300)])
        with Worker(
            shop, tmp_path / "log", queue_records=5, queue_bytes=65_536, slice_records=3, lanes_in_step=1
        ) as worker:
            await until(lambda: shop.has_applied(400), "400 events through a queue of five")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.next_offsets) == (400, (300, 100))

    play(scenario)


def test_a_worker_without_topics_says_which_command_makes_them(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = Shop(Settings(bootstrap=kafka.bootstrap, topic_prefix=topic_prefix, home=tmp_path))
    with Worker(shop, tmp_path / "log") as worker:
        assert worker.status() == 1
        assert f"salience topics create --bootstrap {kafka.bootstrap} --prefix {topic_prefix}" in worker.said
    assert topic_admin.partition_counts(kafka.bootstrap, topics.names(topic_prefix)) == {}


def test_a_worker_asked_for_transactions_that_the_broker_lacks_says_which_setting_helps(
    embedded: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = Shop.open(embedded.bootstrap, topic_prefix, tmp_path)
    with Worker(shop, tmp_path / "log", guarantee="exactly_once", session_timeout_ms=2_000) as worker:
        assert worker.status() == 1
        assert "SALIENCE_GUARANTEE=at_least_once" in worker.said


def test_a_worker_restarted_on_the_embedded_broker_goes_on_where_it_was(
    embedded: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(embedded, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS])
        await shop.publish_in_batches(events(300))  # the broker counts a batch as one record of its log's end
        with Worker(shop, tmp_path / "first.log") as worker:
            await until(lambda: shop.has_applied(400), "400 events", worker)
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        shutil.rmtree(tmp_path / "snapshots")
        await shop.publish_in_batches(events(30, start=300))
        with Worker(shop, tmp_path / "second.log") as worker:
            await until(lambda: shop.has_applied(440), "440 events", worker)
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.totals["replayed"]) == (440, 0)

    play(scenario)


@GUARANTEES
def test_a_worker_stopped_in_the_middle_of_a_backlog_finishes_its_slices_and_nothing_is_done_twice(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish(ADS)
        await shop.publish_in_batches(events(3_000))
        standing = (*STANDING, "20")  # of 2,000 slices: told to stop while it stands, it cannot come to the end
        with Worker(shop, tmp_path / "first.log", command=standing, slice_records=2) as worker:
            await until(_stands(worker), "it stands before a commit")
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGCONT)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert row.totals["applied"] < 4_000, "it was to be stopped before the end"
        with Worker(shop, tmp_path / "second.log") as worker:
            await until(lambda: shop.has_applied(4_000), "all events")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.totals["replayed"], row.totals["duplicate"]) == (4_000, 0, 0)
        assert await shop.applied() == 4_000

    play(scenario)


def test_a_worker_stopped_while_it_starts_ends_in_order(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        with Worker(shop, tmp_path / "log") as worker:
            await until(_says(worker, "url="), "it has begun")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
            assert "fatal" not in worker.said

    play(scenario)


def test_a_worker_whose_brokers_have_fallen_silent_is_stopped_in_order_and_its_successor_goes_on(
    kafka: Broker, tmp_path: Path
) -> None:
    if not kafka.transactions:
        pytest.skip("the embedded broker takes one listener; needs Java and Maven, for Apache Kafka")

    async def scenario(cluster: Cluster) -> None:
        shop = Shop.open(cluster.bootstrap, "", tmp_path)
        await shop.publish([*ADS, *events()])
        through_the_door = Shop(shop.settings.model_copy(update={"bootstrap": cluster.workers_bootstrap}))
        with Worker(through_the_door, tmp_path / "first.log", stop_deadline_ms=1_000) as worker:
            await until(lambda: shop.has_applied(80), "80 events applied")
            cluster.doors[0].shut()
            await shop.publish(events(30, start=60))
            worker.signal(signal.SIGTERM)
            assert worker.process.wait(STOP_S) == 0, worker.said
        cluster.doors[0].open()
        with Worker(shop, tmp_path / "second.log") as worker:
            await until(lambda: shop.has_applied(120), "120 events applied")
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.totals["replayed"], row.totals["duplicate"]) == (120, 0, 0)

    with Cluster(tmp_path / "cluster", 1) as cluster:
        play(lambda: scenario(cluster))


def test_a_worker_listens_on_loopback_alone_and_tells_whether_it_is_ready(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events(3)])
        with Worker(shop, tmp_path / "log") as worker:
            await until(lambda: shop.has_applied(4), "4 events")
            (address,) = listening(worker.process.pid)
            assert address.startswith("0100007F:")
            assert await asyncio.to_thread(worker.ask, "/healthz") == (200, {"healthy": True, "reason": ""})
            status, told = await asyncio.to_thread(worker.ask, "/readyz")
            assert (status, told) == (200, {"ready": True, "reason": "", "lanes": {"0": "running"}})

    play(scenario)


def test_a_supervised_worker_that_is_killed_is_started_again_and_loses_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "log", "--supervise") as supervised:
            await until(lambda: shop.has_applied(80), "80 events")
            (first,) = children(supervised.process.pid)
            os.kill(first, signal.SIGKILL)
            await shop.publish(events(30, start=60))
            await until(lambda: shop.has_applied(120), "120 events, by the one started again")
            assert "another is started" in supervised.said
            supervised.signal(signal.SIGTERM)
            assert supervised.status() == 0, supervised.said
        assert await shop.applied() == 120

    play(scenario)


def test_a_lane_whose_last_record_was_rerouted_to_it_comes_to_a_lag_of_zero(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", partitions=2)
        await shop.publish(ADS)
        strays = [shown for shown in events() if isinstance(shown, Impression)]
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for shown in strays:  # half of the users belong to the other lane
                key, value = shown.user_id.encode(), encode_json(shown)
                topic, time_ms = f"{topic_prefix}ad-impressions", shown.time_ms
                await producer.send_and_wait(topic, value, key=key, partition=0, timestamp_ms=time_ms)
        with Worker(shop, tmp_path / "log"):
            await LagWatch(kafka.bootstrap, topic_prefix, shop.settings.group).until_zero(len(strays))
        assert await shop.applied() == len(strays)

    play(scenario)


def _stands(worker: Worker) -> Callable[[], Awaitable[bool]]:
    async def stands() -> bool:
        assert worker.process.poll() is None, worker.said
        return worker.stands

    return stands


def listening(pid: int) -> set[str]:
    """Local addresses of a process's listening TCP sockets, as the kernel tells them."""
    inodes = {link.name for link in Path(f"/proc/{pid}/fd").iterdir()}
    sockets = {str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in inodes}
    listen = "0A"
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == listen and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def test_a_live_workers_metrics_are_those_of_the_table_and_no_other(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "log") as worker:
            await until(lambda: shop.has_applied(80), "80 events applied")
            status, told = await asyncio.to_thread(worker.ask, "/metrics")
        assert status == 200
        families = [line.split()[2:4] for line in told.decode().splitlines() if line.startswith("# TYPE")]
        assert sorted(map(tuple, families)) == sorted((row.name, row.kind) for row in worker_rows())
        lines = [line for line in told.decode().splitlines() if not line.startswith("#")]
        values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
        assert values['salience_events_total{outcome="applied",topic="clicks"}'] == 20
        assert values['salience_lanes{stage="running"}'] == values["salience_ready"] == 1
        assert values["salience_unaccounted_records"] == 0
        assert values["salience_users"] == 6
        assert values["salience_ads"] == len(ADS)
        assert values["salience_last_commit_timestamp_seconds"] > 0
        assert not any("user-" in line for line in lines), "no person is named"

    play(scenario)
