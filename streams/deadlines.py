"""Deadlines: when something ends, as a lane keeps them in its changelog under a reserved prefix. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self

import numpy as np

from scoring.rows import USERS_MAX


class Deadlines:
    """Moments in ms by key, 140 bytes each; at most ``most``, where whoever puts them there heeds `surplus`."""

    prefix: ClassVar[bytes]
    """What their keys in the changelog begin with; the values are in ms, 8 bytes big-endian."""

    def __init__(self, until_ms: Mapping[bytes, int] | None = None, most: int = USERS_MAX) -> None:
        self.until_ms = dict(until_ms or {})
        self._most = most
        self._changed: set[bytes] = set()

    def put(self, key: bytes, until_ms: int) -> None:
        """Let ``key`` end at ``until_ms``."""
        self.until_ms[key] = until_ms
        self._changed.add(key)

    def take(self, key: bytes, value: bytes | None) -> None:
        """What a changelog tells under ``key``, with its prefix: there is nothing to tell it of that."""
        name = key.removeprefix(self.prefix)
        if value is None:
            self.until_ms.pop(name, None)
            return
        self.until_ms[name] = int.from_bytes(value, "big")
        for surplus in self.surplus():
            del self.until_ms[surplus]

    def before(self, time_ms: int) -> list[bytes]:
        """Those that end before ``time_ms``. Looks at all of them."""
        return [key for key, until_ms in self.until_ms.items() if until_ms < time_ms]

    def surplus(self) -> list[bytes]:
        """Of too many the eighth that ends first; else none."""
        if len(self.until_ms) <= self._most:
            return []
        count, keys = max(1, self._most // 8), list(self.until_ms)
        ends = np.fromiter(self.until_ms.values(), dtype=np.int64, count=len(keys))
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
            until_ms = self.until_ms.get(key)
            yield self.prefix + key, None if until_ms is None else until_ms.to_bytes(8, "big")

    def parts(self) -> dict[bytes, bytes]:
        """All of them, as the changelog holds them."""
        return {self.prefix + key: until_ms.to_bytes(8, "big") for key, until_ms in self.until_ms.items()}

    @classmethod
    def restore(cls, parts: Mapping[bytes, bytes], most: int = USERS_MAX) -> Self:
        """Those that ``parts``, what stands under the lane's reserved keys, speak of."""
        until_ms = {
            key.removeprefix(cls.prefix): int.from_bytes(value, "big")
            for key, value in parts.items()
            if key.startswith(cls.prefix)
        }
        return cls(until_ms, most)
