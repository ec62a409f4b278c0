"""Who connects and says nothing, or comes a thousand times, keeps nobody else from our web servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from streams import listening
from streams.listening import listen, runner_of

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
DEADLINE_S = 30.0
"""For what is there at once; only a test that fails waits for it."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(idle_s: float) -> AsyncIterator[tuple[web.AppRunner, int]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = runner_of(app, idle_s=idle_s)
    await runner.setup()
    try:
        url = await listen(runner, "127.0.0.1", 0)
        async with asyncio.timeout(DEADLINE_S):
            yield runner, int(url.rpartition(":")[2])
    finally:
        await runner.cleanup()


async def asked(port: int, said: bytes = HEAD + b"\r\n") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> bytes:
    """A whole answer; nothing where the connection is closed instead."""
    try:
        return await reader.readuntil(b"here")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


@pytest.mark.parametrize("said", [b"", b"GET / HT", HEAD])
@pytest.mark.parametrize("before", [b"", HEAD + b"\r\n"])
def test_who_does_not_end_the_head_of_a_request_in_time_is_closed(before: bytes, said: bytes) -> None:
    async def scenario() -> None:
        async with serving(idle_s=0.05) as (runner, port):
            reader, writer = await asked(port, before + said)
            assert bool(await answer(reader)) == bool(before)
            assert not await answer(reader)
            assert not runner.server or not runner.server.connections
            writer.close()

    asyncio.run(scenario())


def test_of_connections_beyond_the_bound_each_is_closed_at_once_until_another_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 3)

    async def scenario() -> None:
        async with serving(idle_s=DEADLINE_S) as (_, port):
            held = [await asked(port) for _ in range(3)]
            assert all([await answer(reader) for reader, _ in held])
            for _ in range(5):
                reader, writer = await asked(port)
                assert not await answer(reader)
                writer.close()
            reader, writer = held.pop()
            writer.write(HEAD + b"Connection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"here")
            writer.close()
            held.append(await asked(port))
            assert await answer(held[-1][0])
            for _, writer in held:
                writer.close()

    asyncio.run(scenario())
