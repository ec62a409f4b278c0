"""Who connects and says nothing, reads nothing, or comes a thousand times, keeps nobody else from our web servers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from streams import listening

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LAST = b"Connection: close\r\n"
PAGE, STREAM, LARGE, FULL = (HEAD.replace(b"/", path, 1) + b"\r\n" for path in (b"/", b"/stream", b"/large", b"/full"))
LARGE_BYTES = 1 << 25
"""More than the kernel holds of what was written and is not read."""
DEADLINE_S = 30.0
"""For what is there at once; only a test that fails waits for it."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pages:
    """A page, a stream of what the test tells it, and two answers that are stuck where nobody reads them."""

    def __init__(self) -> None:
        self.streams: list[asyncio.Queue[bytes]] = []
        """What each of them tells next; nothing ends it."""
        self.stuck = asyncio.Semaphore(0)
        """Released in the turn of the loop in which an answer is."""
        self.over = asyncio.Semaphore(0)
        """Released when a connection is over that was answered anything but the page."""

    def app(self) -> web.Application:
        app = web.Application()
        for path, handler in {"/": self.page, "/stream": self.stream, "/large": self.large, "/full": self.full}.items():
            app.router.add_get(path, handler)
        app.on_shutdown.append(self.end)
        return app

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(text="here")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        news: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams.append(news)
        response = await self.begun(request)
        await response.write(b"here")
        while told := await news.get():
            await response.write(told)
        return response

    async def large(self, request: web.Request) -> web.Response:
        request.task.add_done_callback(lambda _: self.over.release())
        self.stuck.release()
        return web.Response(body=bytes(LARGE_BYTES) + b"here")

    async def full(self, request: web.Request) -> web.StreamResponse:
        """As much as the kernel takes, and little more."""
        response = await self.begun(request)
        while not request.transport.get_write_buffer_size():
            await response.write(bytes(1 << 12))
        self.stuck.release()
        await response.write(b"here")
        return response

    async def begun(self, request: web.Request) -> web.StreamResponse:
        request.task.add_done_callback(lambda _: self.over.release())
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    async def end(self, _: web.Application) -> None:
        for news in self.streams:
            news.put_nowait(b"")


@asynccontextmanager
async def serving(idle_s: float = DEADLINE_S) -> AsyncIterator[tuple[Pages, int]]:
    pages = Pages()
    async with listening.listening(pages.app(), "127.0.0.1", 0, idle_s) as url, asyncio.timeout(DEADLINE_S):
        yield pages, int(url.rpartition(":")[2])


async def asked(port: int, said: bytes = PAGE) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


def deaf(port: int, said: bytes) -> socket.socket:
    """Somebody who asks at once and reads nothing, not even ahead."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(said)
    return connection


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Up to the end of a page; nothing where the connection is closed instead."""
    try:
        return await reader.readuntil(b"here")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


async def probed(port: int) -> bool:
    """Whether one who comes, asks once and goes is answered."""
    reader, writer = await asked(port, HEAD + LAST + b"\r\n")
    got = await answer(reader)
    await left((reader, writer))
    return bool(got)


async def stays(connection: Streams, rest: bytes = PAGE) -> bool:
    """Whether it is not closed: the ``rest`` of a request is answered."""
    reader, writer = connection
    writer.write(rest)
    return bool(await answer(reader))


async def left(*connections: Streams) -> None:
    for _, writer in connections:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for three."""
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 3)


@pytest.mark.parametrize("said", [b"", b"GET / HT", HEAD])
@pytest.mark.parametrize("before", [b"", PAGE])
async def test_who_does_not_end_the_head_of_a_request_in_time_is_closed(before: bytes, said: bytes) -> None:
    async with serving(idle_s=0.05) as (_, port):
        # It has asked before the server can wait for it: else a busy machine may be late with that, too.
        reader, writer = await asyncio.open_connection(sock=deaf(port, before + said))
        assert bool(await answer(reader)) == bool(before)
        assert not await answer(reader)
        await left((reader, writer))


@pytest.mark.parametrize("last", [b"", LAST])
@pytest.mark.parametrize("asks", [LARGE, FULL])
async def test_who_does_not_read_what_is_answered_in_time_is_closed(asks: bytes, last: bytes) -> None:
    async with serving(idle_s=0.05) as (pages, port):
        connection = deaf(port, asks.replace(b"\r\n", b"\r\n" + last, 1))
        await pages.over.acquire()
        reader, writer = await asyncio.open_connection(sock=connection)
        got = b"here"
        with suppress(ConnectionResetError):
            got = await reader.read()
        assert b"here" not in got
        await left((reader, writer))


async def test_a_stream_that_was_not_read_for_a_while_and_then_is_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(idle_s=DEADLINE_S / 3) as (pages, port):
        watching = await asked(port, STREAM)
        assert await answer(watching[0])
        pages.streams[0].put_nowait(bytes(LARGE_BYTES) + b"here")
        assert await probed(port), "a few turns of the loop, in which the stream has got stuck"
        await watching[0].readexactly(LARGE_BYTES)
        assert await answer(watching[0])
        loop = asyncio.get_running_loop()
        now_s = loop.time
        monkeypatch.setattr(loop, "time", lambda: now_s() + DEADLINE_S / 2)
        assert await probed(port), "in which it would have been closed"
        pages.streams[0].put_nowait(b"here")
        assert await answer(watching[0])
        await left(watching)


@pytest.mark.usefixtures("three")
async def test_who_comes_where_all_have_said_half_a_head_is_answered_and_the_longest_awaited_is_closed() -> None:
    async with serving() as (_, port):
        halves = [await asked(port, HEAD) for _ in range(3)]
        assert await probed(port)
        assert [await stays(half, b"\r\n") for half in halves] == [False, True, True]
        await left(*halves)


@pytest.mark.usefixtures("three")
async def test_of_whom_is_awaited_as_many_are_closed_as_come_at_once() -> None:
    async with serving() as (_, port):
        halves = [await asked(port, HEAD) for _ in range(3)]
        came = await asyncio.gather(*(asked(port) for _ in range(3)))
        assert all([await answer(reader) for reader, _ in came])
        assert not any([await stays(half, b"\r\n") for half in halves])
        await left(*halves, *came)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("asks", [LARGE, FULL])
async def test_who_comes_where_nobody_reads_what_is_answered_is_answered(asks: bytes) -> None:
    async with serving() as (pages, port):
        full = [deaf(port, asks) for _ in range(3)]
        for _ in full:
            await pages.stuck.acquire()
        assert await probed(port)
        await pages.over.acquire()
        assert pages.over.locked(), "one of three"
        for connection in full:
            connection.close()


@pytest.mark.usefixtures("three")
async def test_a_stream_that_is_read_and_a_connection_that_asks_again_stay_whoever_comes() -> None:
    async with serving() as (pages, port):
        watching = await asked(port, STREAM)
        assert await answer(watching[0])
        asking = await asked(port)
        assert await answer(asking[0])
        for _ in range(5):
            half = await asked(port, HEAD)
            assert await stays(asking)
            assert await probed(port)
            pages.streams[0].put_nowait(b"here")
            assert await answer(watching[0])
            await left(half)
        await left(watching, asking)


@pytest.mark.usefixtures("three")
async def test_a_stream_that_is_not_read_yet_stays_before_who_was_awaited_longer() -> None:
    async with serving() as (pages, port):
        watching = await asked(port, STREAM)
        assert await answer(watching[0])
        half, asking = await asked(port, HEAD), await asked(port)
        assert await answer(asking[0])
        pages.streams[0].put_nowait(bytes(LARGE_BYTES) + b"here")
        assert await stays(asking), "a few turns of the loop, in which the stream has got stuck"
        assert await probed(port)
        assert not await stays(half, b"\r\n")
        await watching[0].readexactly(LARGE_BYTES)
        assert await answer(watching[0])
        await left(watching, half, asking)


@pytest.mark.usefixtures("three")
async def test_who_asks_for_much_at_once_is_awaited_since_it_asked_and_not_since_each_answer() -> None:
    async with serving() as (pages, port):
        greedy = await asked(port, STREAM + PAGE)
        assert await answer(greedy[0])
        others = [await asked(port) for _ in range(2)]
        assert all([await answer(reader) for reader, _ in others])
        pages.streams[0].put_nowait(b"")
        assert await answer(greedy[0])
        assert await probed(port)
        assert [await stays(connection) for connection in (greedy, *others)] == [False, True, True]
        await left(greedy, *others)


@pytest.mark.usefixtures("three")
async def test_where_all_are_being_answered_whoever_comes_is_closed_at_once_until_one_goes() -> None:
    async with serving() as (pages, port):
        watching = [await asked(port, STREAM) for _ in range(3)]
        assert all([await answer(reader) for reader, _ in watching])
        for _ in range(5):
            assert not await probed(port)
        await left(watching.pop())
        await pages.over.acquire()
        assert await probed(port)
        await left(*watching)
