"""What somebody sees who starts a broker and a worker for the first time: nothing that looks wrong and is not."""

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.brokers import Broker
from deploy.brokers.apache import ApacheKafka
from tests.integration.lanes import Shop
from tests.integration.workers import Worker, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_workers_first_start_on_a_new_broker_and_its_end_log_no_warning_and_no_error(
    kafka: Broker, tmp_path: Path
) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("starts Apache Kafka, and it could not be had")
    with ApacheKafka(tmp_path / "broker") as new:
        shop = Shop.open(new.bootstrap, "", tmp_path / "home", partitions=4)
        with Worker(shop, tmp_path / "worker.log") as worker:

            async def has_lanes() -> bool:
                return worker.said.count("lane taken over") == 4

            asyncio.run(until(has_lanes, "the worker has its lanes"))
            worker.signal(signal.SIGINT)
            assert worker.status() == 0
        # aiokafka 0.14 loses a connection that it was opening when it was stopped, and says so.
        of_note = [line for line in worker.said.splitlines() if "AIOKafkaConnection" not in line]
        assert [line for line in of_note if "[info " not in line] == []
