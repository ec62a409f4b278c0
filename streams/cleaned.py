"""Clicks read from their topic, without those that no worker counts: for commands that know only some people's.

The rules are the workers' (`scoring.cleaning`) but for one: answers to impressions that never were pass, since only
the impressions would show them. A lane's time is that of its clicks alone, so that a window may begin a little later.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from scoring.arrays import Ids
from scoring.cleaning import COUNT_MAX, Rules, clean
from scoring.events import Outcome, Source
from scoring.ids import id64s
from scoring.order import FOREVER, stream_times
from scoring.rows import RowStore
from streams.columns import columns
from streams.decode import Record, valid
from streams.wire import Click


@dataclass(slots=True)
class _Lane:
    """The people of one partition: somebody whom a wrong partitioner has put into two is two people."""

    store: RowStore = field(default_factory=RowStore)
    now_ms: int = 0


class Cleaned:
    """Judges clicks by ``rules``.

    None may be newer than ``latest_ms``, or answer an impression of more than ``window_ms`` before (0: of any time).
    """

    def __init__(self, rules: Rules = Rules(), latest_ms: int = FOREVER, window_ms: int = 0) -> None:
        self._rules = replace(rules, unshown_per_day=COUNT_MAX)
        self._latest_ms, self._window_ms = latest_ms, window_ms or FOREVER
        self._lanes: defaultdict[int, _Lane] = defaultdict(_Lane)

    def take(self, records: Sequence[Record], people: Ids) -> Iterator[tuple[Click, bool]]:
        """What ``people``, by their 64-bit ids, did by ``records`` of one partition, and whether each event counts.

        Only they take memory: a row, 1 KiB, each who did something. They may be as many as a store holds, no more.
        """
        lane = self._lanes[records[0].partition]
        record_ms = np.array([record.timestamp for record in records], dtype=np.int64)
        stream_ms = stream_times(record_ms, lane.now_ms, self._latest_ms)
        lane.now_ms = int(stream_ms[-1])
        places, events = valid(Source.CLICK, records, self._latest_ms)
        theirs = np.isin(id64s([event.user_id for event in events]), people)
        told = [event for event, is_theirs in zip(events, theirs.tolist(), strict=True) if is_theirs]
        if not told:
            return
        users = [event.user_id.encode() for event in told]
        lane.store.add([user for user in dict.fromkeys(users) if user not in lane.store])
        table, places = columns(told, lane.store.find_all(users).tolist()), places[theirs]
        table["stream_ms"], table["offset"] = stream_ms[places], [records[at].offset for at in places.tolist()]
        counts = clean(lane.store.rows, table, self._rules) == Outcome.APPLIED
        counts &= table["stream_ms"] - table["shown_ms"] <= self._window_ms
        yield from zip(cast("list[Click]", told), counts.tolist(), strict=True)
