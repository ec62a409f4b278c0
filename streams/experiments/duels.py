"""Credits clicks on interleaved placements to the ranking that picked the ad. No I/O.

An impression has its placement and slot, which tell the ranking. Its outcome has neither, and comes later or, since it
is read from another topic, a moment earlier. So impressions wait here for their outcomes.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from scoring.ids import id64
from scoring.interleaving import Duel, picks
from streams.oldest import give_up_oldest

PENDING_MAX = 1_000_000
"""Impressions whose outcome is not known yet, some 200 bytes each; beyond, the oldest are dropped."""
EARLY_MAX = 100_000
"""Clicked outcomes whose impression has not been read; except for the last moment's, they are of other placements."""


class Drafted(NamedTuple):
    """An impression of experiment ``number``: the person's place, and which ranking picked (`scoring.interleaving`)."""

    number: int
    person: int
    side: int


def side_of(placement_id: str, slot: int) -> int:
    """Which ranking picked the ad in a slot of an interleaved placement."""
    seed = np.array([id64(placement_id.partition(".")[0])], dtype=np.uint64)
    return int(picks(seed, slot + 1)[0, slot])


def showing_of(event: str, ad_id: str, shown_ms: int) -> int:
    """The key that joins an impression and its outcome; ``event``: the impression's id as its outcome has it.

    The event's id is not enough: an outcome names no person, and event ids may repeat between people.
    """
    return id64(f"{event} {shown_ms} {ad_id}")


class Credits:
    """Impressions by their `showing_of`, until their outcomes come."""

    def __init__(self) -> None:
        self.pending: dict[int, Drafted] = {}
        self.early: dict[int, None] = {}
        """Clicked outcomes that came before their impressions."""

    def show(self, duel: Duel, showing: int, drafted: Drafted) -> None:
        """Take an impression; if its click came first, credit it now."""
        duel.show(drafted.person)
        if showing in self.early:
            del self.early[showing]
            duel.take(drafted.person, drafted.side)
            return
        self.pending[showing] = drafted
        give_up_oldest(self.pending, PENDING_MAX)

    def give_up(self, number: int) -> None:
        """Drop the waiting impressions of an experiment."""
        self.pending = {at: drafted for at, drafted in self.pending.items() if drafted.number != number}

    def forget(self, people: Collection[int]) -> None:
        """Drop the waiting impressions of these people."""
        if any(drafted.person in people for drafted in self.pending.values()):
            self.pending = {at: drafted for at, drafted in self.pending.items() if drafted.person not in people}

    def settle(self, showing: int, *, clicked: bool) -> Drafted | None:
        """Take an outcome. Returns the impression to be credited for it, if there is one."""
        drafted = self.pending.pop(showing, None)
        if drafted is None and clicked:
            self.early[showing] = None
            give_up_oldest(self.early, EARLY_MAX)
        return drafted if clicked else None
