"""The ads topic, read whole by every worker: caught up before the worker is ready, then live.

Group-less, since every worker needs every ad. What is applied, is applied on the compute thread, so that no
placement sees half an update.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from scoring.catalogue import Catalogue, CatalogueError, Entry
from scoring.features import Content
from streams.compute import Compute
from streams.reading import log_ends
from streams.settings import Settings
from streams.wire import Ad

log = structlog.get_logger()

ADS_PER_READ = 5_000
"""Ads encoded in one call: the longest that a placement may wait for the catalogue, about 100 ms."""
POLL_MS = 200
_DECODE = msgspec.json.Decoder(Ad).decode


def entry_of(ad: Ad) -> Entry:
    """A wire ad as the catalogue takes it."""
    content = Content(ad.ad_id, ad.category, ad.brand, ad.price_micros, ad.tags, ad.title)
    return Entry(
        content=content,
        campaign_id=ad.campaign_id,
        advertiser_id=ad.advertiser_id,
        bid_micros=ad.bid_micros,
        budget_micros=ad.budget_micros,
        active=ad.status == "active",
        start_ms=ad.start_ms,
        end_ms=ad.end_ms,
    )


def _decode(key: bytes | None, value: bytes) -> Ad:
    ad = _DECODE(value)
    if ad.ad_id.encode() != key:
        raise CatalogueError(f"the record's key is {key!r}, expected the ad_id {ad.ad_id!r}")
    return ad


def apply_ads(catalogue: Catalogue, records: Sequence[Any]) -> int:
    """Apply ``records`` of the ads topic, of one key the last; the number of those that were refused.

    A refused ad is logged with its offset and leaves what the catalogue had; the ad's owner sees it missing from
    placements, and nobody else is affected.
    """
    last = {record.key: record for record in records}
    entries, gone, refused = [], [], 0
    for key, record in last.items():
        if record.value is None:
            gone.append((key or b"").decode(errors="replace"))
            continue
        try:
            entries.append(entry_of(_decode(key, record.value)))
        except (msgspec.MsgspecError, CatalogueError) as error:
            refused += 1
            log.warning("ad refused", partition=record.partition, offset=record.offset, error=str(error))
    catalogue.withdraw(gone)
    return refused + _upsert(catalogue, entries)


def _upsert(catalogue: Catalogue, entries: Sequence[Entry]) -> int:
    """Upsert together, and where one of them is refused one by one; the number of those refused."""
    try:
        catalogue.upsert(entries)
    except CatalogueError as error:
        if len(entries) == 1:
            log.warning("ad refused", ad=entries[0].content.item_id, error=str(error))
            return 1
        return sum(_upsert(catalogue, [entry]) for entry in entries)
    return 0


class CatalogueFeed(Service):
    """Keeps ``catalogue`` in step with the topic."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        compute: Compute,
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._catalogue = catalogue
        self._compute = compute
        self._fail = fail
        self._consumer: AIOKafkaConsumer | None = None
        self.refused = 0

    async def on_start(self) -> None:
        """Read to the end as it is now."""
        topic = self._settings.topic_prefix + "ads"
        consumer = self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or {0})]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await log_ends(self._settings.bootstrap, partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            await self._read(consumer)
        log.info("catalogue caught up", ads=len(self._catalogue), refused=self.refused)
        self.add_future(self._follow(consumer))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=ADS_PER_READ)).values():
            self.refused += await self._compute.run(apply_ads, self._catalogue, records)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while not self.should_stop:
                await self._read(consumer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a stale catalogue shows ended ads: every failure is fatal
            self._fail(error)

    async def on_stop(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            await self._consumer.stop()
