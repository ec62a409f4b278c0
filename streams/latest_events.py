"""What the latest impressions and clicks leave out: figures of a sample, for ``salience doctor``.

What is malformed becomes a dead letter and can be read there. What is well-formed and lacks the field that joins it to
something else is taken and taught from, a little wrong, and nothing says so.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.events import EVENT, Events, Kind, Source
from scoring.rows import RowStore
from streams.clock import wall_ms
from streams.decode import Decoded, Record, decode
from streams.identity import partitioner
from streams.reading import read_topic
from streams.settings import Settings
from streams.topic_admin import partition_counts
from streams.topics import AD_IMPRESSIONS, CLICKS

PER_PARTITION = 500
"""Of each topic's partitions: 300 KB of a topic with four."""

Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counts. ``refused``: malformed; ``why`` the first was. ``misplaced``: in a partition that is not their user's.

    Of ``clicks`` (no views, carts or purchases) so many ``answer`` an impression, and of ``pairs`` of these and the
    impression that they answer both are in the sample: in so many ``placed`` both tell their surface, in so many
    ``apart`` one alone. Of all clicks and all impressions the shares may well differ, as click rates do by place.
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


@dataclass(frozen=True, slots=True)
class Part:
    """What was ``read`` of one partition of one topic. ``users``: whose its ``events`` are, then whose its ``told``."""

    read: Decoded
    users: Sequence[bytes | None]


def sample(settings: Settings) -> Sample:
    """The latest of both topics. Raises what `streams.reading.read_topic` does."""
    topics = {settings.topic_prefix + AD_IMPRESSIONS: Source.IMPRESSION, settings.topic_prefix + CLICKS: Source.CLICK}
    lanes = partition_counts(settings.bootstrap, topics)
    latest_ms = wall_ms() + settings.time_tolerance_ms
    return summed(
        decoded(records, topics[records[0].topic], lanes[records[0].topic], latest_ms)
        for records in asyncio.run(_read(settings, topics))
    )


async def _read(settings: Settings, topics: Iterable[str]) -> list[list[Record]]:
    """Records, those of a partition together."""
    out: dict[tuple[str, int], list[Record]] = {}
    for topic in topics:
        async for records in read_topic(settings.bootstrap, topic, latest=PER_PARTITION):
            out.setdefault((topic, records[0].partition), []).extend(records)
    return list(out.values())


def decoded(records: list[Record], source: Source, lanes: int, latest_ms: int) -> Part:
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
    return Part(read, [records[place].key for place in places])


def summed(parts: Iterable[Part]) -> Sample:
    """Of ``parts`` together."""
    parts = list(parts)
    held = [part.read for part in parts]
    dead = [letter for part in held for letter in part.dead]
    misplaced = sum(len(part.misplaced) for part in held)
    taken_back = sum(part.erased for part in held)  # by a no that came after, within the sample
    found = np.concatenate([np.zeros(0, dtype=EVENT), *(told for part in held for told in (part.events, part.told))])
    shown, clicked = found["source"] == Source.IMPRESSION, found["kind"] == Kind.CLICKED
    answers = clicked & found["answers"]
    pairs = _pairs([user for part in parts for user in part.users], found, shown, answers)
    return Sample(
        records=len(found) + len(dead) + misplaced + taken_back,
        refused=len(dead),
        why=f"{dead[0][2]}: {dead[0][3]}" if dead else "",
        misplaced=misplaced,
        impressions=int(shown.sum()),
        clicks=int(clicked.sum()),
        answers=int(answers.sum()),
        pairs=len(pairs),
        placed=pairs.count((True, True)),
        apart=sum(one != other for one, other in pairs),
    )


def _pairs(users: Sequence[bytes | None], found: Events, shown: Chosen, answers: Chosen) -> list[tuple[bool, bool]]:
    """Whether an impression and a click that answers it tell their surface, where both are in ``found``."""
    what = list(zip(users, found["ad"].tolist(), found["shown_ms"].tolist(), strict=True))
    placed = (found["surface"] > 0).tolist()
    impressions = {what[at]: placed[at] for at in np.flatnonzero(shown).tolist()}
    clicks = np.flatnonzero(answers).tolist()
    return [(impressions[what[at]], placed[at]) for at in clicks if what[at] in impressions]
