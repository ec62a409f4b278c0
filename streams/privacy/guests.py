"""Who is not remembered and has a placement: noted until it has ended, so that the lane can take it back. No I/O.

Their placements would stay for ever otherwise: no row of theirs expires, the topic is compacted, and what retention
deletes ad servers are not told, who hold what they have read. Such a note is all that the lane keeps of them.
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
    """By user, when the placement of context alone ends."""

    prefix = RESERVED + b"guest/"

    def newest(self, published: Iterable[Published]) -> list[Published]:
        """Without those that end before one that stands: a late event's would take its place."""
        return [each for each in published if each.until_ms >= self.until_ms.get(each.user, 0)]

    def note(self, published: Iterable[Published]) -> None:
        """Note the guests among those of ``published``."""
        for each in published:
            if each.guest:
                self.put(each.user, each.until_ms)


def guest_key(user: bytes) -> bytes:
    """Under what the note of a person stands."""
    return Guests.prefix + user


def unremembered(decoded: Decoded, store: RowStore) -> tuple[list[bytes], Rows]:
    """Those who acted and are not to be remembered, and a row of each, ``[N]``, that holds nothing but the moment.

    When and where they acted, and up to which offsets; such a row is scored and never kept. Also of whom something is
    held, since they agreed before; but not of who in the same call agreed and is placed for that, nor for what happened
    before the newest that is held, whose placement stands.
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
    """One for each of ``forgotten`` who has not come back within the slice; the lane's own keys are no user's."""
    gone = [user for user in dict.fromkeys(forgotten) if user not in store]
    return [Message(user, None) for user in gone if not user.startswith(RESERVED)]


def placements(published: list[Published], gone: list[Message], forgotten: Iterable[bytes]) -> list[Message]:
    """What is placed; tombstones for those ``gone`` for whom nothing is, and of the ``forgotten`` who have come back.

    These may be placed nothing, as where no ad is on offer: their former placement tells what was forgotten.
    """
    left = dict.fromkeys([*(each.key for each in gone), *forgotten])
    for each in published if left else ():
        left.pop(each.user, None)
    return [Message(each.user, each.placement) for each in published] + [Message(user, None) for user in left]
