"""Each person's newest placement, from which "why this ad?" starts. No I/O."""

from collections import OrderedDict
from itertools import islice

import msgspec

from streams.console.flow import Placed

PEOPLE_MAX = 100_000
"""About 0.5 KB each. Beyond it, the people placed longest ago are dropped."""
RECENT = 20
"""People offered to pick from."""


class Found(msgspec.Struct, frozen=True):
    """A person's newest placement, and its lane."""

    placed: Placed
    lane: int


class People:
    """The newest placement of each of at most `PEOPLE_MAX` people."""

    def __init__(self, people_max: int = PEOPLE_MAX) -> None:
        self._max = people_max
        self._held: OrderedDict[str, Found] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, found: Found) -> None:
        """Add a newer placement."""
        self._held[found.placed.user_id] = found
        self._held.move_to_end(found.placed.user_id)
        if len(self._held) > self._max:
            self._held.popitem(last=False)

    def forget(self, user: str) -> None:
        """Forget a person, on a tombstone."""
        self._held.pop(user, None)

    def leave(self, lane: int) -> None:
        """Forget everybody of a lane: records were skipped, and some may have been tombstones."""
        for user in [user for user, found in self._held.items() if found.lane == lane]:
            del self._held[user]

    def find(self, user: str) -> Found | None:
        """The person's newest placement."""
        return self._held.get(user)

    def recent(self) -> list[str]:
        """Those placed last, newest first, whose placement left a receipt."""
        told = (user for user, found in reversed(self._held.items()) if not found.placed.context_only)
        return list(islice(told, RECENT))
