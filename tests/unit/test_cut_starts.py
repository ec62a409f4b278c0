"""A client whose start is cancelled leaves no connection open, if its broker answers."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataResponse_v1

from streams.cli.tail import _records
from streams.intake import group_consumer
from streams.joining import meet_coordinator
from streams.lanes.adopt import _bounds
from streams.lanes.outbox import Outbox
from streams.leaving import at_work, sending, start_reading
from streams.logs import Log
from streams.reading import groupless
from streams.replay import fill
from streams.settings import Settings
from tests.unit.lanes import turns, within_deadline

METADATA = 3


class Broker:
    """Of Kafka it knows two requests; about its nodes it answers once `answers` is set."""

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        async with server:
            yield f"127.0.0.1:{self._port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while size := await reader.read(4):
            request = await reader.readexactly(int.from_bytes(size))
            answer = ApiVersionResponse_v0(0, [(METADATA, 1, 1), (18, 0, 0)])
            if int.from_bytes(request[:2]) == METADATA:
                self.asked.set()
                await self.answers.wait()
                answer = MetadataResponse_v1([(0, "127.0.0.1", self._port, None)], 0, [])
            said = request[4:8] + answer.encode()
            writer.write(len(said).to_bytes(4) + said)
        writer.close()


async def _reads(settings: Settings) -> None:
    async with at_work(groupless(settings.bootstrap)):
        pass


async def _sends(settings: Settings) -> None:
    async with sending(AIOKafkaProducer(bootstrap_servers=settings.bootstrap)):
        pass


async def _delivers(settings: Settings) -> None:
    outbox = Outbox(settings, None)
    try:
        await outbox.start()
    finally:
        await outbox.stop()


async def _tails(settings: Settings) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("streams.client.require_topic", AsyncMock())
        patched.setattr("streams.cli.tail._followed", lambda *_: nullcontext())
        async with aclosing(_records(settings.bootstrap, "clicks", False, "", lambda _: None)) as records:
            await anext(records)


async def _replays(settings: Settings) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("streams.topic_admin.partition_counts", lambda *_: {"clicks": 1})
        await fill(Log([], []), settings.bootstrap)


async def _adopts(settings: Settings) -> None:
    await _bounds(settings, 0, SimpleNamespace(watermarks_ms=(0, 0)))


@pytest.mark.parametrize(
    "begin",
    [
        lambda settings: start_reading(group_consumer(settings)),
        lambda settings: meet_coordinator(settings, lambda: True),
        _reads, _sends, _delivers, _tails, _replays, _adopts,
    ],
    ids=["member", "admin", "reader", "sender", "lane", "tail", "replay", "adopt"],
)  # fmt: skip
async def test_a_client_cancelled_while_it_asks_for_the_nodes_leaves_no_connection_open(
    begin: Callable[[Settings], Awaitable[None]],
) -> None:
    broker = Broker()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with broker.listening() as bootstrap:
            task = asyncio.ensure_future(begin(Settings(bootstrap=bootstrap)))
            await within_deadline(broker.asked.wait())
            task.cancel()
            await turns()
            broker.answers.set()
            with pytest.raises(asyncio.CancelledError):
                await within_deadline(task)
            del task
            gc.collect()
    assert [str(each.message) for each in told] == []
