"""Shoppers on a broker that runs already, beside workers of its own: the demo's ads are up for as long as they shop."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from aiokafka.errors import KafkaError

from streams import topics
from streams.catalogue_feed import read_ad
from streams.demo.outbox import put_ads
from streams.demo.report import Report
from streams.demo.shopping import Plan, Shopping, Show, StrangeAdsError
from streams.reading import partitions_of, read_topic
from streams.settings import Settings
from streams.wire import UNREADABLE, Ad

log = structlog.get_logger()

WRITTEN = (topics.ADS, topics.CLICKS, topics.AD_IMPRESSIONS)
"""Topics that must be there: to write to one that is not might make it, as no shop has it."""
TAKE_OFF_WITHIN_S = 10.0
"""Of a broker that is there it takes milliseconds; one that is not is waited for no longer, but for the farewell."""


async def visit(plan: Plan, settings: Settings, show: Show) -> Report:
    """Let the shoppers of ``plan`` in; SIGINT and SIGTERM end it early, in order.

    Raises `StrangeAdsError` where ads are put up that are not the demo's, and what `Shopping.run` does.
    """
    shopping = Shopping(plan, settings, show, broker=settings.bootstrap)
    shopping.heed_signals()
    for name in WRITTEN:
        await asyncio.to_thread(partitions_of, settings.bootstrap, settings.topic_prefix + name)
    await _refuse_strange(settings, shopping.ads)
    async with _put_up(settings, shopping.ads):
        await shopping.run()
    return await shopping.report()


async def _refuse_strange(settings: Settings, ours: Mapping[str, Ad]) -> None:
    """Ads of ours may stand there: of a run that was killed."""
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


def _is_ours(ours: Mapping[str, Ad], key: bytes | None, value: bytes) -> bool:
    try:
        ad = read_ad(key, value)
    except UNREADABLE:
        return False
    return ours.get(ad.ad_id) == ad


@asynccontextmanager
async def _put_up(settings: Settings, ads: Mapping[str, Ad]) -> AsyncIterator[None]:
    """The ads are on their topic in the block, and withdrawn after it, however it ends."""
    try:
        await put_ads(settings, ads)
        yield
    finally:
        try:
            async with asyncio.timeout(TAKE_OFF_WITHIN_S):
                await put_ads(settings, dict.fromkeys(ads))
        except (TimeoutError, KafkaError) as error:
            topic = settings.topic_prefix + topics.ADS
            log.warning("the demo's ads stand there still, until the next run ends", topic=topic, error=repr(error))
