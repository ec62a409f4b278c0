"""The ads topic as every worker's catalogue: no placement sees half an update (`streams.topic_feed`)."""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from scoring.catalogue import Catalogue, CatalogueError, Entry
from scoring.features import Content
from streams.compute import Compute
from streams.decode import Record
from streams.settings import Settings
from streams.topic_feed import TopicFeed
from streams.topics import ADS
from streams.wire import Ad

log = structlog.get_logger()

ADS_PER_READ = 5_000
"""Ads encoded in one call: the longest that a placement may wait for the catalogue, about 100 ms."""
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


def apply_ads(catalogue: Catalogue, records: Sequence[Record]) -> int:
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
        except (msgspec.MsgspecError, ValueError) as error:  # what is no UTF-8 is no MsgspecError
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


class CatalogueFeed(TopicFeed):
    """Keeps ``catalogue`` in step with the topic."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, compute: Compute, fail: Callable[[BaseException], None]
    ) -> None:
        super().__init__(settings, ADS, compute, fail, ADS_PER_READ)
        self._catalogue = catalogue

    def take(self, records: Sequence[Record]) -> int:
        """Apply a batch; the number of ads that were refused."""
        return apply_ads(self._catalogue, records)
