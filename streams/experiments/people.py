"""People that the referee watches: each one's place in its arrays, and the sums of what they did. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.ids import EMPTY, MISSING, IdMap, id64s
from scoring.rows import Rows
from scoring.trial import SUMS

USERS_MAX = 2_000_000
"""Users watched: 190 bytes each, and 100 more for each experiment. Users beyond are only counted (`unwatched`)."""
ROOM = 50_000
"""Places that are made free at once: a few tenths of a second, and enough for a while."""
_FIRST_SLAB = 1_024
_OF_ROW = {
    "impressions": ("impressions", 1.0),
    "clicks": ("answered_clicks", 1.0),
    "conversions": ("answered_purchases", 1.0),
    "revenue_micros": ("answered_value_micros", 1.0),
    "viewed_s": ("answered_viewed_cs", 1e-2),
}
"""By sum, the row's counter and the factor to its unit: only actions that answer an impression count."""
FROM_ROWS = [SUMS.index(name) for name in _OF_ROW]
"""Sums that come from users' rows."""
FROM_IMPRESSIONS = [SUMS.index(name) for name in ("switches", "shown")]
"""Sums that come from the impressions themselves."""
_SWITCHES, SHOWN = FROM_IMPRESSIONS
ARRAYS = ("ids", "totals", "gone", "category", "seen")
"""Of `People`, by place."""


class People:
    """At most ``most`` people. Each has a place, which somebody else may get once they have left."""

    def __init__(self, most: int = USERS_MAX) -> None:
        self.most = most
        self._places = IdMap()
        self._free: list[int] = []
        """Places of people who have left."""
        self.number = 0
        """Number of places that somebody has or has had; the arrays have room for more."""
        self.ids = np.zeros(_FIRST_SLAB, dtype=np.uint64)
        self.totals = np.zeros((_FIRST_SLAB, len(SUMS)))
        self.gone = np.zeros((_FIRST_SLAB, len(FROM_ROWS)))
        """What users' former rows had counted: a user who was idle, and comes back, begins with a new row."""
        self.category = np.zeros(_FIRST_SLAB, dtype=np.uint64)
        """Category of the ad shown last; 0 where it is not known."""
        self.seen = np.zeros(_FIRST_SLAB, dtype=np.bool_)
        """Whether a row has come."""
        self.unwatched = 0
        """Times that there was no place left for somebody."""

    @property
    def room(self) -> int:
        """Length of the arrays."""
        return len(self.ids)

    @property
    def left(self) -> int:
        """How many people there is a place for."""
        return len(self._free) + self.most - self.number

    def idle(self) -> Bools:
        """Whose rows have counted nothing since their last one expired, ``[U]``: the past of others is still needed."""
        size = self.number
        done = (self.totals[:size, FROM_ROWS] == self.gone[:size]).all(axis=1)
        found: Bools = done & self.seen[:size] & (self.ids[:size] != EMPTY)
        return found

    def known(self, ids: Ids) -> Ints:
        """Places of people; `MISSING` for those who have none."""
        return self._places.get(ids)

    def places(self, ids: Ids) -> Ints:
        """Places of people; new people get one, or `MISSING` beyond the bound."""
        places = self.known(ids)
        for at in np.flatnonzero(places == MISSING).tolist():
            places[at] = self._place(int(ids[at]))
        return places

    def _place(self, user: int) -> int:
        place = int(self.known(np.array([user], dtype=np.uint64))[0])
        if place != MISSING:  # the same user twice in one call
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
        for name in ARRAYS:
            held = getattr(self, name)
            setattr(self, name, np.concatenate([held, np.zeros((more, *held.shape[1:]), held.dtype)]))

    def show(self, place: int, category: int) -> None:
        """Count an impression, and whether its ``category`` differs from the last; 0 is an unknown category."""
        last = int(self.category[place])
        self.totals[place, SHOWN] += 1
        self.totals[place, _SWITCHES] += 0 not in (category, last) and category != last
        self.category[place] = category or last

    def lifetime(self, places: Ints, counted: Floats) -> Floats:
        """Users' sums over all their rows, when the present rows have ``counted [N, columns]``.

        Counters only grow. So a row with less is a new one, of a user whose row had expired and who came back. A
        tombstone tells the same (`begin_anew`), but compaction may have taken it.
        """
        known = self.totals[places][:, FROM_ROWS]
        anew = np.any(counted + self.gone[places] < known, axis=1)  # within one row, these sums never fall
        self.gone[places[anew]] = known[anew]
        found: Floats = counted + self.gone[places]
        return found

    def begin_anew(self, ids: Ids) -> None:
        """Let the next rows of people count from 0, whatever they hold."""
        places = self.known(ids)
        places = places[places != MISSING]
        self.gone[places] = self.totals[places][:, FROM_ROWS]

    def forget(self, ids: Ids) -> Ints:
        """Let people leave. Returns the places that they had, which are empty now."""
        ids = np.unique(ids)
        held = self.known(ids) != MISSING
        ids, places = ids[held], self.known(ids[held])
        for name in ARRAYS:
            getattr(self, name)[places] = 0
        self._free += places.tolist()
        self._places.drop(ids)
        return places

    def restore(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take back users as they were saved, all of `ARRAYS` by name."""
        for name in ARRAYS:
            setattr(self, name, saved[name])
        self.number = len(self.ids)
        self._free = np.flatnonzero(self.ids == EMPTY).tolist()
        self._places = IdMap(max(self.number, _FIRST_SLAB))
        for place in np.flatnonzero(self.ids[: self.number] != EMPTY).tolist():
            self._places.set(int(self.ids[place]), place)


def ids_of(users: Sequence[bytes]) -> Ids:
    """Ids of people by their keys."""
    return id64s([user.decode(errors="replace") for user in users])


def counted(rows: Rows) -> Floats:
    """What rows have counted, ``[N, columns]``."""
    return np.stack([rows[of] * by for of, by in _OF_ROW.values()], axis=1)
