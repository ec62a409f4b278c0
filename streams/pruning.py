"""Old requests of erasure taken back from the control topic, and no new one with them."""

from collections.abc import Sequence

from streams.control import Control, publish, read_control, read_message
from streams.control_wire import Erasure
from streams.decode import Record
from streams.reading import read_topic
from streams.settings import Settings
from streams.topics import CONTROL
from streams.wire import UNREADABLE


async def prune(settings: Settings, before_ms: int) -> int:
    """Take back the requests older than ``before_ms``; how many. Raises `MissingTopicError`.

    Who asks again after the topic was read and before the tombstone stands there is asked for once more: a worker that
    starts then would not hear of it. That request comes after our tombstones, so that one more look is enough.
    """
    gone = old_requests(await read_control(settings), before_ms)
    await publish(settings, [], gone=gone)
    overtaken = Overtaken(gone, before_ms)
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + CONTROL):
        overtaken.take(records)
    if overtaken.requests:
        await publish(settings, list(overtaken.requests.values()))
    return len(gone)


def old_requests(control: Control, before_ms: int) -> list[bytes]:
    """Keys of the standing requests older than that."""
    return [erasure.key for erasure in control.all(Erasure).values() if erasure.time_ms < before_ms]


class Overtaken:
    """Requests that are not old and that a tombstone of their key follows, among ``keys``; no I/O."""

    def __init__(self, keys: Sequence[bytes], before_ms: int) -> None:
        self.requests: dict[bytes, Erasure] = {}
        self._keys, self._before_ms = set(keys), before_ms
        self._standing: dict[bytes, Erasure] = {}

    def take(self, records: Sequence[Record]) -> None:
        """Take records in order."""
        for record in records:
            key = record.key or b""
            if key not in self._keys:
                continue
            if record.value is None:
                erasure = self._standing.pop(key, None)
                if erasure is not None and erasure.time_ms >= self._before_ms:
                    self.requests[key] = erasure
                continue
            try:
                message = read_message(key, record.value)
            except UNREADABLE:
                continue  # nobody heeds it
            if isinstance(message, Erasure):
                self._standing[key] = message
                self.requests.pop(key, None)
