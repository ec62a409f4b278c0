"""What the latest impressions and clicks leave out: figures of a sample, for ``salience doctor``.

What is malformed becomes a dead letter and can be read there. What is well-formed and lacks the field that joins it to
something else is taken and taught from, a little wrong, and nothing says so.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from scoring.events import EVENT, Events, Kind, Source
from scoring.rows import RowStore
from streams.clock import wall_ms
from streams.decode import Decoded, Record, decode, sent
from streams.identity import partitioner
from streams.reading import read_topic
from streams.settings import Settings
from streams.topic_admin import partition_counts
from streams.topics import LANE_INPUTS

PER_PARTITION = 500
"""Of each topic's partitions: 300 KB of a topic with four."""
IMPRESSIONS_MAX = 40_000
"""Of all partitions together, to find those that clicks answer, one of fifty or fewer: 6 MB to be read, 20 MB held."""
IMPRESSIONS_PER_PARTITION = 10_000
"""At most: some 200 clicks answer as many."""
LATE_SHARE = 0.05
"""Of a partition's impressions, so many may have been long on their way, and are from before what was read."""
NEVER_MS = 365 * 86_400_000
"""After an impression, when nobody answers it any more: what is dated so long before its click is in other units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counts. ``refused``: malformed; ``why`` the first was. ``misplaced``: in a partition that is not their user's.

    Of ``clicks`` (no views, carts or purchases) so many ``answer`` an impression, and of ``pairs`` of these and the
    impression that they answer both were read: in so many ``placed`` both tell their surface, in so many ``apart`` one
    alone. Of all clicks and all impressions the shares may well differ, as click rates do by place. So many are
    ``strays``: what they answer would have been read if it were there, and was not; what the first, ``stray``, says.
    """

    records: int
    refused: int
    why: str
    misplaced: int
    impressions: int
    clicks: int
    answers: int
    pairs: int
    placed: int
    apart: int
    strays: int
    stray: str


@dataclass(frozen=True, slots=True)
class Part:
    """What was ``read`` of one partition, ``lane``, of one topic.

    ``users``: whose its ``events`` are, then whose its ``told``; ``sent_ms``: when their records were sent. ``early``:
    impressions before the latest. They are there for the clicks that answer them, and not counted: among them what is
    wrong with all clicks would be next to nothing.
    """

    read: Decoded
    lane: int
    users: Sequence[bytes | None]
    sent_ms: Sequence[int]
    early: bool = False


def sample(settings: Settings) -> Sample:
    """The latest of both topics. Raises what `streams.reading.read_topic` does."""
    shown, clicks = (settings.topic_prefix + name for name in LANE_INPUTS)
    topics = {shown: Source.IMPRESSION, clicks: Source.CLICK}
    lanes = partition_counts(settings.bootstrap, topics)
    latest_ms = wall_ms() + settings.time_tolerance_ms
    most = {shown: impressions_read(lanes.get(shown, 1)), clicks: PER_PARTITION}
    return summed(
        decoded(records, topics[records[0].topic], lanes[records[0].topic], latest_ms, early=early)
        for whole in asyncio.run(_read(settings.bootstrap, most))
        for records, early in ((whole[-PER_PARTITION:], False), (whole[:-PER_PARTITION], True))
        if records
    )


def impressions_read(lanes: int) -> int:
    """Of each of so many partitions."""
    return max(PER_PARTITION, min(IMPRESSIONS_PER_PARTITION, IMPRESSIONS_MAX // lanes))


async def _read(bootstrap: str, most: Mapping[str, int]) -> list[list[Record]]:
    """Records, those of a partition together; of each topic's partitions the latest, so many at ``most``."""
    out: dict[tuple[str, int], list[Record]] = {}
    for topic, latest in most.items():
        async for records in read_topic(bootstrap, topic, latest=latest):
            out.setdefault((topic, records[0].partition), []).extend(records)
    return list(out.values())


def decoded(records: list[Record], source: Source, lanes: int, latest_ms: int, *, early: bool = False) -> Part:
    """As a lane decodes its slice."""
    belongs, lane = partitioner(lanes), records[0].partition
    read = decode(
        records,
        np.full(len(records), source, dtype=np.uint8),
        RowStore(),
        latest_ms=latest_ms,
        belongs_here=lambda key: belongs(key) == lane,
    )
    places = [*read.places.tolist(), *(place for _, place in read.strangers)]
    told = [records[place] for place in places]
    times_ms = _events([read])["time_ms"].tolist()
    sent_ms = [sent(record, at_ms, latest_ms) for record, at_ms in zip(told, times_ms, strict=True)]
    return Part(read, lane, [record.key for record in told], sent_ms, early)


def summed(parts: Iterable[Part]) -> Sample:
    """Of ``parts`` together."""
    parts = list(parts)
    held = [part.read for part in parts if not part.early]
    dead = [letter for part in held for letter in part.dead]
    misplaced = sum(len(part.misplaced) for part in held)
    taken_back = sum(part.erased for part in held)  # by a no that came after, within the sample
    found = _events(held)
    clicked = found["kind"] == Kind.CLICKED
    joins = Joins.of(parts)
    return Sample(
        records=len(found) + len(dead) + misplaced + taken_back,
        refused=len(dead),
        why=f"{dead[0][2]}: {dead[0][3]}" if dead else "",
        misplaced=misplaced,
        impressions=int((found["source"] == Source.IMPRESSION).sum()),
        clicks=int(clicked.sum()),
        answers=int((clicked & found["answers"]).sum()),
        pairs=len(joins.pairs),
        placed=joins.pairs.count((True, True)),
        apart=sum(one != other for one, other in joins.pairs),
        strays=joins.strays,
        stray=joins.stray,
    )


def _events(held: Iterable[Decoded]) -> Events:
    """Of each its ``events``, then what its strangers ``told``."""
    return np.concatenate([np.zeros(0, dtype=EVENT), *(told for one in held for told in (one.events, one.told))])


@dataclass(frozen=True, slots=True)
class Joins:
    """Clicks put to the impressions that they answer.

    ``pairs``: of each that found its own, whether the impression and the click tell their surface. ``strays`` found
    none, ``stray`` tells of the first. An answer is one if an impression of its user was read that its click may have
    followed, and its own would have been read, too: that one was of the same ad, or it is dated within what was read of
    the partition, or no time of an impression at all. All others may answer what came before, or is kept no longer.
    What followed is told by when records were sent: the clock that dates a click may be hours off.
    """

    pairs: Sequence[tuple[bool, bool]]
    strays: int
    stray: str

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self:
        """Of all ``parts`` together."""
        found = _events([part.read for part in parts])
        users = [user for part in parts for user in part.users]
        lanes = np.repeat([part.lane for part in parts], [len(part.users) for part in parts])
        shown = np.flatnonzero(found["source"] == Source.IMPRESSION)
        clicks = np.flatnonzero((found["kind"] == Kind.CLICKED) & found["answers"]).tolist()
        what = list(zip(users, found["ad"].tolist(), found["shown_ms"].tolist(), strict=True))
        placed = (found["surface"] > 0).tolist()
        impressions = {what[at]: placed[at] for at in shown.tolist()}
        sent_ms = [at_ms for part in parts for at_ms in part.sent_ms]
        first_ms: dict[tuple[bytes | None, int | None], int] = {}
        for at in shown.tolist():
            user, ad, _ = what[at]
            for of in ((user, ad), (user, None)):  # None: of any ad
                first_ms[of] = min(sent_ms[at], first_ms.get(of, sent_ms[at]))
        begins_ms = {
            lane: np.quantile(found["shown_ms"][shown[lanes[shown] == lane]], LATE_SHARE)
            for lane in np.unique(lanes[shown]).tolist()
        }
        strays = []
        for at in clicks:
            (user, ad, said_ms), clicked_ms = what[at], int(found["time_ms"][at])
            if what[at] in impressions or first_ms.get((user, None), math.inf) > sent_ms[at]:
                continue
            dated = said_ms >= begins_ms[lanes[at]] or said_ms < clicked_ms - NEVER_MS
            if dated or first_ms.get((user, ad), math.inf) <= sent_ms[at]:
                strays.append(what[at])
        pairs = [(impressions[what[at]], placed[at]) for at in clicks if what[at] in impressions]
        return cls(pairs, len(strays), _told(strays[0], impressions) if strays else "")


def _told(stray: tuple[bytes | None, int, int], impressions: Iterable[tuple[bytes | None, int, int]]) -> str:
    """What an answer says, beside the impression that it may have meant: of its ad, if there is any, the nearest."""
    user, ad, said_ms = stray
    of_user = [(other != ad, abs(at_ms - said_ms), at_ms) for whose, other, at_ms in impressions if whose == user]
    another, _, at_ms = min(of_user)
    of_ad = ", of another ad" if another else ""
    return f"impression_time_ms {said_ms}, where the nearest of its user has time_ms {at_ms}{of_ad}"
