"""The pages of a process that works beside the workers: ``/metrics`` for Prometheus and ``/healthz`` for probes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from streams.guard import Bearer, guard, named
from streams.listening import listening
from streams.metrics.page import metrics_page
from streams.settings import Settings


@asynccontextmanager
async def serving(
    collector: Collector,
    settings: Settings,
    port: int | None,
    ready: Callable[[str], object],
    unwell: Callable[[], str] = str,
) -> AsyncIterator[None]:
    """Serve the pages within, on ``settings.web_host``, and tell ``ready`` where; nothing where ``port`` is None.

    ``unwell``: why the process does not do its work, empty while it does. Raises `ListenError`.
    """
    if port is None:
        yield
        return

    async def healthz(_request: web.Request) -> web.Response:
        why = unwell()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    registry = CollectorRegistry()
    registry.register(collector)
    app = web.Application(middlewares=[named(settings.web_host), guard(Bearer(settings))])
    app.router.add_get("/metrics", metrics_page(registry))
    app.router.add_get("/healthz", healthz)
    async with listening(app, settings.web_host, port) as url:
        ready(f"{url}/metrics")
        yield
