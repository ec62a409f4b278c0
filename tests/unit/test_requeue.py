"""Dead letters sent back: where to, with what, in which transactions, and what no letter can keep from the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from streams import dead_letters
from streams.control import Control
from streams.dead_letters import NOTE, PER_TRANSACTION, RECORD_BYTES_MAX, Filter, Letter, Requeued, requeue
from streams.identity import partitioner
from streams.letters import ORIGIN, REQUEUED
from streams.settings import Settings
from streams.topics import BATCH_BYTES
from tests.builders import START_MS, Record
from tests.unit.consenting import erasure, grant, refusal, told
from tests.unit.test_dead_letters import read_back

PARTITIONS = {"shop-clicks": 4, "shop-ads": 2}
NOTES = "shop-dead-letters"


@dataclass
class Producer:
    """In place of a broker: what was sent, with the transaction's number; an open one's last is not there."""

    options: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    begun: int = 0
    committed: int = 0
    awaited: int = 0
    done: list[int] = field(default_factory=list)
    """How many deliveries had been awaited when each record was sent."""

    def __call__(self, **options: Any) -> Self:
        self.options = options
        return self

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def begin_transaction(self) -> None:
        self.begun += 1

    async def commit_transaction(self) -> None:
        assert self.awaited == len(self.sent), "something may not have been delivered"
        self.committed += 1

    async def send(self, topic: str, value: bytes | None, **fields: Any) -> "asyncio.Future[None]":
        self.done.append(self.awaited)
        self.sent.append((self.begun, topic, fields | {"value": value}))
        delivery = asyncio.get_running_loop().create_future()
        delivery.set_result(None)
        return _Counted(self, delivery)  # type: ignore[return-value]  # is awaited likewise

    def to(self, topic: str) -> list[dict[str, Any]]:
        """What was sent to a topic."""
        return [fields for _, name, fields in self.sent if name == topic]


class _Counted:
    def __init__(self, producer: Producer, delivery: "asyncio.Future[None]") -> None:
        self.producer, self.delivery = producer, delivery

    def __await__(self) -> Any:
        self.producer.awaited += 1
        return self.delivery.__await__()


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Producer:
    producer = Producer()
    monkeypatch.setattr(dead_letters, "AIOKafkaProducer", producer)
    return producer


@pytest.fixture
def send_back(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends back the letters that are given, which are all that there are; ``ads``: what is on that topic."""

    def run(
        letters: list[Letter],
        wanted: Filter | None = None,
        guarantee: str = "exactly_once",
        ads: Sequence[Record] | None = None,
        control: Control | None = None,
    ) -> Requeued:
        async def read_control(_: Settings) -> Control:
            return control or Control()

        async def topic(_: str, name: str) -> AsyncIterator[Sequence[Record]]:
            if name == NOTES:
                yield [_record(letter) for letter in letters]
            else:
                assert (name, ads is None) == ("shop-ads", False), "nothing else is to be read"
                yield ads or []

        monkeypatch.setattr(dead_letters, "read_topic", topic)
        monkeypatch.setattr(dead_letters, "read_control", read_control)
        monkeypatch.setattr(dead_letters.topic_admin, "partition_counts", lambda *_: PARTITIONS)
        settings = Settings(topic_prefix="shop-", guarantee=guarantee)  # type: ignore[arg-type]  # by name
        return asyncio.run(requeue(settings, wanted or Filter()))

    return run


def _record(letter: Letter) -> Record:
    told = [(f"salience.{name}", text.encode()) for name, text in letter.origin.items()]
    back = [(REQUEUED, str(letter.requeued).encode())] if letter.requeued else []
    headers = [*letter.headers, *told, *back]
    return Record(NOTES, letter.partition, letter.offset, letter.timestamp_ms, letter.key, letter.value, headers)


def claiming(letter: Letter, **origin: str) -> Letter:
    return replace(letter, origin={**letter.origin, **origin})


def test_a_record_goes_to_the_partition_of_its_key_at_its_own_time_and_a_note_beside_it(
    producer: Producer, send_back: Any
) -> None:
    letter = replace(read_back((("ce_id", b"7"),)), requeued=1)
    assert send_back([letter]) == Requeued(1, {})
    (record,), (note,) = producer.to("shop-clicks"), producer.to(NOTES)
    assert record == {
        "key": b"user-1",
        "value": b"{",
        "partition": partitioner(4)(b"user-1"),
        "timestamp_ms": START_MS,
        "headers": [("ce_id", b"7"), (REQUEUED, b"2")],
    }
    assert note == {
        "key": b"user-1",
        "value": b"",
        "partition": 3,
        "headers": [(NOTE, b"3:5"), (ORIGIN, b"shop-clicks")],
    }
    assert [number for number, _, _ in producer.sent] == [1, 1]
    assert producer.committed == 1
    assert producer.options["transactional_id"] == "shop-dead-letters-requeue"
    assert producer.options["max_request_size"] > RECORD_BYTES_MAX


def test_where_the_broker_has_no_transactions_there_is_none(producer: Producer, send_back: Any) -> None:
    assert send_back([read_back()], guarantee="at_least_once").sent == 1
    assert (producer.options["transactional_id"], producer.begun, producer.committed) == (None, 0, 0)
    assert producer.awaited == 2


def test_letters_are_sent_back_by_so_many_a_transaction_each_with_its_note(producer: Producer, send_back: Any) -> None:
    count = 2 * PER_TRANSACTION + 1
    letters = [replace(read_back(), offset=offset) for offset in range(count)]
    assert send_back(letters).sent == count
    assert producer.committed == producer.begun == 3
    assert len(producer.to("shop-clicks")) == len(producer.to(NOTES)) == count
    assert producer.done[-1] == 2 * count - 1, "the last note is sent when its record is delivered"
    assert producer.done[2 * PER_TRANSACTION - 1] == PER_TRANSACTION, "no note waits for the one before"
    assert [number for number, topic, _ in producer.sent if topic == NOTES] == [
        1 + offset // PER_TRANSACTION for offset in range(count)
    ]


@pytest.mark.parametrize(
    ("told", "partition"), [("3", 3), ("9", 1), ("", 0), ("-1", 0), ("²", 0), ("9" * 18, 3), ("9" * 19, 0)]
)
def test_a_record_without_a_key_goes_where_it_came_from_or_to_a_partition_that_is_there(
    producer: Producer, send_back: Any, told: str, partition: int
) -> None:
    assert send_back([claiming(replace(read_back(), key=None), partition=told)]).sent == 1
    (record,), (note,) = producer.to("shop-clicks"), producer.to(NOTES)
    assert (record["partition"], note["key"]) == (partition, b"")


@pytest.mark.parametrize("hostile", ["9" * 5_000, "9" * 19, "-1", "²", "now", ""])
def test_a_time_that_no_broker_has_told_does_not_keep_other_letters_from_being_sent_back(
    producer: Producer, send_back: Any, hostile: str
) -> None:
    letters = [claiming(read_back(), timestamp_ms=hostile, partition=hostile), replace(read_back(), offset=6)]
    assert send_back(letters) == Requeued(2, {})
    assert [record["timestamp_ms"] for record in producer.to("shop-clicks")] == [None, START_MS]


def test_a_letter_whose_topic_is_not_there_does_not_keep_others_from_being_sent_back(
    producer: Producer, send_back: Any
) -> None:
    letters = [claiming(read_back(), topic="shop-reviews"), replace(read_back(), offset=6)]
    assert send_back(letters) == Requeued(1, {"3:5": "there is no topic shop-reviews; salience topics create"})
    assert len(producer.to("shop-clicks")) == 1


def test_a_record_that_its_topic_would_not_take_does_not_keep_others_from_being_sent_back(
    producer: Producer, send_back: Any
) -> None:
    def padded(size: int) -> Letter:
        return replace(read_back(), key=None, value=bytes(size))

    letters = [padded(RECORD_BYTES_MAX), replace(padded(RECORD_BYTES_MAX + 1), offset=6)]
    done = send_back(letters)
    assert (done.sent, done.refused.keys()) == (1, {"3:6"})
    assert "was it compressed?" in done.refused["3:6"]
    (record,) = producer.to("shop-clicks")
    builder = BatchBuilder(BATCH_BYTES, 0)
    given = {name: record[name] for name in ("key", "value", "headers")}
    assert builder.append(timestamp=START_MS, **given) is not None
    builder.close()
    assert builder.size() <= BATCH_BYTES


def test_what_was_noted_is_not_sent_again_and_a_note_is_of_its_header_alone(
    producer: Producer, send_back: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = read_back((("ce_id", b"3:6"),)), replace(read_back(), offset=6)
    note = replace(read_back(), offset=7, origin={"note": "3:5"})
    assert send_back([first, second, note]) == Requeued(1, {"3:5": "was sent back already"})
    assert [record["headers"][0] for record in producer.to(NOTES)] == [(NOTE, b"3:6")]


def test_names_that_are_no_text_do_not_keep_other_letters_from_being_sent_back(
    producer: Producer, send_back: Any
) -> None:
    """Anyone who can write to an input chooses its keys; and who can write letters chooses what a note says."""
    odd = replace(read_back(), offset=6, key=b"\xff")
    note = replace(read_back(), offset=7, headers=((NOTE, b"\xff"),))
    assert send_back([odd, note, read_back()]) == Requeued(2, {})
    assert [record["key"] for record in producer.to("shop-clicks")] == [b"\xff", b"user-1"]


def test_letters_that_are_named_are_sent_back_alone(producer: Producer, send_back: Any) -> None:
    letters = [replace(read_back(), offset=offset) for offset in (5, 6)]
    missing = {"9:9": "no such letter, or not of what else was asked for"}
    assert send_back(letters, Filter(names=["3:6", "9:9"])) == Requeued(1, missing)
    assert [record["headers"] for record in producer.to(NOTES)] == [[(NOTE, b"3:6"), (ORIGIN, b"shop-clicks")]]


def of_ad(key: bytes, offset: int, letter_at: int) -> Letter:
    """A letter of a version of an ad."""
    origin = {"topic": "shop-ads", "partition": "0", "offset": str(offset)}
    return claiming(replace(read_back(), key=key, offset=letter_at), **origin)


def on_ads(*told: tuple[bytes, int, bytes | None]) -> list[Record]:
    return [Record("shop-ads", 0, offset, START_MS, key, value) for key, offset, value in told]


def test_an_ad_of_which_its_owner_has_said_something_newer_is_not_sent_back(producer: Producer, send_back: Any) -> None:
    letters = [of_ad(key, 3, at) for at, key in enumerate([b"changed", b"withdrawn", b"compacted away", b"as it was"])]
    letters += [of_ad(b"changed", 5, 4), replace(read_back(), offset=5), of_ad(b"as it was", 2, 6)]
    ads = on_ads((b"as it was", 2, b"{}"), (b"as it was", 3, b"{}"), (b"changed", 5, b"{"), (b"withdrawn", 6, None))
    done = send_back(letters, ads=ads)
    newer = "its owner has said something newer of this ad"
    assert done.refused.keys() == {"3:0", "3:1", "3:2", "3:6"}
    assert all(why.startswith(newer) for why in done.refused.values())
    assert [record["key"] for record in producer.to("shop-ads")] == [b"as it was", b"changed"]
    assert len(producer.to("shop-clicks")) == 1


@pytest.mark.parametrize("hostile", ["", "-1", "now", "9" * 19])
def test_an_ad_whose_letter_tells_no_offset_is_not_sent_back(producer: Producer, send_back: Any, hostile: str) -> None:
    done = send_back([claiming(of_ad(b"tent", 0, 5), offset=hostile)], ads=on_ads((b"tent", 0, b"{")))
    assert (done.sent, done.refused.keys()) == (0, {"3:5"})


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (told(refusal("user-1"), 0), "its person refuses to be remembered"),
        (told(erasure("user-1"), 0, came_ms=START_MS), "its person was erased after it was sent"),
        (told(erasure("user-1"), 0, came_ms=START_MS - 1), ""),
        (told(grant("user-1"), 0), ""),
        (told(refusal("user-2"), 0), ""),
    ],
    ids=["refuses", "erased later", "erased before", "agrees", "another refuses"],
)
def test_letters_of_who_refuses_or_was_erased_after_they_were_sent_stay_where_they_are(
    asked: Record, why: str, producer: Producer, send_back: Any
) -> None:
    control = Control()
    control.take([asked])
    letter = read_back()
    assert send_back([letter], control=control) == Requeued(int(not why), {letter.name: why} if why else {})
    assert len(producer.to("shop-clicks")) == (not why)


def test_an_ad_of_the_name_of_somebody_who_refuses_is_sent_back(producer: Producer, send_back: Any) -> None:
    control = Control()
    control.take([told(refusal("user-1"), 0)])
    assert send_back([of_ad(b"user-1", 3, 5)], ads=on_ads((b"user-1", 3, b"{")), control=control).sent == 1


def test_a_letter_whose_records_time_is_not_known_was_sent_by_its_own(producer: Producer, send_back: Any) -> None:
    letter = claiming(read_back(), timestamp_ms="-1")
    for erased_ms, sent in ((letter.timestamp_ms, 0), (letter.timestamp_ms - 1, 1)):
        control = Control()
        control.take([told(erasure("user-1"), 0, came_ms=erased_ms)])
        assert send_back([letter], control=control).sent == sent
