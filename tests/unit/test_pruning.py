"""Old requests of erasure are taken back; one that came meanwhile is asked for once more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from streams.control import UPTO, Control, Write
from streams.control_wire import Consent, ControlMessage, Erasure
from streams.privacy import pruning
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS, Record

OLD, NEW = Erasure(user_id="anna", time_ms=START_MS), Erasure(user_id="anna", time_ms=START_MS + 100)
NEWER, OTHER = Erasure(user_id="anna", time_ms=START_MS + 200), Erasure(user_id="bert", time_ms=START_MS + 100)
BEFORE_MS = START_MS + 50


class Topic:
    """The control topic; before each of the writings the next of ``meanwhile`` come to it."""

    def __init__(self, standing: Sequence[Erasure], *meanwhile: Sequence[Erasure], written_ms: int = START_MS) -> None:
        self.records: list[Record] = []
        self._written_ms = written_ms
        self._meanwhile = list(meanwhile)
        for message in standing:
            self._append(message)

    def _append(self, message: ControlMessage, *, gone: bool = False) -> None:
        value, headers = (None, [(UPTO, b"%d" % message.sequence)]) if gone else (encode_json(message), [])
        self.records.append(Record("control", 0, len(self.records), self._written_ms, message.key, value, headers))

    async def read_topic(self, *_: object, **__: object) -> AsyncIterator[Sequence[Record]]:
        yield list(self.records)

    @asynccontextmanager
    async def writing(self, *_: object) -> AsyncIterator[Write]:
        yield self._write

    async def _write(self, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()) -> list[int]:
        for message in [*(self._meanwhile.pop(0) if self._meanwhile else ()), *messages]:
            self._append(message)
        for message in gone:
            self._append(message, gone=True)
        return []

    def compacted(self) -> dict[str, int]:
        """Times of the requests that are left when of each key the newest record is."""
        control = Control()
        control.take(list({record.key: record for record in self.records}.values()))
        return {user: erasure.time_ms for user, erasure in control.all(Erasure).items()}


@pytest.mark.parametrize(
    ("topic", "count", "left"),
    [
        (Topic([OLD]), 1, []),
        (Topic([OLD, OTHER]), 1, [OTHER]),
        (Topic([OLD], [NEW]), 1, [NEW]),
        (Topic([OLD], [NEW, OTHER]), 1, [NEW, OTHER]),
        (Topic([OLD], [NEW], [NEWER]), 1, [NEWER]),
        (Topic([NEW]), 0, [NEW]),
    ],
    ids=["old", "old and another's", "anew", "anew and another's", "anew while it is asked for anew", "new"],
)
def test_what_is_old_goes_and_what_came_meanwhile_stands(
    topic: Topic, count: int, left: list[Erasure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.control.read_topic", topic.read_topic)
    monkeypatch.setattr(pruning, "writing", topic.writing)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == count
    assert topic.compacted() == {erasure.user_id: erasure.time_ms for erasure in left}
    written = len(topic.records)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == 0
    assert len(topic.records) == written


@pytest.mark.parametrize(("written_ms", "old"), [(BEFORE_MS - 1, True), (BEFORE_MS, False)])
def test_a_request_is_as_old_as_its_record_where_it_is_dated_before_it(written_ms: int, old: bool) -> None:
    """What was sent before the record is what it takes, and may yet be read."""
    control = Control()
    control.take([Record("control", 0, 0, written_ms, OLD.key, encode_json(OLD))])
    assert bool(pruning.old_requests(control, BEFORE_MS)) == old


def test_a_request_of_long_ago_whose_record_is_young_is_asked_for_once_more_where_compaction_would_lose_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic([OLD], written_ms=BEFORE_MS)
    topic.records.append(Record("control", 0, 1, BEFORE_MS, OLD.key, None, [(UPTO, b"%d" % (OLD.time_ms - 1))]))
    assert topic.compacted() == {}
    monkeypatch.setattr("streams.control.read_topic", topic.read_topic)
    monkeypatch.setattr(pruning, "writing", topic.writing)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == 0
    assert topic.compacted() == {OLD.user_id: OLD.time_ms}


@pytest.mark.parametrize(("agreed_ms", "kept"), [(START_MS, True), (START_MS + 1, False)])
def test_a_request_stays_while_a_consent_stands_that_it_has_ended(
    agreed_ms: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the consent would count again where silence means no."""
    topic = Topic([OLD])
    agreed = Consent(user_id=OLD.user_id, granted=True, time_ms=START_MS)
    topic.records.append(Record("control", 0, 1, agreed_ms, agreed.key, encode_json(agreed)))
    monkeypatch.setattr("streams.control.read_topic", topic.read_topic)
    monkeypatch.setattr(pruning, "writing", topic.writing)
    assert asyncio.run(pruning.prune(Settings(), BEFORE_MS)) == (not kept)
    assert bool(topic.compacted()) == kept


def test_a_refusal_keeps_no_request() -> None:
    control = Control()
    for message in (Consent(user_id=OLD.user_id, granted=False, time_ms=START_MS), OLD):
        control.take([Record("control", 0, control.next_offset, START_MS, message.key, encode_json(message))])
    assert pruning.old_requests(control, BEFORE_MS)
