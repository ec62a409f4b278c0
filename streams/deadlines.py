"""Deadlines: when something ends, as a lane keeps them in its changelog under a reserved prefix. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import ClassVar, Self

import numpy as np

from scoring.rows import USERS_MAX

_LAST_MS = 1 << 50
"""Beyond every time."""


class Deadlines:
    """Moments in ms by key, 140 bytes each; at most ``most``, where whoever puts them there heeds `surplus`."""

    prefix: ClassVar[bytes]
    """What their keys in the changelog begin with; the values are in ms, 8 bytes big-endian."""

    def __init__(self, most: int = USERS_MAX) -> None:
        self.until_ms: dict[bytes, int] = {}
        self._most = most
        self._changed: set[bytes] = set()

    def put(self, key: bytes, until_ms: int) -> None:
        """Let ``key`` end at ``until_ms``."""
        self.until_ms[key] = until_ms
        self._changed.add(key)

    def before(self, time_ms: int) -> list[bytes]:
        """Those that end before ``time_ms``. Looks at all of them."""
        return [key for key, until_ms in self.until_ms.items() if until_ms < time_ms]

    @property
    def too_many(self) -> bool:
        """Whether there are more than there may be."""
        return len(self.until_ms) > self._most

    def surplus(self, last: AbstractSet[bytes] = frozenset()) -> list[bytes]:
        """Of too many an eighth at least, that ends first, though ``last`` after all others; else none."""
        if not self.too_many:
            return []
        keys = list(self.until_ms)
        count = max(len(keys) - self._most, self._most // 8)
        ends = np.fromiter(self.until_ms.values(), dtype=np.int64, count=len(keys))
        ends[np.fromiter((key in last for key in keys), dtype=np.bool_, count=len(keys))] += _LAST_MS
        return [keys[at] for at in np.argpartition(ends, count)[:count].tolist()]

    def drop(self, keys: Iterable[bytes]) -> list[bytes]:
        """Forget ``keys``; those that were there."""
        gone = [key for key in keys if self.until_ms.pop(key, None) is not None]
        self._changed.update(gone)
        return gone

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Changelog keys and values of what has changed since the last call, in the order of the keys."""
        changed, self._changed = sorted(self._changed), set()
        for key in changed:
            yield self.prefix + key, self._told(key) if key in self.until_ms else None

    def parts(self) -> dict[bytes, bytes]:
        """All of them, as the changelog holds them."""
        return {self.prefix + key: self._told(key) for key in self.until_ms}

    @classmethod
    def restore(cls, parts: Mapping[bytes, bytes], most: int = USERS_MAX) -> Self:
        """Those that ``parts``, what stands under the lane's reserved keys, speak of."""
        out = cls(most)
        for key, value in parts.items():
            if key.startswith(cls.prefix):
                out._read(key.removeprefix(cls.prefix), value)
        return out

    def _told(self, key: bytes) -> bytes:
        """The changelog's value of ``key``, which is held."""
        return self.until_ms[key].to_bytes(8, "big")

    def _read(self, key: bytes, value: bytes) -> None:
        """Hold what a changelog's ``value`` tells of ``key``."""
        self.until_ms[key] = int.from_bytes(value, "big")
