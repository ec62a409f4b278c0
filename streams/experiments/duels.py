"""Which ranking had picked what was clicked: impressions of interleaved placements, until their outcomes come. No I/O.

An impression tells its placement and slot, and with them whose turn it was; its outcome, which tells neither, comes
later or, read from another topic, a moment earlier.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from scoring.ids import id64
from scoring.interleaving import Duel, picks
from streams.oldest import give_up_oldest

PENDING_MAX = 1_000_000
"""Impressions whose outcome is not known, some 200 bytes each; beyond, the oldest are given up."""
EARLY_MAX = 100_000
"""Clicked outcomes whose impression has not been read; all but a moment's are of no interleaved placement."""


class Drafted(NamedTuple):
    """An impression of experiment ``number``: whose it was, and which ranking (`scoring.interleaving`) had picked."""

    number: int
    person: int
    side: int


def side_of(placement_id: str, slot: int) -> int:
    """Which ranking picked for a slot of an interleaved placement."""
    seed = np.array([id64(placement_id.partition(".")[0])], dtype=np.uint64)
    return int(picks(seed, slot + 1)[0, slot])


def showing_of(event: str, ad_id: str, shown_ms: int) -> int:
    """By what an impression and its outcome know each other; ``event``: the impression's, as its outcome tells it.

    An outcome names no person, and producers may count their events for each person anew.
    """
    return id64(f"{event} {shown_ms} {ad_id}")


class Credits:
    """Impressions by `showing_of` them, until their outcomes come."""

    def __init__(self) -> None:
        self.pending: dict[int, Drafted] = {}
        self.early: dict[int, None] = {}
        """Clicked outcomes that came before their impressions."""

    def show(self, duel: Duel, showing: int, drafted: Drafted) -> None:
        """Take an impression; its click is credited here where it was known before."""
        duel.show(drafted.person)
        if showing in self.early:
            del self.early[showing]
            duel.take(drafted.person, drafted.side)
            return
        self.pending[showing] = drafted
        give_up_oldest(self.pending, PENDING_MAX)

    def give_up(self, number: int) -> None:
        """Wait no more for the outcomes of an experiment's impressions."""
        self.pending = {at: drafted for at, drafted in self.pending.items() if drafted.number != number}

    def forget(self, people: Collection[int]) -> None:
        """Wait no more for the outcomes of people's impressions."""
        if any(drafted.person in people for drafted in self.pending.values()):
            self.pending = {at: drafted for at, drafted in self.pending.items() if drafted.person not in people}

    def settle(self, showing: int, *, clicked: bool) -> Drafted | None:
        """Take an outcome; the impression that is to be credited for it, if there is one."""
        drafted = self.pending.pop(showing, None)
        if drafted is None and clicked:
            self.early[showing] = None
            give_up_oldest(self.early, EARLY_MAX)
        return drafted if clicked else None
