"""Deadlines by key, which a lane keeps in its changelog under a reserved prefix. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from struct import Struct
from typing import ClassVar, Self

import numpy as np

from scoring.rows import USERS_MAX

_LAST_MS = 1 << 50
"""Later than any time."""


class Deadlines:
    """Moments in ms by key, 140 bytes each. There are at most ``most`` if the caller drops the `surplus`."""

    prefix: ClassVar[bytes]
    """Prefix of their changelog keys; the values are in ms, 8 bytes big-endian."""
    named: ClassVar[str]
    """What one of them is called where its value is of another version."""
    layouts: ClassVar[Mapping[int, Struct]] = {8: Struct(">Q")}
    """Of the values, by their size."""

    def __init__(self, most: int = USERS_MAX) -> None:
        self.until_ms: dict[bytes, int] = {}
        self._most = most
        self._changed: set[bytes] = set()

    def put(self, key: bytes, until_ms: int) -> None:
        """Let ``key`` end at ``until_ms``."""
        self.until_ms[key] = until_ms
        self._changed.add(key)

    def before(self, time_ms: int) -> list[bytes]:
        """The keys that end before ``time_ms``. It looks at all keys."""
        return [key for key, until_ms in self.until_ms.items() if until_ms < time_ms]

    @property
    def too_many(self) -> bool:
        """Whether there are more than the bound."""
        return len(self.until_ms) > self._most

    def surplus(self, last: AbstractSet[bytes] = frozenset()) -> list[bytes]:
        """Where there are too many, the keys to drop, an eighth of the bound or more; else none.

        Those that end first go first, but those in ``last`` only after all others.
        """
        if not self.too_many:
            return []
        keys = list(self.until_ms)
        count = max(len(keys) - self._most, self._most // 8)
        ends = np.fromiter(self.until_ms.values(), dtype=np.int64, count=len(keys))
        ends[np.fromiter((key in last for key in keys), dtype=np.bool_, count=len(keys))] += _LAST_MS
        return [keys[at] for at in np.argpartition(ends, count)[:count].tolist()]

    def drop(self, keys: Iterable[bytes]) -> list[bytes]:
        """Forget ``keys``; return those that were held."""
        gone = [key for key in keys if self.until_ms.pop(key, None) is not None]
        self._changed.update(gone)
        return gone

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Changelog keys and values that have changed since the last call, in the order of the keys."""
        changed, self._changed = sorted(self._changed), set()
        for key in changed:
            yield self.prefix + key, self._told(key) if key in self.until_ms else None

    def parts(self) -> dict[bytes, bytes]:
        """All of them, as the changelog holds them."""
        return {self.prefix + key: self._told(key) for key in self.until_ms}

    @classmethod
    def restore(cls, parts: Mapping[bytes, bytes], most: int = USERS_MAX) -> Self:
        """The deadlines among ``parts``, the changelog values under the lane's reserved keys.

        Raises `ValueError` where a value has another size: to misread it would be worse than to stop.
        """
        out = cls(most)
        for key, value in parts.items():
            if key.startswith(cls.prefix):
                out._read(key.removeprefix(cls.prefix), value)
        return out

    def _told(self, key: bytes) -> bytes:
        """The changelog's value for ``key``, which must be held."""
        return self.until_ms[key].to_bytes(8, "big")

    def _read(self, key: bytes, value: bytes) -> None:
        """Hold ``key`` with the changelog's ``value``. Raises `ValueError` as `times` does."""
        (self.until_ms[key],) = self.times(value)

    @classmethod
    def times(cls, value: bytes) -> tuple[int, ...]:
        """The times in a changelog's ``value``. Raises `ValueError` where it is of another version's layout."""
        layout = cls.layouts.get(len(value))
        if layout is None:
            known = " and ".join(map(str, cls.layouts))
            raise ValueError(f"{cls.named} has {len(value)} bytes; the layouts that this version reads have {known}")
        return layout.unpack(value)
