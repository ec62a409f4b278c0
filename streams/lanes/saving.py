"""When a lane's snapshot is written: some between slices, the rest while nothing is to be done, all when it is left."""

from collections.abc import Callable

import structlog

from streams.clock import tick_ms
from streams.compute import Compute
from streams.lanes.snapshots import Snapshots, Writing
from streams.step import LaneState

log = structlog.get_logger()


class Saving:
    """Snapshots of lane ``number``, one every ``every_ms``. Never two calls at once, and none while a slice is applied.

    One that cannot be written, as on a full disk, is given up until the next is due: a snapshot only makes recovery
    faster, and to end the worker would cost more.
    """

    def __init__(self, number: int, snapshots: Snapshots, compute: Compute, every_ms: int) -> None:
        self._number, self._snapshots, self._compute, self._every_ms = number, snapshots, compute, every_ms
        self.due_ms = tick_ms() + every_ms
        self._writing: Writing | None = None
        self._unsaved, self._as_of_ms = True, 0

    @property
    def waits(self) -> bool:
        """Whether the state has changed since the last snapshot, or one is being written."""
        return self._unsaved or self._writing is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next."""
        return tick_ms() >= self.due_ms

    def committed(self, as_of_ms: int) -> None:
        """The lane's state has changed, and the lane was no other worker's until ``as_of_ms`` at least."""
        self._unsaved, self._as_of_ms = True, as_of_ms

    async def some(self, state: LaneState, changelog_offset: int) -> bool:
        """Where a snapshot is due, write its next part, as of ``changelog_offset``; whether it is due still."""

        def write() -> bool:
            if self._writing is None:
                self._writing = self._snapshots.begin(state, changelog_offset, self._as_of_ms)
                self._unsaved = False
            whole = self._writing.advance(state.store, changelog_offset)
            self._writing = None if whole else self._writing
            return whole

        if self.is_due and await self._is_through(write):
            self.due_ms = tick_ms() + self._every_ms
        return self.is_due

    async def whole(self, state: LaneState, changelog_offset: int) -> None:
        """Write one now, due or not."""

        def write() -> bool:
            self._snapshots.save(state, changelog_offset, self._as_of_ms)
            return True

        await self._is_through(write)

    def end(self) -> None:
        """Abandon what is being written, once the call that may be under way has ended. Waits for neither."""
        self._compute.soon(self._abandon)

    def _abandon(self) -> None:
        if self._writing is not None:
            self._writing.abandon()
            self._writing = None

    async def _is_through(self, write: Callable[[], bool]) -> bool:
        """Whether the snapshot is whole after this ``write``, or is given up."""
        try:
            return await self._compute.run(write)
        except OSError as error:
            log.warning("snapshot not written", lane=self._number, error=str(error))
            self._writing, self._unsaved = None, True
            return True
