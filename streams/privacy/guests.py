"""Who is not remembered and has a placement: noted until it has ended, so that the lane can take it back. No I/O.

Their placements would stay for ever otherwise: no row of theirs expires, the topic is compacted, and what retention
deletes ad servers are not told, who hold what they have read. Such a note is all that the lane keeps of them.
"""

from collections.abc import Iterable

from streams.deadlines import Deadlines
from streams.placing import Published
from streams.wire import RESERVED


class Guests(Deadlines):
    """By user, when the placement of context alone ends."""

    prefix = RESERVED + b"guest/"

    def note(self, published: Iterable[Published]) -> None:
        """Note the guests among those of ``published``."""
        for each in published:
            if each.guest:
                self.put(each.user, each.until_ms)


def guest_key(user: bytes) -> bytes:
    """Under what the note of a person stands."""
    return Guests.prefix + user
