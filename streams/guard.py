"""Who may ask our web servers: anyone on loopback, by this machine's names; beyond it, whoever bears the token."""

import hmac
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from streams.settings import is_loopback

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


def guard(token: str | None) -> Middleware:
    """Answer 401 to requests that do not bear ``token``; None lets all pass."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not authorised(request.headers, token):
            response = json_response(
                401, {"error": "expected the header Authorization: Bearer with SALIENCE_WEB_TOKEN"}
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return await handler(request)

    return middleware
