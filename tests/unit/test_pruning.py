"""Old requests of erasure are taken back; one that came meanwhile is asked for once more."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from streams import pruning
from streams.control import Control
from streams.control_wire import ControlMessage, Erasure
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS, Record

OLD, NEW = Erasure(user_id="anna", time_ms=START_MS), Erasure(user_id="anna", time_ms=START_MS + 100)
OTHER = Erasure(user_id="bert", time_ms=START_MS + 100)
BEFORE_MS = START_MS + 50


class Topic:
    """The control topic; ``meanwhile`` comes to it between the first reading and the first writing."""

    def __init__(self, standing: Sequence[Erasure], meanwhile: Sequence[Erasure]) -> None:
        self.records: list[Record] = []
        self._meanwhile = meanwhile
        for message in standing:
            self._append(message.key, message)

    def _append(self, key: bytes, message: ControlMessage | None) -> None:
        value = None if message is None else encode_json(message)
        self.records.append(Record("control", 0, len(self.records), START_MS, key, value))

    async def read_topic(self, *_: object) -> AsyncIterator[Sequence[Record]]:
        yield list(self.records)

    async def publish(self, _: Settings, messages: Sequence[ControlMessage], gone: Sequence[bytes] = ()) -> list[int]:
        for message in self._meanwhile:
            self._append(message.key, message)
        self._meanwhile = ()
        for message in messages:
            self._append(message.key, message)
        for key in gone:
            self._append(key, None)
        return []

    def standing(self) -> dict[str, Erasure]:
        control = Control()
        control.take(self.records)
        return dict(control.all(Erasure))


@pytest.mark.parametrize(
    ("standing", "meanwhile", "count", "left"),
    [
        ([OLD], [], 1, {}),
        ([OLD, OTHER], [], 1, {"bert": OTHER}),
        ([OLD], [NEW], 1, {"anna": NEW}),
        ([OLD], [NEW, OTHER], 1, {"anna": NEW, "bert": OTHER}),
        ([NEW], [], 0, {"anna": NEW}),
    ],
)
def test_what_is_old_goes_and_what_came_meanwhile_stands(
    standing: list[Erasure],
    meanwhile: list[Erasure],
    count: int,
    left: dict[str, Erasure],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic(standing, meanwhile)
    monkeypatch.setattr("streams.control.read_topic", topic.read_topic)
    monkeypatch.setattr(pruning, "read_topic", topic.read_topic)
    monkeypatch.setattr(pruning, "publish", topic.publish)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == count
    assert topic.standing() == left
    written = len(topic.records)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == 0
    assert len(topic.records) == written
