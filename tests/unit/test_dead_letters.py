"""Letters read back from their topic: what they say, which are chosen, and which are not sent back."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import chain

import pytest
from typer.testing import CliRunner

from streams import dead_letters
from streams.cli import app
from streams.control import Control
from streams.dead_letters import (
    BYTES_PER_TRANSACTION,
    NOTE,
    REQUEUED,
    REQUEUES_MAX,
    Filter,
    Letter,
    _batches,
    letter_of,
    refusal,
    requeue,
)
from streams.letters import LETTER_BYTES_MAX, PREFIX, TRUNCATED, letter
from streams.message import Headers
from streams.settings import Settings
from tests.builders import START_MS, Record


def read_back(headers: Headers = (), value: bytes = b"{") -> Letter:
    refused = Record("shop-clicks", 3, 17, START_MS, b"user-1", value, headers)
    message = letter(refused, "decode", "DecodeError", "no")
    found = letter_of(Record("shop-dead-letters", 3, 5, START_MS + 9, message.key, message.value, message.headers))
    assert found is not None
    return found


async def nothing_asked(_: Settings) -> Control:
    """A control topic on which nobody has asked for anything."""
    return Control()


def test_a_letter_comes_back_with_its_origin_and_its_own_headers() -> None:
    found = read_back((("ce_id", b"7"), ("empty", None), ("odd", b"\xff")))

    assert (found.name, found.key, found.value) == ("3:5", b"user-1", b"{")
    assert [found.told(name) for name in ("topic", "partition", "offset")] == ["shop-clicks", "3", "17"]
    assert [found.told(name) for name in ("stage", "error", "message")] == ["decode", "DecodeError", "no"]
    assert found.headers == (("ce_id", b"7"), ("empty", None), ("odd", b"\xff"))
    assert (found.requeued, found.timestamp_ms) == (0, START_MS + 9)


@pytest.mark.parametrize("name", [NOTE, TRUNCATED, PREFIX + "topic", PREFIX + "of-a-version-to-come"])
def test_what_a_producer_says_in_headers_named_like_ours_is_not_said_of_its_letter(name: str) -> None:
    found = read_back(((name, b"0:5"), ("ce_id", b"7")))

    assert found.headers == (("ce_id", b"7"),)
    assert found.origin.keys() == read_back().origin.keys()
    assert found.told("topic") == "shop-clicks"
    assert not found.truncated


def test_the_last_letters_are_listed_oldest_first_whichever_partition_is_read_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent_ms = {(1, 0): 30, (1, 1): 40, (0, 7): 10, (0, 8): 50, (2, 0): 20}

    async def read(*_: object) -> AsyncIterator[Letter]:
        for (partition, offset), time_ms in sent_ms.items():
            yield replace(read_back(), partition=partition, offset=offset, timestamp_ms=time_ms)

    async def noted(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(dead_letters, "read", read)
    monkeypatch.setattr(dead_letters, "noted", noted)
    told = CliRunner().invoke(app, ["dead-letters", "list", "--limit", "3", "--json"])
    assert [each["letter"] for each in json.loads(told.stdout)["letters"]] == ["1:0", "1:1", "0:8"]
    assert json.loads(told.stdout)["total"] == 5


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (future := f"time_ms {2 * START_MS} is in the future (at most {START_MS}); check the producer's clock", future),
        ("no" * 200, "no" * 100 + "…"),
    ],
    ids=["whole", "cut"],
)
def test_the_list_shows_a_message_with_what_helps_and_marks_where_it_was_cut(
    message: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*_: object) -> AsyncIterator[Letter]:
        yield replace(read_back(), origin={**read_back().origin, "message": message})

    async def noted(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(dead_letters, "read", read)
    monkeypatch.setattr(dead_letters, "noted", noted)
    told = CliRunner().invoke(app, ["dead-letters", "list"], env={"COLUMNS": "400"})
    assert f"decode / DecodeError: {shown}\n" in "".join(f"{line.rstrip()}\n" for line in told.stdout.splitlines())


def test_a_note_is_no_letter() -> None:
    assert letter_of(Record("dead-letters", 0, 0, START_MS, b"", b"", [(NOTE, b"3:5")])) is None


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (Filter(), True),
        (Filter(stage="decode", error="DecodeError", topic="clicks"), True),
        (Filter(topic="ads"), False),
        (Filter(stage="state"), False),
        (Filter(error="ValidationError"), False),
        (Filter(names=["3:5"]), True),
        (Filter(names=["3:6"]), False),
    ],
)
def test_letters_are_chosen_by_all_that_is_said(wanted: Filter, chosen: bool) -> None:
    assert wanted.chooses(read_back(), "shop-") is chosen


def test_how_often_a_record_was_sent_back_travels_with_it_and_is_bounded() -> None:
    assert read_back(((REQUEUED, b"2"),)).requeued == 2
    assert refusal(read_back(((REQUEUED, b"2"),)), set(), "shop-") == ""
    assert "at most 3" in refusal(read_back(((REQUEUED, b"3"),)), set(), "shop-")


@pytest.mark.parametrize("hostile", [b"-1", b"many", b"1000", b"9999999999", "²".encode(), b""])
def test_a_count_that_is_no_number_is_as_good_as_the_last(hostile: bytes) -> None:
    assert read_back(((REQUEUED, hostile),)).requeued == REQUEUES_MAX


def test_what_was_sent_is_cut_short_or_claims_another_topic_is_not_sent_back() -> None:
    found = read_back()

    assert refusal(found, {"3:5"}, "shop-") == "was sent back already"
    assert "only its beginning" in refusal(read_back(value=bytes(LETTER_BYTES_MAX)), set(), "shop-")
    claims = replace(found, origin={**found.origin, "topic": "shop-state-changelog"})
    assert "is none of clicks" in refusal(claims, set(), "shop-")


def test_a_dry_run_fences_nobody_and_keeps_no_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    letters, value_bytes = 300, 100_000

    async def read(*_: object) -> AsyncIterator[Letter]:
        for offset in range(letters):
            yield replace(read_back(), offset=offset, value=bytes(value_bytes), truncated=offset == 7)

    async def noted(*_: object) -> set[str]:
        return {"3:5"}

    monkeypatch.setattr(dead_letters, "read", read)
    monkeypatch.setattr(dead_letters, "noted", noted)
    monkeypatch.setattr(dead_letters, "read_control", nothing_asked)
    monkeypatch.setattr(dead_letters.topic_admin, "partition_counts", lambda *_: {"shop-clicks": 4})
    monkeypatch.delattr(dead_letters, "AIOKafkaProducer")
    tracemalloc.start()
    try:
        done = asyncio.run(requeue(Settings(topic_prefix="shop-"), Filter(), dry_run=True))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (done.sent, done.refused.keys()) == (letters - 2, {"3:5", "3:7"})
    assert peak_bytes < 20 * value_bytes


def test_a_transaction_takes_as_many_letters_and_bytes_as_a_slow_link_carries_before_brokers_end_it() -> None:
    large = BYTES_PER_TRANSACTION // 2
    sizes = [large + 1, large - 100, 2 * large, 2 * large, *[10] * 450]

    async def letters() -> AsyncIterator[Letter]:
        for offset, size in enumerate(sizes):
            yield replace(read_back(), offset=offset, key=b"", value=bytes(size), headers=())

    async def parted() -> list[list[int]]:
        return [[letter.offset for letter in batch] async for batch in _batches(letters())]

    batches = asyncio.run(parted())
    assert [*chain(*batches)] == [*range(len(sizes))]
    assert batches[:3] == [[0, 1], [2], [3]]
    assert [len(batch) for batch in batches[3:]] == [200, 200, 50]


def test_a_letter_that_is_not_there_is_told_to_whoever_would_send_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: object) -> AsyncIterator[Letter]:
        yield read_back()

    async def noted(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(dead_letters, "read", read)
    monkeypatch.setattr(dead_letters, "noted", noted)
    monkeypatch.setattr(dead_letters, "read_control", nothing_asked)
    monkeypatch.setattr(dead_letters.topic_admin, "partition_counts", lambda *_: {"shop-clicks": 4})
    wanted = Filter(names=[read_back().name, "9:9"])
    done = asyncio.run(requeue(Settings(topic_prefix="shop-"), wanted, dry_run=True))
    assert (done.sent, done.refused) == (1, {"9:9": "no such letter, or not of what else was asked for"})
