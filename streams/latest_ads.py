"""How many of the ads on the topic can be placed now: figures for ``salience doctor``.

If no ad can be shown, nobody is placed anything, yet all else looks sound: events are read, and lag is 0.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import msgspec

from scoring.catalogue import Catalogue
from streams.clock import wall_ms
from streams.decode import Record
from streams.feeds.catalogue import take_ads
from streams.reading import read_topic
from streams.refusal import Refusal
from streams.settings import Settings
from streams.topics import ADS
from streams.wire import UNREADABLE

LATEST = 20_000
"""Newest offsets read: 3.4 MB and 1.3 s of one processor, where each holds a record of 170 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Counts from the newest ``records``: ads ``known``, ads ``placeable`` now, records ``refused``.

    A refused record counts until a sound record or a tombstone follows, of the ad that its key or its value names.
    ``why``: what is wrong with the first refused; "" where there is none. ``whole``: the topic holds no other records.
    """

    records: int
    known: int
    placeable: int
    refused: int
    why: str
    whole: bool


@dataclass(slots=True)
class Stocktaking:
    """Ads taken as a worker takes them, and counted."""

    _catalogue: Catalogue = field(default_factory=Catalogue)
    _refused: dict[int, Refusal] = field(default_factory=dict)
    """Reasons of refusal by offset, in order."""
    _of: dict[bytes | None, list[int]] = field(default_factory=dict)
    """Offsets of refused records, by each ad that they may be of."""
    _records: int = 0

    def take(self, records: Sequence[Record]) -> None:
        """Take the next ``records`` of the ads topic's one partition."""
        refused = {record.offset: reason for record, reason in take_ads(self._catalogue, records)}
        for record in records:
            if reason := refused.get(record.offset):
                self._refused[record.offset] = reason
                for name in {record.key, _named(record)}:
                    self._of.setdefault(name, []).append(record.offset)
            else:
                for offset in self._of.pop(record.key, ()):
                    self._refused.pop(offset, None)
        self._records += len(records)

    def stock(self, now_ms: int, *, whole: bool) -> Stock:
        """The counts at ``now_ms``; ``whole``: whether all of the topic was taken."""
        first = next(iter(self._refused.values()), None)
        return Stock(
            records=self._records,
            known=len(self._catalogue),
            placeable=len(self._catalogue.eligible(now_ms)),
            refused=len(self._refused),
            why=f"{first.error}: {first.message}" if first else "",
            whole=whole,
        )


class _Named(msgspec.Struct):
    ad_id: str


_decode_named = msgspec.json.Decoder(_Named).decode


def _named(record: Record) -> bytes | None:
    """The ad that a record's value names, whatever else is wrong with it; the key where it names none."""
    try:
        return _decode_named(record.value or b"").ad_id.encode()
    except UNREADABLE:
        return record.key


def stock(settings: Settings) -> Stock:
    """The counts of the ads topic now. Raises what `streams.reading.read_topic` does."""
    return asyncio.run(_stock(settings))


async def _stock(settings: Settings) -> Stock:
    read = partial(read_topic, settings.bootstrap, settings.topic_prefix + ADS)
    taking, begins = Stocktaking(), math.inf
    async for records in read(latest=LATEST):
        begins = min(begins, records[0].offset)
        taking.take(records)
    # Not by the number of offsets: the topic is compacted, and a few ads sent every night reach any number.
    return taking.stock(wall_ms(), whole=await _first(read()) >= begins)


async def _first(batches: AsyncGenerator[Sequence[Record], None]) -> float:
    """The offset of the first record of one partition; infinite where there is none."""
    async with aclosing(batches):
        async for records in batches:
            return records[0].offset
    return math.inf
