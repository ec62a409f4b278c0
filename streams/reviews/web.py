"""The reader of reviews over HTTP: ``/metrics`` for Prometheus and ``/healthz`` for probes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.guard import guard, named
from streams.listening import listen, runner_of
from streams.metrics.page import metrics_page
from streams.reviews.reviewer import Reviewer
from streams.settings import Settings


class ReviewCollector(Collector):
    """What a reader has read and found, as it is when it is asked for."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    def collect(self) -> Iterator[Metric]:
        """Every metric, from 0 on: of what was never there no increase could be told."""
        reader = self._reviewer
        reviews = CounterMetricFamily(
            "salience_reviews", "Reviews read since the start, refused, or sent again.", labels=["outcome"]
        )
        reviews.add_metric(["read"], reader.reviews)
        reviews.add_metric(["refused"], reader.refused)
        reviews.add_metric(["repeated"], reader.repeated)
        yield reviews
        turned = CounterMetricFamily(
            "salience_tones_turned", "Ads and brands whose reviews have turned for the worse.", labels=["of"]
        )
        for of, count in reader.turned.items():
            turned.add_metric([of], count)
        yield turned


@asynccontextmanager
async def serving(reviewer: Reviewer, settings: Settings, port: int) -> AsyncIterator[str]:
    """The pages' address while they are served, on ``settings.web_host``. Raises `ListenError`."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    registry = CollectorRegistry()
    registry.register(ReviewCollector(reviewer))
    app = web.Application(middlewares=[named(settings.web_host), guard(settings.bearer_token())])
    app.router.add_get("/metrics", metrics_page(registry))
    app.router.add_get("/healthz", healthz)
    runner = runner_of(app)
    await runner.setup()
    try:
        yield await listen(runner, settings.web_host, port)
    finally:
        await runner.cleanup()
