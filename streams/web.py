"""The worker's own small web server: whether the worker is alive, and whether it is ready.

It is on loopback by default, and elsewhere only with a bearer token. It answers from the worker's event loop, so a
blocked worker rightly answers nothing. Faust's server is not used: it binds every address.
"""

import errno
import socket
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web
from mode import Service

from streams.guard import Bearer, Handler, Token, guard, json_response, named
from streams.listening import ListenError, listen, runner_of
from streams.settings import Settings
from streams.vitals import Vitals

log = structlog.get_logger()

REQUEST_BYTES_MAX = 4_096
"""Largest body; every route is a GET without one."""
LINE_BYTES_MAX = 4_096
"""Longest request line, and longest header."""


def check_port(settings: Settings) -> None:
    """Check before anything runs that the server will be able to listen. Raises `ListenError`."""
    host, port = settings.web_host, settings.web_port
    try:
        for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"SALIENCE_WEB_PORT={port} is taken; 0 takes a free one") from error
        if error.errno != errno.EAFNOSUPPORT:  # without IPv6, a machine listens on the name's other addresses
            raise ListenError(f"SALIENCE_WEB_HOST={host}, SALIENCE_WEB_PORT={port}: {error.strerror}") from error


def make_app(
    vitals: Callable[[], Vitals], token: Token, host: str, routes: Mapping[str, Handler] = {}
) -> web.Application:
    """The server for ``host``; its routes call ``vitals`` at each request. ``routes``: further ones by path."""

    async def healthz(_request: web.Request) -> web.Response:
        """200 while the process goes on, 503 with the reason while it ends."""
        now = vitals()
        return json_response(503 if now.ending else 200, {"healthy": not now.ending, "reason": now.ending})

    async def readyz(_request: web.Request) -> web.Response:
        """200 when this worker scores every lane it holds, 503 with the reason otherwise."""
        now = vitals()
        reason = now.unready()
        lanes = {str(number): lane.stage for number, lane in sorted(now.lanes.items())}
        return json_response(503 if reason else 200, {"ready": not reason, "reason": reason, "lanes": lanes})

    app = web.Application(middlewares=[named(host), guard(token)], client_max_size=REQUEST_BYTES_MAX)
    for path, handler in {"/healthz": healthz, "/readyz": readyz, **routes}.items():
        app.router.add_get(path, handler)
    return app


class Web(Service):
    """The server as a service of the worker; ``url`` once it has started."""

    def __init__(self, settings: Settings, vitals: Callable[[], Vitals], routes: Mapping[str, Handler] = {}) -> None:
        super().__init__()
        self._host, self._port = settings.web_host, settings.web_port
        app = make_app(vitals, Bearer(settings), settings.web_host, routes)
        self._routes = sorted({resource.canonical for resource in app.router.resources()})
        self._runner = runner_of(app, line_bytes_max=LINE_BYTES_MAX)
        self.url = ""

    async def on_start(self) -> None:
        """Listen. Raises `ListenError` where the port is taken."""
        await self._runner.setup()
        self.url = await listen(self._runner, self._host, self._port)
        log.info("web", url=self.url, routes=self._routes)

    async def on_stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
