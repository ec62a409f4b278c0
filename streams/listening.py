"""How our web servers begin to listen, for how many at once and how long, and what is told where they cannot."""

import asyncio
from collections import OrderedDict

from aiohttp import web

from streams.guard import Handler

CONNECTIONS_MAX = 256
"""At once; a process may open 1,024 files. Whoever asks are a handful, and 64 pages that listen. The rest are more than
come in the five turns of the loop within which a newcomer is heard (5 × 32): nobody takes its place before."""
_BACKLOG = 32
"""Connections that are taken in one turn of the loop."""
IDLE_S = 10.0
"""Within which a connection has said the whole head of a request, its first or its next, and has read of an answer all
but what the kernel holds; it is closed otherwise."""
STOP_S = 1.0
"""What an answer under way gets when the server stops."""
LINE_BYTES_MAX = 8_190
"""Of a request line, and of a header."""


class ListenError(RuntimeError):
    """A server cannot listen where it is told to; the message says what to do."""


def runner_of(app: web.Application, idle_s: float = IDLE_S, line_bytes_max: int = LINE_BYTES_MAX) -> web.AppRunner:
    """What runs ``app`` within our bounds, once it is set up and listens (`listen`)."""
    app[_CROWD] = crowd = _Crowd(idle_s)
    app.middlewares.insert(0, crowd.answering)
    return web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,  # who has gone is counted no more, so nothing may be done for them either
        keepalive_timeout=idle_s,
        shutdown_timeout=STOP_S,
        max_line_size=line_bytes_max,
        max_field_size=line_bytes_max,
    )


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """The address, as a URL, once ``runner`` (`runner_of`) listens there; ``port`` 0 takes a free one.

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


class _Site(web.BaseSite):
    """`web.TCPSite`, for `CONNECTIONS_MAX` at once: without a bound, connections take every file of the process."""

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
    """Who is connected. Whoever comes to a full server takes the place of whom it has waited for longest.

    Were newcomers turned away, `CONNECTIONS_MAX` that say or read nothing would keep out everybody else.
    """

    def __init__(self, unread_s: float) -> None:
        self.unread_s = unread_s
        self._there: OrderedDict[web.RequestHandler, _Connection] = OrderedDict()
        """First whoever came, asked, or began not to read before all others."""

    def admits(self, newcomer: "_Connection") -> bool:
        """Whether there is room, if need be that of one who keeps us waiting and is closed for it."""
        if len(self._there) >= CONNECTIONS_MAX:
            longest = next((connection for connection in self._there.values() if connection.keeps_waiting), None)
            if longest is None:
                return False
            longest.abort()
        self._there[newcomer.handler] = newcomer
        return True

    def renews(self, connection: "_Connection") -> None:
        """Nobody has kept us waiting for a shorter time than ``connection``."""
        self._there.move_to_end(connection.handler)

    def loses(self, connection: "_Connection") -> None:
        """``connection`` takes no room any more."""
        self._there.pop(connection.handler, None)

    @web.middleware
    async def answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """While ``handler`` is at work, it is not the one who asked that keeps the other waiting."""
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
    """Between a socket and aiohttp's protocol, which hears all of it: knows which end waits for the other."""

    def __init__(self, handler: web.RequestHandler, crowd: _Crowd) -> None:
        self.handler = handler
        self._crowd = crowd
        self._heard = False
        """Whether it has said anything since it was renewed: of many requests that it says at once, one renews it."""
        self._answering = False
        self._unread: asyncio.TimerHandle | None = None
        """What closes it, while there is more to write than the kernel takes."""

    @property
    def keeps_waiting(self) -> bool:
        """Whether we wait for it to say the head of a request, or to read."""
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
            transport.set_write_buffer_limits(high=0)  # whatever the kernel does not take pauses us, not 64 KiB of it
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
