"""Shoppers on a running broker, which has workers of its own: the demo's ads are on it for as long as they shop."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog
from aiokafka.errors import KafkaError

from streams import topics
from streams.aside import aside
from streams.demo.outbox import Outbox, put_ads
from streams.demo.report import Report
from streams.demo.shopping import Plan, Shopping, Show, StrangeAdsError
from streams.demo.tally import Since
from streams.feeds.catalogue import read_ad
from streams.reading import partitions_of, read_topic
from streams.settings import Settings
from streams.wire import UNREADABLE, Ad

log = structlog.get_logger()

WRITTEN = (topics.ADS, topics.CLICKS, topics.AD_IMPRESSIONS)
"""Topics that must exist: writing to a missing one might create it, with other settings than a shop's."""
SIGN, SIGN_EVERY_S = "shoppers-are-here", 2.0
"""Key of a tombstone that shoppers write to the ads topic again and again; it is no ad's key, and workers skip it."""
LISTEN_S = 6.0
"""Time of three signs. A killed run gives none: its ads stay, and the next run uses them."""
LISTEN_AGAIN_S = 0.5
TAKE_OFF_WITHIN_S = 10.0
"""Time to take the ads off. A broker that is there needs milliseconds; one that is not is not waited for longer."""


class OthersShopError(RuntimeError):
    """The shoppers of another run are there."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(
            f"Other shoppers are there already, with their ads on {topic} of {bootstrap}: another salience shoppers "
            "runs. End it, or wait for its end"
        )


async def visit(plan: Plan, settings: Settings, show: Show) -> Report:
    """Let the shoppers of ``plan`` in; SIGINT and SIGTERM end it early, with an orderly stop.

    Raises `StrangeAdsError` where there are ads that are not the demo's, `OthersShopError` where other shoppers are
    there, and what `Shopping.run` raises.
    """
    shopping = Shopping(plan, settings, show, broker=settings.bootstrap)
    shopping.heed_signals()
    for name in WRITTEN:
        await aside(partitions_of, settings.bootstrap, settings.topic_prefix + name)
    if await _are_up(settings, shopping.ads):
        await _refuse_others(settings)
    async with _put_up(settings, shopping.ads):
        await shopping.run()
    return await shopping.report()


async def _are_up(settings: Settings, ours: Mapping[str, Ad]) -> bool:
    """Whether the demo's ads are there, from a run that goes on or was killed. Raises `StrangeAdsError` for others."""
    topic = settings.topic_prefix + topics.ADS
    standing: dict[bytes | None, bytes] = {}
    async for records in read_topic(settings.bootstrap, topic):
        for record in records:
            standing.pop(record.key, None)
            if record.value is not None:
                standing[record.key] = record.value
    strange = [key for key, value in standing.items() if not _is_ours(ours, key, value)]
    if strange:
        raise StrangeAdsError(topic, [(key or b"").decode(errors="replace") for key in strange])
    return bool(standing)


async def _refuse_others(settings: Settings) -> None:
    """Raises `OthersShopError` where another run gives signs: the first to end would take the other's ads off."""
    ads = Since(settings, topics.ADS)
    await ads.begin()
    deadline = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline:
        async for records in ads.news():
            if any(record.key == SIGN.encode() for record in records):
                raise OthersShopError(settings.bootstrap, ads.topic)
        await asyncio.sleep(LISTEN_AGAIN_S)


async def _give_signs(settings: Settings) -> NoReturn:
    async with Outbox(settings) as outbox:
        while True:
            await outbox.send(topics.ADS, SIGN, None)
            await asyncio.sleep(SIGN_EVERY_S)


def _is_ours(ours: Mapping[str, Ad], key: bytes | None, value: bytes) -> bool:
    try:
        ad = read_ad(key, value)
    except UNREADABLE:
        return False
    return ours.get(ad.ad_id) == ad


@asynccontextmanager
async def _put_up(settings: Settings, ads: Mapping[str, Ad]) -> AsyncIterator[None]:
    """In the block the ads are on their topic, and signs are given; after that, in any case, they are withdrawn."""
    signs = asyncio.create_task(_give_signs(settings))
    try:
        await put_ads(settings, ads)
        yield
    finally:
        signs.cancel()
        await asyncio.gather(signs, return_exceptions=True)  # the shoppers report a lost broker
        try:
            async with asyncio.timeout(TAKE_OFF_WITHIN_S):
                await put_ads(settings, dict.fromkeys(ads))
        except (TimeoutError, KafkaError) as error:
            topic = settings.topic_prefix + topics.ADS
            log.warning("the demo's ads stand there still, until the next run ends", topic=topic, error=repr(error))
