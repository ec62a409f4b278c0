"""Which groups are missing: if a broker is away, its groups may be listed nowhere, and no other broker says so. No I/O.

Times are milliseconds of one clock that never goes back.
"""

import math
from collections.abc import Collection

from scoring.units import HOUR_MS

SETTLE_MS = 30_000
"""For some seconds neither broker lists a group that moves; then the new coordinator says that it is loading it."""
AWAY_MS = 6 * HOUR_MS
"""After so long a broker counts as removed, and a group as deleted: its operators have known for hours."""
MISSED_MAX = 2_000
"""Most missing groups kept, those listed last: while a broker is away, names may come and go without end."""


class Roll:
    """Brokers and groups seen so far. A group that is not listed although every broker is there was deleted."""

    def __init__(self) -> None:
        self._nodes = dict[int, int]()
        self._groups = dict[str, int]()
        """When each group was last listed."""
        self._short_ms = -math.inf
        """When a broker was last away."""
        self.short = False
        """Whether a broker is away, or its groups have not settled. If not, missing groups move, or were deleted."""

    def missed(self, now_ms: int, nodes: Collection[int], groups: Collection[str], *, whole: bool) -> set[str]:
        """Groups known before that are not listed now, but may still exist.

        ``nodes``: numbers of the brokers that are there. ``whole``: whether all of them listed their groups.
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
