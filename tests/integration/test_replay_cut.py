"""A log produced over a connection that is cut, and onto a broker that goes away."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiokafka.client import create_conn
from aiokafka.errors import KafkaTimeoutError

from deploy.brokers import Broker
from streams import topics
from streams.cli.replay import _replay
from streams.clock import wall_ms
from streams.columns import source_of
from streams.logs import Log
from streams.reading import read_topic
from streams.replay import fill, prepare
from streams.replay_check import Plan
from tests.integration.lanes import DEADLINE_S
from tests.logs import busy_log

pytestmark = pytest.mark.integration

LANES = 2
PRODUCE = 0
"""The API key of a request that appends records."""


class AnswerCutter:
    """Between clients and a broker: loses answers to produce requests, and ends their connections.

    The first and every other one, or ``all_of_them``, until ``cuts`` are lost. The broker has appended by then what it
    answers to.
    """

    def __init__(self, bootstrap: str, cuts: int, *, all_of_them: bool = False) -> None:
        host, port = bootstrap.split(":")
        self._host, self._port = host, int(port)
        self.left, self._all, self._answered = cuts, all_of_them, 0

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[int]:
        """The port on loopback where it listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, asker: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        broker, requests = await asyncio.open_connection(self._host, self._port)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:  # one request at a time: a broker answers those of a connection in their order
                    request = await framed(asker)
                    requests.write(request)
                    answer = await framed(broker)
                    if int.from_bytes(request[4:6], "big") == PRODUCE:
                        self._answered += 1
                        if self.left and (self._all or self._answered % 2):
                            self.left -= 1
                            return
                    answers.write(answer)
        finally:
            requests.close()
            answers.close()


async def framed(stream: asyncio.StreamReader) -> bytes:
    """The next message: four bytes of length, and what they announce."""
    length = await stream.readexactly(4)
    return length + await stream.readexactly(int.from_bytes(length, "big"))


def through(port: int) -> Callable[..., Any]:
    """As `create_conn`, to ``port`` wherever the broker says that it is."""

    async def connect(host: str, _: int, **options: Any) -> Any:
        return await create_conn(host, port, **options)

    return connect


async def held(bootstrap: str, prefix: str) -> dict[str, int]:
    """Records of each topic that a log fills."""
    names = (topics.ADS, topics.CLICKS, topics.AD_IMPRESSIONS)
    return {name: sum([len(records) async for records in read_topic(bootstrap, prefix + name)]) for name in names}


def expected(log: Log) -> dict[str, int]:
    """As `held` tells of ``log``, produced once."""
    of = [topics.LANE_INPUTS[source_of(event)] for event in log.events]
    return {topics.ADS: len(log.ads)} | {name: of.count(name) for name in (topics.CLICKS, topics.AD_IMPRESSIONS)}


def test_a_connection_that_is_cut_between_append_and_answer_doubles_no_record(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.transactions:
        pytest.skip("the broker knows no idempotent producers")
    log, cutter = busy_log(1, events=15_000), AnswerCutter(kafka.bootstrap, cuts=4)
    plan = Plan(kafka.bootstrap, topic_prefix, LANES, "exactly_once")

    async def scenario() -> None:
        async with asyncio.timeout(DEADLINE_S), cutter.at_work() as port:
            with monkeypatch.context() as patched:
                patched.setattr("aiokafka.client.create_conn", through(port))
                await asyncio.to_thread(_replay, log, plan, None, worker=False, as_json=True)

    asyncio.run(scenario())
    assert cutter.left == 0
    assert asyncio.run(held(kafka.bootstrap, topic_prefix)) == expected(log)


def test_a_log_that_brokers_append_and_never_answer_to_is_given_up(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.transactions:
        pytest.skip("the broker knows no idempotent producers")
    monkeypatch.setattr("streams.replay.DELIVERED_S", 1.0)
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)
    cutter = AnswerCutter(kafka.bootstrap, cuts=sys.maxsize, all_of_them=True)
    prepare(busy_log(1), kafka.bootstrap, topic_prefix, LANES, wall_ms())

    async def scenario() -> None:
        async with asyncio.timeout(DEADLINE_S), cutter.at_work() as port:
            monkeypatch.setattr("aiokafka.client.create_conn", through(port))
            await fill(busy_log(1), kafka.bootstrap, topic_prefix, idempotent=True)

    with pytest.raises(KafkaTimeoutError, match=f"no delivery to partition 0 of {topic_prefix}ads for 1 s"):
        asyncio.run(scenario())
