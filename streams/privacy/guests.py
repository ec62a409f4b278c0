"""Guests: people who have a placement but are not remembered. A note of each tells when that placement ends. No I/O.

With the note the lane withdraws the placement; otherwise it would stay for ever: a guest has no row that expires, the
topic is compacted, and ad servers keep what they have read and do not learn what retention deletes. The note is all
that the lane keeps of a guest.
"""

from collections.abc import Iterable

import numpy as np

from scoring.rows import ROW, Rows, RowStore
from streams.deadlines import Deadlines
from streams.decode import Decoded
from streams.message import Message
from streams.placing import Published
from streams.wire import RESERVED


class Guests(Deadlines):
    """By user, when their placement, of context alone, ends."""

    prefix = RESERVED + b"guest/"
    named = "a guest's note"

    def newest(self, published: Iterable[Published]) -> list[Published]:
        """``published`` without what ends before the user's standing placement: a late event must not replace that."""
        return [each for each in published if each.until_ms >= self.until_ms.get(each.user, 0)]

    def note(self, published: Iterable[Published]) -> None:
        """Note the guests among those of ``published``."""
        for each in published:
            if each.guest:
                self.put(each.user, each.until_ms)


def guest_key(user: bytes) -> bytes:
    """The key of a person's note in a changelog."""
    return Guests.prefix + user


def unremembered(decoded: Decoded, store: RowStore) -> tuple[list[bytes], Rows]:
    """The users who acted without consent, and a row of each, ``[N]``, that holds nothing but the moment.

    A row tells when and where the user acted, and up to which offsets; it is scored and never kept. Users who agreed
    before, and so have a row in ``store``, are included, with two exceptions: those who also agreed in this call are
    placed for that; an event before the newest in the stored row is skipped, since the placement for that row stands.
    """
    places: dict[bytes, int] = {}
    agreed = {*decoded.events["row"].tolist()} if decoded.strangers else set()
    for (user, _), time_ms in zip(decoded.strangers, decoded.told["time_ms"].tolist(), strict=True):
        held = store.find(user)
        if held < 0 or (held not in agreed and store.rows["time_ms"][held] <= time_ms):
            places.setdefault(user, len(places))
    rows = np.zeros(len(places), dtype=ROW)
    rows["offset"] = -1
    for (user, _), event in zip(decoded.strangers, decoded.told, strict=True):
        if (place := places.get(user)) is not None:
            row = rows[place]
            row["offset"][event["source"]] = event["offset"]
            row["time_ms"] = max(row["time_ms"], event["time_ms"])
            row["surface"] = event["surface"] or row["surface"]
    return list(places), rows


def tombstones(store: RowStore, forgotten: Iterable[bytes]) -> list[Message]:
    """A tombstone for each of ``forgotten`` who has not come back within the slice; the lane's own keys are skipped."""
    gone = [user for user in dict.fromkeys(forgotten) if user not in store]
    return [Message(user, None) for user in gone if not user.startswith(RESERVED)]


def placements(published: list[Published], gone: list[Message], forgotten: Iterable[bytes]) -> list[Message]:
    """The ``published`` placements, and tombstones for those of ``gone`` and ``forgotten`` who get none.

    A ``forgotten`` user who has come back may get none, as where no ad is on offer. The tombstone is needed then, too:
    the former placement tells what was forgotten.
    """
    left = dict.fromkeys([*(each.key for each in gone), *forgotten])
    for each in published if left else ():
        left.pop(each.user, None)
    return [Message(each.user, each.placement) for each in published] + [Message(user, None) for user in left]
