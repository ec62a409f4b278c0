"""How our web servers listen: to how many connections, for how long, and what the error says where they cannot."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from streams.guard import Handler
from streams.mendable import MendableError

CONNECTIONS_MAX = 256
"""Connections at once; a process may open 1,024 files. A handful of clients ask, and 64 pages stay connected. The rest
are more than arrive in the five turns of the loop within which a newcomer is heard (5 × 32), so that nobody takes its
place before."""
_BACKLOG = 32
"""Connections accepted in one turn of the loop."""
IDLE_S = 10.0
"""Time in which a connection must send the whole head of a request, its first or its next, and must read an answer,
except for what the kernel buffers; else it is closed."""
STOP_S = 1.0
"""Time that an answer under way gets when the server stops."""
LINE_BYTES_MAX = 8_190
"""Longest request line, and longest header."""


class ListenError(MendableError):
    """A server cannot listen where it is told to; the message says what to do."""


def runner_of(app: web.Application, idle_s: float = IDLE_S, line_bytes_max: int = LINE_BYTES_MAX) -> web.AppRunner:
    """A runner that keeps ``app`` within our bounds, once it is set up and listens (`listen`)."""
    app[_CROWD] = crowd = _Crowd(idle_s)
    app.middlewares.insert(0, crowd.answering)
    return web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,  # a client that has gone is not counted, so no work for it may go on either
        keepalive_timeout=idle_s,
        shutdown_timeout=STOP_S,
        max_line_size=line_bytes_max,
        max_field_size=line_bytes_max,
    )


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """Make ``runner`` (`runner_of`) listen; return its address as a URL. ``port`` 0 takes a free one.

    Raises `ListenError`.
    """
    try:
        await _Site(runner, host, port).start()
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Another one: --port 0"
        ) from error
    at, bound = runner.addresses[0][:2]
    return f"http://{f'[{at}]' if ':' in at else at}:{bound}"


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int, idle_s: float = IDLE_S) -> AsyncIterator[str]:
    """Serve ``app`` within the block, which gets its URL, as by `listen`. Raises `ListenError`."""
    runner = runner_of(app, idle_s)
    await runner.setup()
    try:
        yield await listen(runner, host, port)
    finally:
        await runner.cleanup()


class _Site(web.BaseSite):
    """`web.TCPSite` with `CONNECTIONS_MAX`: without a bound, connections would use up the process's open files."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._crowd = runner.app[_CROWD]
        self._host, self._port = host, port

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None, "the runner is set up"

        def protocol() -> asyncio.Protocol:
            return _Connection(server(), self._crowd)

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(protocol, self._host, self._port, backlog=self._backlog)


class _Crowd:
    """The open connections. On a full server, a newcomer replaces the one that has kept the server waiting longest.

    If newcomers were turned away, `CONNECTIONS_MAX` connections that send or read nothing would keep out all others.
    """

    def __init__(self, unread_s: float) -> None:
        self.unread_s = unread_s
        self._there: OrderedDict[web.RequestHandler, _Connection] = OrderedDict()
        """In the order in which each last came, asked, or stopped reading; the longest ago first."""

    def admits(self, newcomer: "_Connection") -> bool:
        """Whether there is room for ``newcomer``; if need be, a connection that keeps us waiting is closed for it."""
        if len(self._there) >= CONNECTIONS_MAX:
            longest = next((connection for connection in self._there.values() if connection.keeps_waiting), None)
            if longest is None:
                return False
            longest.abort()
        self._there[newcomer.handler] = newcomer
        return True

    def renews(self, connection: "_Connection") -> None:
        """Move ``connection`` to the end of the order: its waiting time begins now."""
        self._there.move_to_end(connection.handler)

    def loses(self, connection: "_Connection") -> None:
        """Free the place of ``connection``."""
        self._there.pop(connection.handler, None)

    @web.middleware
    async def answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run ``handler``; meanwhile the client waits for us, not we for the client."""
        connection = self._there.get(request.protocol)
        if connection is None:  # gone meanwhile
            return await handler(request)
        connection.asked()
        try:
            return await handler(request)
        finally:
            connection.answered()


_CROWD = web.AppKey("crowd", _Crowd)


class _Connection(asyncio.Protocol):
    """Sits between a socket and aiohttp's protocol, passes everything on, and knows which end waits for the other."""

    def __init__(self, handler: web.RequestHandler, crowd: _Crowd) -> None:
        self.handler = handler
        self._crowd = crowd
        self._heard = False
        """Whether it has sent anything since it was renewed: many requests sent at once renew it only once."""
        self._answering = False
        self._unread: asyncio.TimerHandle | None = None
        """Timer that closes it; runs while there is more to write than the kernel takes."""

    @property
    def keeps_waiting(self) -> bool:
        """Whether we wait for it to send the head of a request, or to read."""
        return self._unread is not None or not self._answering

    def asked(self) -> None:
        self._answering = True
        if self._heard:
            self._heard = False
            self._crowd.renews(self)

    def answered(self) -> None:
        self._answering = False

    def abort(self) -> None:
        """Close it, whatever is unread."""
        self._crowd.loses(self)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._crowd.admits(self):
            transport.set_write_buffer_limits(high=0)  # pause as soon as the kernel takes no more, not after 64 KiB
            self.handler.connection_made(transport)
        else:
            transport.set_protocol(asyncio.Protocol())  # hears nothing
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self.handler.data_received(data)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(self._crowd.unread_s, self.abort)
        self._crowd.renews(self)
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self._read()
        self.handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._read()
        self._crowd.loses(self)
        self.handler.connection_lost(exc)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
