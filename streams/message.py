"""A record to be produced."""

from collections.abc import Sequence

import msgspec

Headers = tuple[tuple[str, bytes | None], ...]
"""A header may have no value."""

HEADER_BYTES = 10
"""Most bytes of a header besides its name and value: the lengths of both, as varints of up to five bytes."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """``value`` None is a tombstone; ``timestamp_ms`` None leaves the time to the broker.

    One is made per row: a Struct that the garbage collector does not track is built in a tenth of the time.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None

    @property
    def size(self) -> int:
        """Bytes of key, value and headers in a batch, at most; a record takes some fifty more."""
        return size_of(self.key, self.value, self.headers)


def size_of(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes of a record's key, value and headers: a producer may send headers of megabytes, and thousands of them."""
    size = len(key or b"") + len(value or b"")
    if not headers:  # the many rows and placements have none
        return size
    return size + sum(HEADER_BYTES + len(name.encode()) + len(told or b"") for name, told in headers)
