"""The ads topic as every worker's catalogue: no placement sees half an update (`streams.feeds.topic`)."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from scoring.catalogue import Catalogue, CatalogueError, Entry
from scoring.features import Content
from scoring.units import DAY_MS
from streams.clock import wall_ms
from streams.compute import Compute
from streams.decode import Record, is_plain
from streams.feeds.refused_ads import RefusedAds
from streams.feeds.topic import TopicFeed
from streams.refusal import Refusal
from streams.settings import Settings
from streams.titles import Titles
from streams.topics import ADS
from streams.wire import TITLE_MAX, UNREADABLE, Ad

log = structlog.get_logger()

ADS_PER_READ = 5_000
"""Ads encoded in one call, about 100 ms: a placement waits no longer for the catalogue."""
TITLES_PER_READ = 100
"""Ads in one call where titles are encoded first, 6 ms each: a new ad waits at most 0.6 s for titles of others."""
AHEAD_MS = DAY_MS
"""A record's time is believed up to so far ahead of this worker's clock; so the catalogue may be as far ahead, too."""
_DECODE = msgspec.json.Decoder(Ad).decode


def entry_of(ad: Ad) -> Entry:
    """A wire ad as the catalogue takes it."""
    content = Content(ad.ad_id, ad.category, ad.brand, ad.price_micros, ad.tags, ad.title)
    return Entry(
        content=content,
        campaign_id=ad.campaign_id,
        advertiser_id=ad.advertiser_id,
        bid_micros=ad.bid_micros,
        bid_type=ad.bid_type,
        attention_micros=ad.attention_micros,
        budget_micros=ad.budget_micros,
        active=ad.status == "active",
        start_ms=ad.start_ms,
        end_ms=0 if ad.status == "ended" else ad.end_ms,
    )


def read_ad(key: bytes | None, value: bytes) -> Ad:
    """The ad of a record. Raises one of `UNREADABLE` where the value is no ad, or another than its key names."""
    ad = _DECODE(value)
    if ad.ad_id.encode() != key:
        raise CatalogueError(f"the record's key is {key!r}, expected the ad_id {ad.ad_id!r}")
    for name in (ad.ad_id, ad.campaign_id, ad.advertiser_id):
        if not is_plain(name):  # keys join ids, with control characters between them
            raise CatalogueError(f"the id {name!r} holds a control character; give every ad plain ids")
    return ad


def apply_ads(catalogue: Catalogue, records: Sequence[Record], refused: RefusedAds | None = None) -> int:
    """Apply ``records`` of the ads topic as `take_ads` does; ``refused`` takes those refused. Returns their number."""
    refused = RefusedAds() if refused is None else refused
    failed = take_ads(catalogue, records)
    for record, reason in failed:
        refused.refuse(record, reason)
        about = {"partition": record.partition, "offset": record.offset}
        log.warning("ad refused", **about, error=reason.error, why=reason.message)
    return len(failed)


def take_ads(catalogue: Catalogue, records: Sequence[Record]) -> list[tuple[Record, Refusal]]:
    """Apply ``records`` of the ads topic: of each key the last readable one. Returns the refused ones, by offset.

    An unreadable record changes nothing: an earlier one of its key still counts. Where the catalogue refuses an ad, it
    keeps what it had. The owner finds a refused ad among the dead letters, and not in placements; other ads are not
    affected.
    """
    last: dict[bytes | None, tuple[Record, Entry | None]] = {}  # None: withdrawn
    failed: list[tuple[Record, Refusal]] = []
    for record in records:
        try:
            last[record.key] = record, _told(record)
        except UNREADABLE as error:
            failed.append((record, Refusal.of(error, record.value)))
    gone = [record for record, entry in last.values() if entry is None]
    catalogue.withdraw([(record.key or b"").decode() for record in gone], [*map(_told_ms, gone)])
    failed += _upsert(catalogue, [(record, entry) for record, entry in last.values() if entry is not None])
    return sorted(failed, key=lambda each: each[0].offset)


def _told(record: Record) -> Entry | None:
    """The entry that a record holds; None where its ad is withdrawn. Raises one of `UNREADABLE`."""
    if record.value is None:
        (record.key or b"").decode()  # raises where the key is no text: no ad has such a name
        return None
    return entry_of(read_ad(record.key, record.value))


def _told_ms(record: Record) -> int:
    """A record's own time in ms; 0 where it has none, or one that is not believed (`AHEAD_MS`)."""
    return record.timestamp if 0 < record.timestamp <= wall_ms() + AHEAD_MS else 0


def _upsert(catalogue: Catalogue, taken: Sequence[tuple[Record, Entry]]) -> list[tuple[Record, Refusal]]:
    """Upsert all in one call; if the catalogue refuses that, one by one. Returns those refused."""
    try:
        catalogue.upsert([entry for _, entry in taken], [_told_ms(record) for record, _ in taken])
    except CatalogueError as error:
        if len(taken) == 1:
            return [(taken[0][0], Refusal.of(error))]
        return [failure for each in taken for failure in _upsert(catalogue, [each])]
    return []


class _Titled(msgspec.Struct):
    title: str = ""


_decode_titled = msgspec.json.Decoder(_Titled).decode


def titles_in(records: Sequence[Record]) -> list[str]:
    """Titles of the ads in ``records``. Skips a record that is no ad: `take_ads` refuses it later."""
    titles = []
    for record in records:
        try:
            title = _decode_titled(record.value or b"{}").title
        except UNREADABLE:
            continue
        titles += [title] if len(title) <= TITLE_MAX else []
    return titles


class CatalogueFeed(TopicFeed):
    """Keeps ``catalogue`` in step with the topic."""

    def __init__(
        self,
        settings: Settings,
        compute: Compute,
        fail: Callable[[BaseException], None],
        catalogue: Catalogue,
        refused: RefusedAds,
    ) -> None:
        titles = catalogue.titles
        self._titles = titles if isinstance(titles, Titles) else None
        take, most = partial(apply_ads, catalogue, refused=refused), TITLES_PER_READ if self._titles else ADS_PER_READ
        super().__init__(settings, compute, fail, ADS, take, most)

    async def prepare(self, records: Sequence[Record]) -> None:
        """Encode the titles of ``records`` on a thread of its own: placements go on meanwhile."""
        if self._titles is not None:
            await asyncio.to_thread(self._titles.learn, titles_in(records))
