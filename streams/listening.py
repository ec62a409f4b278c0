"""How our web servers begin to listen, for how many at once and how long, and what is told where they cannot."""

import asyncio

from aiohttp import web

CONNECTIONS_MAX = 128
"""At once; one beyond is closed unheard. Whoever asks a worker are a handful, and a process may open 1,024 files."""
_BACKLOG = 32
"""Connections that are taken in one turn, and so the most that may be there beyond the bound."""
IDLE_S = 10.0
"""Within which a connection has said the whole head of a request, its first or its next; it is closed otherwise."""
STOP_S = 1.0
"""What an answer under way gets when the server stops."""
LINE_BYTES_MAX = 8_190
"""Of a request line, and of a header."""


class ListenError(RuntimeError):
    """A server cannot listen where it is told to; the message says what to do."""


def runner_of(app: web.Application, idle_s: float = IDLE_S, line_bytes_max: int = LINE_BYTES_MAX) -> web.AppRunner:
    """What runs ``app`` within our bounds, once it is set up and listens (`listen`)."""
    return web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=idle_s,
        shutdown_timeout=STOP_S,
        max_line_size=line_bytes_max,
        max_field_size=line_bytes_max,
    )


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """The address, as a URL, once ``runner`` listens there; ``port`` 0 takes a free one. Raises `ListenError`."""
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
        self._host, self._port = host, port

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None, "the runner is set up"

        def protocol() -> asyncio.Protocol:
            return server() if len(server.connections) < CONNECTIONS_MAX else _Closed()

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(protocol, self._host, self._port, backlog=self._backlog)


class _Closed(asyncio.Protocol):
    """Hears nobody."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
