"""The console's web server: the page, its snapshots as server-sent events, and the answer to "why this ad?".

It is on loopback by default. Elsewhere, everything about the shop requires the bearer token; the page's own files tell
nothing. Nothing is loaded from other servers, and the browser is told to refuse it (Content-Security-Policy). On
loopback, a request must name this machine (`streams.guard.named`).
"""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

import msgspec
import structlog
from aiohttp import web
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException

from scoring.engine import Engine
from scoring.manifest import ModelError
from scoring.text import TextEncoderError
from streams import topics
from streams.app import make_engine
from streams.aside import aside
from streams.clock import tick_ms, wall_ms
from streams.compute import Compute
from streams.console.desk import Desk, Snapshot
from streams.console.tails import Tails
from streams.console.why import Explainer
from streams.guard import Bearer, Handler, guard, json_response, named
from streams.lag.monitor import LagMonitor
from streams.listening import listening
from streams.mendable import MendableError
from streams.reading import partitions_of
from streams.receipt_search import find_receipt
from streams.receipts import check_receipt
from streams.rules import RulesError
from streams.settings import Settings
from streams.wire import UNREADABLE

log = structlog.get_logger()

EVERY_S = 1.0
"""Time between two snapshots; the page relies on it (``SILENT_MS`` in console.js is five of them)."""
STALE_S = 10.0
"""A snapshot that is older is stale."""
LISTENERS_MAX = 64
"""Most pages that listen; each holds a connection for as long as it is open."""
FIND_S = 10.0
"""To find a receipt: as long as a person waits for an answer."""
NEAR = 10_000
"""Receipts looked through before and after the place where one should be: 150 MB."""
USER_MAX = 64
"""Most characters of a user's id, as on the wire."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TYPES = {
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
}
WhyNot = Literal["nobody", "context", "gone", "length", "version", "silent"]
"""Why "why this ad?" has no answer; the page has a sentence for each, in the language chosen."""


class Live:
    """Answers for the pages: the latest snapshot, made anew every `EVERY_S` seconds, and explanations."""

    def __init__(self, settings: Settings, monitor: LagMonitor, desk: Desk, tails: Tails, compute: Compute) -> None:
        self._settings, self._monitor, self._desk, self._tails, self._compute = settings, monitor, desk, tails, compute
        self._explainer = Explainer(desk.catalogue, desk.engine)
        self._turn = asyncio.Event()
        self.snapshot: Snapshot | None = None
        self.encoded = b""
        self._made_ms: int | None = None
        self.listeners: set[web.StreamResponse] = set()

    async def run(self) -> None:
        """Make snapshots for ever. Raises the error that ended the monitor."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self.snapshot = await self._compute.run(
                self._desk.tick,
                self._monitor.latest,
                wall_ms(),
                caught_up=self._tails.caught_up,
                skipped=self._tails.skipped,
            )
            self.encoded, self._made_ms = msgspec.json.encode(self.snapshot), tick_ms()
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()
            await asyncio.sleep(max(0.0, EVERY_S - (loop.time() - began)))

    def stale(self) -> bool:
        """Whether no snapshot has been made for `STALE_S`, whatever the wall clock was set to meanwhile."""
        return self._made_ms is None or tick_ms() - self._made_ms >= 1_000 * STALE_S

    async def next(self) -> bytes:
        """The next snapshot as JSON; a slow caller gets the newest."""
        await self._turn.wait()
        return self.encoded

    async def history(self) -> bytes:
        """The history before the snapshot, as JSON."""
        return msgspec.json.encode(await self._compute.run(self._desk.history))

    async def why(self, user: str) -> web.Response:
        """Why this person has these ads: 200, or 404 with ``error``: nobody, context or gone.

        Raises one of `UNREADABLE` if the receipt is not of this version.
        """
        found = self._desk.people.find(user)
        if found is None:
            return _no_answer(404, "nobody", user=user)
        if found.placed.context_only:
            return _no_answer(404, "context", user=user)
        where, wanted = (self._settings.bootstrap, self._settings.topic_prefix), found.placed.placement_id
        async with asyncio.timeout(FIND_S):
            decision = await find_receipt(*where, wanted, most=NEAR)
        if decision is None:
            return _no_answer(404, "gone", user=user)
        check_receipt(decision)
        return web.Response(
            body=msgspec.json.encode(await self._compute.run(self._explainer.why, decision)),
            content_type="application/json",
        )


LIVE: web.AppKey[Live] = web.AppKey("live", Live)


def make_app(live: Live, settings: Settings) -> web.Application:
    """The page, for everyone who can connect; its content, under ``/api``, for those who bear the token."""
    app = web.Application(middlewares=[named(settings.web_host)])
    for path, handler in _static().items():
        app.router.add_get(path, handler)
    app.router.add_get("/healthz", _healthz(live))
    api = web.Application(middlewares=[guard(Bearer(settings))])
    api[LIVE] = live
    api.router.add_get("/events", _events)
    api.router.add_get("/snapshot", _snapshot)
    api.router.add_get("/why", _why)
    app.add_subapp("/api", api)
    app.on_response_prepare.append(_add_headers)
    return app


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Add headers that isolate the page from other sites."""
    response.headers.update(HEADERS)


def _static() -> dict[str, Handler]:
    """A handler for each file of the page, held in memory, so that no request's path reaches the file system."""
    found: dict[str, Handler] = {}

    def add(folder: Traversable, path: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                add(entry, f"{path}{entry.name}/")
            elif (kind := TYPES.get("." + entry.name.rpartition(".")[2])) is not None:
                found[path + entry.name] = _file(entry.read_bytes(), kind)

    add(files("streams.console") / "static", "/")
    return {"/": found["/index.html"], **found}


def _file(content: bytes, kind: str) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return answer


def _healthz(live: Live) -> Handler:
    """200 while snapshots are made, else 503. It reveals nothing about the shop."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        stale = live.stale()
        return json_response(503 if stale else 200, {"healthy": not stale})

    return answer


async def _snapshot(request: web.Request) -> web.Response:
    """The latest snapshot, for machines."""
    live = request.app[LIVE]
    return web.Response(body=live.encoded or await live.next(), content_type="application/json")


async def _events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: ``history`` once, then ``snapshot`` every second, also as a sign of life."""
    live = request.app[LIVE]
    if len(live.listeners) >= LISTENERS_MAX:
        return json_response(503, {"error": "full", "said": f"{LISTENERS_MAX} pages listen already; close one"})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    live.listeners.add(response)
    try:
        await response.prepare(request)
        await response.write(b"event: history\ndata: " + await live.history() + b"\n\n")
        while True:
            await response.write(b"event: snapshot\ndata: " + await live.next() + b"\n\n")
    except ConnectionError:  # the page was closed
        return response
    finally:
        live.listeners.discard(response)


async def _why(request: web.Request) -> web.Response:
    """``?user=``: explain a person's newest placement; else ``error``, with ``said`` for clients without the page."""
    user = request.query.get("user", "")
    if not 0 < len(user) <= USER_MAX:
        return _no_answer(400, "length", said=f"user has {len(user)} characters, expected 1 to {USER_MAX}")
    try:
        return await request.app[LIVE].why(user)
    except UNREADABLE as error:
        return _no_answer(500, "version", said=f"the receipt is not of this version: {type(error).__name__}")
    except TimeoutError:
        return _no_answer(504, "silent", said=f"{user}: no broker has answered in time")
    except (KafkaError, KafkaException, MendableError) as error:
        return _no_answer(504, "silent", said=f"{user}: no broker has answered: {type(error).__name__}")


def _no_answer(status: int, why_not: WhyNot, **about: str) -> web.Response:
    return json_response(status, {"error": why_not, **about})


def _engine(settings: Settings) -> Engine | None:
    """The engine that computes receipts again. If its model, rules or titles are missing, they are only shown."""
    try:
        return make_engine(settings)
    except (ModelError, RulesError, TextEncoderError, OSError) as error:
        log.warning("receipts are not computed again", error=str(error))
        return None


async def serve(settings: Settings, monitor: LagMonitor, port: int, ready: Callable[[str], None]) -> None:
    """Run the console until it is cancelled; call ``ready`` with its URL.

    Raises `ListenError` where it cannot listen, `MissingTopicError` or `TopicsError` where there is nothing to show.
    """
    lanes = len(await aside(partitions_of, settings.bootstrap, settings.topic_prefix + topics.CLICKS))
    compute = Compute()
    desk = Desk(settings, lanes, _engine(settings))
    try:
        async with monitor, Tails(settings.bootstrap, desk.tails(), compute) as tails:
            live = Live(settings, monitor, desk, tails, compute)
            running = asyncio.create_task(live.run())
            assert tails.task is not None
            try:
                async with listening(make_app(live, settings), settings.web_host, port) as url:
                    ready(url)
                    done, _ = await asyncio.wait([running, tails.task], return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            finally:
                running.cancel()
    finally:
        compute.stop()
