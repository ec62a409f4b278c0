"""The exporter: the monitor over HTTP, for Prometheus, for probes and for pages.

``/metrics``, ``/lag`` (the latest as JSON), ``/events`` (the same, pushed after every poll), ``/healthz``.
"""

from collections.abc import Callable

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from streams.guard import Token, guard, named
from streams.lag.exporter import LagCollector
from streams.lag.monitor import LagMonitor
from streams.listening import listening
from streams.metrics.page import metrics_page

LISTENERS_MAX = 64
"""Most pages that listen to ``/events``; each holds a connection for as long as it is open."""

MONITOR: web.AppKey[LagMonitor] = web.AppKey("monitor", LagMonitor)
LISTENERS: web.AppKey[set[web.StreamResponse]] = web.AppKey("listeners", set)


def make_app(monitor: LagMonitor, token: Token = lambda: None, host: str = "127.0.0.1") -> web.Application:
    """The pages on ``host``; a ``token``, if there is one, is required. The caller runs the monitor."""
    app = web.Application(middlewares=[named(host), guard(token)])
    app[MONITOR] = monitor
    app[LISTENERS] = set()
    registry = CollectorRegistry()
    registry.register(LagCollector(lambda: monitor.latest))
    app.router.add_get("/metrics", metrics_page(registry))
    app.router.add_get("/lag", _lag)
    app.router.add_get("/events", _events)
    app.router.add_get("/healthz", _healthz)
    return app


async def _lag(request: web.Request) -> web.Response:
    return web.Response(body=msgspec.json.encode(request.app[MONITOR].latest), content_type="application/json")


async def _healthz(request: web.Request) -> web.Response:
    """200 while the report is not stale, with what it lacks; else 503 with the reason."""
    news = request.app[MONITOR].latest
    if news.stale:
        return web.Response(text=f"no poll for {news.age_s:.1f} s: {news.error or 'not yet'}\n", status=503)
    return web.Response(text=f"ok, but {news.lacking}\n" if news.lacking else "ok\n")


async def _events(request: web.Request) -> web.StreamResponse:
    """Server-sent events, ``event: lag``: the latest news at once, then after every poll, and while polls hang."""
    listeners = request.app[LISTENERS]
    if len(listeners) >= LISTENERS_MAX:
        return web.Response(text=f"{LISTENERS_MAX} listen already\n", status=503)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    listeners.add(response)
    try:
        await response.prepare(request)
        async for news in request.app[MONITOR].news():
            await response.write(b"event: lag\ndata: " + msgspec.json.encode(news) + b"\n\n")
    except ConnectionError:  # the page was closed
        pass
    finally:
        listeners.discard(response)
    return response


async def serve(
    monitor: LagMonitor,
    at: tuple[str, int],
    token: Token,
    ready: Callable[[str], None],
) -> None:
    """Run the monitor and its pages ``at`` host and port until it is cancelled; call ``ready`` with their URL.

    Raises `ListenError` where it cannot listen, and the error that ended the monitor, if one did.
    """
    async with monitor, listening(make_app(monitor, token, at[0]), *at) as url:
        ready(url)
        await monitor.ended()
