"""People in the referee's books: the place of each, and what they have done in all. No I/O."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scoring.ids import EMPTY, MISSING, IdMap, id64s
from scoring.rows import Rows
from scoring.trial import SUMS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

USERS_MAX = 2_000_000
"""Users watched: 190 bytes each, and 100 for every experiment. Later ones count nowhere, and that is counted."""
_FIRST_SLAB = 1_024
_OF_ROW = {
    "impressions": ("impressions", 1.0),
    "clicks": ("answered_clicks", 1.0),
    "conversions": ("answered_purchases", 1.0),
    "revenue_micros": ("answered_value_micros", 1.0),
    "viewed_s": ("answered_viewed_cs", 1e-2),
}
"""What is summed, by the row's counters and their unit: of what people do, what answers an impression."""
FROM_ROWS = [SUMS.index(name) for name in _OF_ROW]
"""Sums that users' rows tell; the others but the first, impressions do."""
FROM_IMPRESSIONS = [SUMS.index(name) for name in ("switches", "shown")]
"""Sums that impressions tell themselves."""
_SWITCHES, SHOWN = FROM_IMPRESSIONS


class People:
    """At most ``most`` of them, each at a place that is another's once they have left."""

    def __init__(self, most: int = USERS_MAX) -> None:
        self.most = most
        self._places = IdMap()
        self._free: list[int] = []
        """Places of people who have left."""
        self.number = 0
        """Of places that somebody has or has had; the arrays have room for more."""
        self.ids = np.zeros(_FIRST_SLAB, dtype=np.uint64)
        self.totals = np.zeros((_FIRST_SLAB, len(SUMS)))
        self.gone = np.zeros((_FIRST_SLAB, len(FROM_ROWS)))
        """What users' rows had counted that are no more: who is forgotten and comes back begins with a new row."""
        self.category = np.zeros(_FIRST_SLAB, dtype=np.uint64)
        """Of the ad that they were shown last; 0 is none that is known."""
        self.seen = np.zeros(_FIRST_SLAB, dtype=np.bool_)
        """Whether there has been a row."""
        self.unwatched = 0
        """Times that there was no place for somebody."""

    @property
    def room(self) -> int:
        """Places that there are."""
        return len(self.ids)

    def known(self, ids: Ids) -> Ints:
        """Places of people; `MISSING` of those who have none."""
        return self._places.get(ids)

    def places(self, ids: Ids) -> Ints:
        """Places of people, new ones given the next; `MISSING` beyond the bound."""
        places = self.known(ids)
        for at in np.flatnonzero(places == MISSING).tolist():
            places[at] = self._place(int(ids[at]))
        return places

    def _place(self, user: int) -> int:
        place = int(self.known(np.array([user], dtype=np.uint64))[0])
        if place != MISSING:  # twice in one call
            return place
        if not self._free and self.number >= self.most:
            self.unwatched += 1
            return MISSING
        if self._free:
            place = self._free.pop()
        else:
            place, self.number = self.number, self.number + 1
            if place == self.room:
                self._grow()
        self.ids[place] = user
        self._places.set(user, place)
        return place

    def _grow(self) -> None:
        more = max(self.room, _FIRST_SLAB)
        self.ids = np.concatenate([self.ids, np.zeros(more, dtype=np.uint64)])
        self.totals = np.concatenate([self.totals, np.zeros((more, len(SUMS)))])
        self.gone = np.concatenate([self.gone, np.zeros((more, len(FROM_ROWS)))])
        self.category = np.concatenate([self.category, np.zeros(more, dtype=np.uint64)])
        self.seen = np.concatenate([self.seen, np.zeros(more, dtype=np.bool_)])

    def show(self, place: int, category: int) -> None:
        """Count an impression, and whether its ``category`` is another than the last; 0 is none that is known."""
        last = int(self.category[place])
        self.totals[place, SHOWN] += 1
        self.totals[place, _SWITCHES] += 0 not in (category, last) and category != last
        self.category[place] = category or last

    def lifetime(self, places: Ints, counted: Floats) -> Floats:
        """What users have done in all, of what their rows have ``counted [N, columns]``.

        Counters only grow: a row with less is a new one, of a user who was idle and forgotten, and came back, also
        where compaction has taken the tombstone that tells it (`begin_anew`).
        """
        known = self.totals[places][:, FROM_ROWS]
        anew = np.any(counted + self.gone[places] < known, axis=1)  # sums of counters that never fall never do
        self.gone[places[anew]] = known[anew]
        found: Floats = counted + self.gone[places]
        return found

    def begin_anew(self, ids: Ids) -> None:
        """Let the next rows of people count from nothing, whatever they hold."""
        places = self.known(ids)
        places = places[places != MISSING]
        self.gone[places] = self.totals[places][:, FROM_ROWS]

    def forget(self, ids: Ids) -> Ints:
        """Let people leave; the places that they had, which are empty now."""
        ids = np.unique(ids)
        held = self.known(ids) != MISSING
        ids, places = ids[held], self.known(ids[held])
        for of in (self.ids, self.totals, self.gone, self.category, self.seen):
            of[places] = 0
        self._free += places.tolist()
        for user in ids.tolist():
            self._places.set(user, MISSING)
        if len(self._places) > 2 * self.number + _FIRST_SLAB:
            self._index()
        return places

    def restore(self, ids: Ids, totals: Floats, gone: Floats, category: Ids, seen: Bools) -> None:
        """Take back users as they were saved: ``ids, category, seen [U]``, ``totals [U, sums]``, ``gone [U, 5]``."""
        self.ids, self.totals, self.gone, self.category, self.seen = ids, totals, gone, category, seen
        self.number = len(ids)
        self._free = np.flatnonzero(ids == EMPTY).tolist()
        self._index()

    def _index(self) -> None:
        """Make the map of places anew: it gives up no id by itself."""
        self._places = IdMap(max(self.number, _FIRST_SLAB))
        for place in np.flatnonzero(self.ids[: self.number] != EMPTY).tolist():
            self._places.set(int(self.ids[place]), place)


def ids_of(users: Sequence[bytes]) -> Ids:
    """Ids of people by their keys."""
    return id64s([user.decode(errors="replace") for user in users])


def counted(rows: Rows) -> Floats:
    """What rows have counted, ``[N, columns]``."""
    return np.stack([rows[of] * by for of, by in _OF_ROW.values()], axis=1)
