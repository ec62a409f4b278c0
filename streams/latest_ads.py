"""What can be placed now, of the ads that are there: figures for ``salience doctor``.

Without an ad that may be shown nobody is placed anything, and nothing else is wrong: events are read, lag is none.
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
from streams.decode import Record, Refusal
from streams.feeds.catalogue import take_ads
from streams.reading import read_topic
from streams.settings import Settings
from streams.topics import ADS
from streams.wire import UNREADABLE

LATEST = 20_000
"""Offsets read, the newest: where each holds a record of 170 bytes 3.4 MB, and 1.3 s of one processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Counts of ads by the newest ``records``: ``known``, of which so many are ``placeable`` now; records ``refused``.

    What is refused counts until a sound record, or a withdrawal, is read of the ad that its key names, or its value.
    ``why``: what is wrong with the first of these; "" where there is none. ``whole``: the topic holds no record but
    those.
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
    """By offset, in order."""
    _of: dict[bytes | None, list[int]] = field(default_factory=dict)
    """Offsets of those refused, by each ad that they may be of."""
    _records: int = 0

    def take(self, records: Sequence[Record]) -> None:
        """Take ``records`` of the ads topic's one partition, which follow those that were taken."""
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
        """What there is at ``now_ms``; ``whole``: where all of the topic was taken."""
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


def _named(record: Record) -> bytes | None:
    """The ad that a record's value names, whatever else is wrong with it; its key's where it names none."""
    try:
        return msgspec.json.decode(record.value or b"", type=_Named).ad_id.encode()
    except UNREADABLE:
        return record.key


def stock(settings: Settings) -> Stock:
    """Raises what `streams.reading.read_topic` does."""
    return asyncio.run(_stock(settings))


async def _stock(settings: Settings) -> Stock:
    read = partial(read_topic, settings.bootstrap, settings.topic_prefix + ADS)
    taking, begins = Stocktaking(), math.inf
    async for records in read(latest=LATEST):
        begins = min(begins, records[0].offset)
        taking.take(records)
    # Not by how many offsets there are: the topic is compacted, and nightly sendings of a few ads reach any number.
    return taking.stock(wall_ms(), whole=await _first(read()) >= begins)


async def _first(batches: AsyncGenerator[Sequence[Record], None]) -> float:
    """The offset of the first record of one partition; infinite where there is none."""
    async with aclosing(batches):
        async for records in batches:
            return records[0].offset
    return math.inf
