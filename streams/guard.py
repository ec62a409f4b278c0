"""Who may ask our web servers: anyone on loopback, by this machine's names; beyond it, whoever bears the token."""

import hmac
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from streams.connection import stamp
from streams.settings import Settings, is_loopback

log = structlog.get_logger()

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Token = Callable[[], str | None]
"""The token that requests must bear now; None: none is required."""


class Bearer:
    """The token of ``settings``, read again from its file whenever that changes: it is rotated without a restart.

    Probes and Prometheus read the same file at each request, so a server that did not would refuse them all at once.
    While the file is gone, unreadable or empty, the former token holds. Raises as `Settings.bearer_token`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stamp = stamp(settings.web_token_file)
        self._token = settings.bearer_token()

    def __call__(self) -> str | None:
        now = stamp(self._settings.web_token_file)
        if now != self._stamp:  # looked at before it is read: what comes meanwhile is read next time
            self._stamp = now
            self._renew()
        return self._token

    def _renew(self) -> None:
        try:
            token, why = self._settings.bearer_token(), "it is empty"
        except (OSError, ValueError) as error:
            token, why = None, type(error).__name__
        if token is None:
            log.warning("the web token's file cannot be read, the former token holds", reason=why)
        else:
            self._token = token
            log.info("the web token was read again")


def authorised(headers: Mapping[str, str], token: str | None) -> bool:
    """Whether a request may be answered: no ``token`` is required, or the request bears it."""
    if token is None:
        return True
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(_bytes(given.strip()), _bytes(token))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # aiohttp decodes bytes that are not UTF-8 this way


def json_response(status: int, told: Mapping[str, object]) -> web.Response:
    """``told`` as JSON."""
    return web.Response(status=status, body=msgspec.json.encode(told), content_type="application/json")


def named(host: str) -> Middleware:
    """On a loopback ``host``, answer 403 to requests under a name that is not this machine's; elsewhere let all pass.

    Otherwise any web site could ask through a name of its own, and read the answer (DNS rebinding).
    """
    names = LOOPBACK_NAMES | {host}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        name, _, port = request.host.rpartition(":")
        name = name if port.isdigit() else request.host
        if is_loopback(host) and name.lower() not in names:
            return json_response(403, {"error": f"the host {name!r} is not this machine's; use http://127.0.0.1"})
        return await handler(request)

    return middleware


def guard(token: Token) -> Middleware:
    """Answer 401 to requests that do not bear ``token``."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not authorised(request.headers, token()):
            response = json_response(
                401, {"error": "expected the header Authorization: Bearer with SALIENCE_WEB_TOKEN"}
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return await handler(request)

    return middleware
