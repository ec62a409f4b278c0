"""What the latest impressions and clicks leave out: figures of a sample, for ``salience doctor``.

Malformed events become dead letters, where they can be read. A well-formed event that lacks the field that joins it to
another is applied and learnt from, a little wrongly, and nothing else reports it.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from scoring.events import EVENT, Events, Kind, Source
from scoring.rows import RowStore
from scoring.units import DAY_MS
from streams.clock import wall_ms
from streams.decode import Decoded, Record, decode, sent
from streams.identity import partitioner
from streams.reading import read_topic
from streams.settings import Settings
from streams.topic_admin import partition_counts
from streams.topics import LANE_INPUTS

PER_PARTITION = 500
"""Latest records counted of each partition: 300 KB of a topic with four partitions."""
IMPRESSIONS_MAX = 40_000
"""Most impressions read, over all partitions, to find those that clicks answer, one of fifty or fewer: 6 MB to read,
20 MB held."""
IMPRESSIONS_PER_PARTITION = 10_000
"""At most: some 200 clicks answer so many."""
LATE_SHARE = 0.05
"""Share of a partition's impressions that may have come late, and so be dated before the time that was read."""
ROUNDING_MS = 1_000
"""A look may be told longer than what has passed by so much: some round it to whole seconds."""
NEVER_MS = 365 * DAY_MS
"""Nobody answers an impression this long after it: an impression time so long before its click is in another unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counts. ``refused``: malformed; ``why`` the first was. ``ahead``: records whose own time, not their event's
    alone, is later than this machine's clock allows. ``misplaced``: in a partition that is not their user's.
    ``late``: dated so long before they were sent that lanes put them aside; ``late_ms``: when the first of them says it
    was, 0 where there is none. ``looks``: events that tell how long their impression was looked at; ``overlong``: those
    of them that tell more than had passed since it, by their own times.

    Of the ``clicks`` (no views, carts or purchases), ``answers`` name an impression. ``pairs``: of those, the clicks
    whose impression was read, too. In ``placed`` pairs both tell their surface, in ``apart`` only one does; shares over
    all clicks and all impressions would not do, since they may differ as click rates do by place. ``strays``: clicks
    whose impression would have been read if it existed, but was not; ``stray``: what the first of them says.
    """

    records: int
    refused: int
    why: str
    ahead: int
    misplaced: int
    late: int
    late_ms: int
    looks: int
    overlong: int
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

    ``users``: the users of its ``events``, then of its ``told``; ``sent_ms``: when their records were sent; ``late``:
    the times of those that come too late; ``ahead``: as `Sample` has it. ``early``: impressions before the latest. They
    serve to find what clicks answer, and are not counted: among so many, a fault in all clicks would hardly show.
    """

    read: Decoded
    lane: int
    users: Sequence[bytes | None]
    sent_ms: Sequence[int]
    late: Sequence[int]
    ahead: int
    early: bool = False


def sample(settings: Settings) -> Sample:
    """Counts of the latest records of both topics. Raises what `streams.reading.read_topic` does."""
    shown, clicks = (settings.topic_prefix + name for name in LANE_INPUTS)
    topics = {shown: Source.IMPRESSION, clicks: Source.CLICK}
    lanes = partition_counts(settings.bootstrap, topics)
    latest_ms, late_ms = wall_ms() + settings.time_tolerance_ms, settings.late_ms
    most = {shown: impressions_read(lanes.get(shown, 1)), clicks: PER_PARTITION}
    return summed(
        decoded(records, topics[records[0].topic], lanes[records[0].topic], latest_ms, late_ms, early=early)
        for whole in asyncio.run(_read(settings.bootstrap, most))
        for records, early in ((whole[-PER_PARTITION:], False), (whole[:-PER_PARTITION], True))
        if records
    )


def impressions_read(lanes: int) -> int:
    """How many impressions to read of each of ``lanes`` partitions."""
    return max(PER_PARTITION, min(IMPRESSIONS_PER_PARTITION, IMPRESSIONS_MAX // lanes))


async def _read(bootstrap: str, most: Mapping[str, int]) -> list[list[Record]]:
    """The latest records of each topic, one list per partition, of at most ``most[topic]`` offsets each."""
    out: dict[tuple[str, int], list[Record]] = {}
    for topic, latest in most.items():
        async for records in read_topic(bootstrap, topic, latest=latest):
            out.setdefault((topic, records[0].partition), []).extend(records)
    return list(out.values())


def decoded(
    records: list[Record], source: Source, lanes: int, latest_ms: int, late_ms: int, *, early: bool = False
) -> Part:
    """Decode ``records`` of one partition as a lane decodes its slice. ``late_ms``: how late a lane takes them."""
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
    late = [at_ms for at_ms, then_ms in zip(times_ms, sent_ms, strict=True) if at_ms < then_ms - late_ms]
    ahead = sum(record.timestamp > latest_ms for record in records)
    return Part(read, lane, [record.key for record in told], sent_ms, late, ahead, early)


def summed(parts: Iterable[Part]) -> Sample:
    """The counts of ``parts`` together."""
    parts = list(parts)
    held = [part.read for part in parts if not part.early]
    dead = [letter for part in held for letter in part.dead]
    misplaced = sum(len(part.misplaced) for part in held)
    late = [at_ms for part in parts if not part.early for at_ms in part.late]
    taken_back = sum(part.erased for part in held)  # by a later refusal within the sample
    found = _events(held)
    clicked = found["kind"] == Kind.CLICKED
    looked_ms = found["viewed_ms"][looks := found["answers"] & (found["viewed_ms"] > 0)]
    passed_ms = (found["time_ms"] - found["shown_ms"])[looks]
    joins = Joins.of(parts)
    return Sample(
        records=len(found) + len(dead) + misplaced + taken_back,
        refused=len(dead),
        why=f"{dead[0][2]}: {dead[0][3]}" if dead else "",
        ahead=sum(part.ahead for part in parts if not part.early),
        misplaced=misplaced,
        late=len(late),
        late_ms=late[0] if late else 0,
        looks=len(looked_ms),
        overlong=int((looked_ms > passed_ms + ROUNDING_MS).sum()),
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
    """The ``events`` of each, followed by what its strangers ``told``."""
    return np.concatenate([np.zeros(0, dtype=EVENT), *(told for one in held for told in (one.events, one.told))])


@dataclass(frozen=True, slots=True)
class Joins:
    """Clicks joined with the impressions that they answer.

    ``pairs``: for each click whose impression was read, whether the impression and the click tell their surface.
    ``strays``: how many clicks lack an impression that should have been read; ``stray`` describes the first.

    A click is a stray if an impression of its user, sent no later than the click, was read, and its own impression
    would have been read, too: the one read was of the same ad, or the time answered is within what was read of the
    partition, or so old that it is no impression's. All others may answer an impression from before what was read, or
    one that retention has deleted. The order is that of sending: the clock that dates a click may be hours off.
    """

    pairs: Sequence[tuple[bool, bool]]
    strays: int
    stray: str

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self:
        """The joins over all ``parts`` together."""
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
        lane_of: dict[bytes | None, int] = {}  # of impressions: the topics may have other numbers of partitions
        for at in shown.tolist():
            user, ad, _ = what[at]
            lane_of[user] = int(lanes[at])
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
            dated = said_ms >= begins_ms[lane_of[user]] or said_ms < clicked_ms - NEVER_MS
            if dated or first_ms.get((user, ad), math.inf) <= sent_ms[at]:
                strays.append(what[at])
        pairs = [(impressions[what[at]], placed[at]) for at in clicks if what[at] in impressions]
        return cls(pairs, len(strays), _told(strays[0], impressions) if strays else "")


def _told(stray: tuple[bytes | None, int, int], impressions: Iterable[tuple[bytes | None, int, int]]) -> str:
    """What ``stray`` says, beside the impression it may have meant: its user's nearest, of its ad if there is one."""
    user, ad, said_ms = stray
    of_user = [(other != ad, abs(at_ms - said_ms), at_ms) for whose, other, at_ms in impressions if whose == user]
    another, _, at_ms = min(of_user)
    of_ad = ", of another ad" if another else ""
    return f"impression_time_ms {said_ms}, where the nearest of its user has time_ms {at_ms}{of_ad}"
