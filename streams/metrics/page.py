"""``/metrics``: a registry in the format that the scraper asks for."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.guard import Handler


def metrics_page(registry: CollectorRegistry, refresh: Callable[[], None] = lambda: None) -> Handler:
    """The page; ``refresh`` brings the gauges up to date at each request."""

    async def page(request: web.Request) -> web.Response:
        refresh()
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except TypeError:  # prometheus_client compares the version with numbers, even if it is not a valid one
            encode, content_type = choose_encoder("")
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    return page
