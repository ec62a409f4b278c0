"""A record to be produced."""

from collections.abc import Sequence

import msgspec

Headers = tuple[tuple[str, bytes | None], ...]
"""A header may have no value."""

HEADER_BYTES = 10
"""Of a header, beside its name and value, at most: the lengths of both, as varints of up to five bytes."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """``value`` None is a tombstone; ``timestamp_ms`` None is the broker's choice.

    One is made per row: a Struct that the garbage collector does not follow is built in a tenth of the time.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None

    @property
    def size(self) -> int:
        """Bytes of key, value and headers, as a batch holds them, at most; beside them a record has some fifty."""
        return size_of(self.key, self.value, self.headers)


def size_of(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes of a record's key, value and headers: a producer may send headers of megabytes, and thousands of them."""
    size = len(key or b"") + len(value or b"")
    if not headers:  # of rows and placements, which are many
        return size
    return size + sum(HEADER_BYTES + len(name.encode()) + len(told or b"") for name, told in headers)
