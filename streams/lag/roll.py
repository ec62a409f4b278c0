"""Which groups are missed: a broker that is away may take groups with it, and no other one says so. No I/O.

Times are milliseconds of one clock that never goes back.
"""

import math
from collections.abc import Collection

SETTLE_MS = 30_000
"""A group that moves is listed by neither broker for some seconds; then the new one says that it reads of it."""
AWAY_MS = 6 * 3_600_000
"""After so long a broker is taken for removed, and a group for deleted: whoever was to mend it has known for hours."""
MISSED_MAX = 2_000
"""Groups that are missed, those last listed: of names that come and go there is no end while a broker is away."""


class Roll:
    """The brokers and groups that there were. A group that is not listed although every broker is there was deleted."""

    def __init__(self) -> None:
        self._nodes = dict[int, int]()
        self._groups = dict[str, int]()
        """When each was last there."""
        self._short_ms = -math.inf
        """When a broker was last away."""
        self.short = False
        """Whether one is, or its groups have not settled yet: else those that are missed move, or were deleted."""

    def missed(self, now_ms: int, nodes: Collection[int], groups: Collection[str], *, whole: bool) -> set[str]:
        """Groups known before that are not among those listed now, and may yet be.

        ``nodes``: the numbers of the brokers that are there. ``whole``: whether all of them listed their groups.
        """
        recent = {node: at_ms for node, at_ms in self._nodes.items() if now_ms - at_ms <= AWAY_MS}
        self._nodes = recent | dict.fromkeys(nodes, now_ms)
        if not whole or len(nodes) < len(self._nodes):
            self._short_ms = now_ms
        self.short = now_ms - self._short_ms <= SETTLE_MS
        missed = {
            name: at_ms
            for name, at_ms in self._groups.items()
            if name not in groups and now_ms - at_ms <= AWAY_MS and now_ms - max(at_ms, self._short_ms) <= SETTLE_MS
        }
        newest = sorted(missed, key=missed.__getitem__, reverse=True)[:MISSED_MAX]
        self._groups = {name: missed[name] for name in newest} | dict.fromkeys(groups, now_ms)
        return {*newest}
