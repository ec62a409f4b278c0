"""Records set aside: whole where they fit, and whatever headers they came with."""

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from streams.decode import RECORD_BYTES_MAX
from streams.letters import EXCERPT_BYTES, LETTER_BYTES_MAX, REQUEUED, REROUTED, letter
from streams.message import Message
from streams.refusal import MESSAGE_CHARS_MAX
from streams.topics import BATCH_BYTES
from tests.builders import START_MS, Record, click, record
from tests.unit.test_decode import decoded


def len_or_none(value: bytes | None) -> str:
    return "none" if value is None else str(len(value))


def refused(value: bytes | None = b"{", headers: list[tuple[str, bytes]] | None = None) -> Record:
    return Record("clicks", 3, 17, START_MS, b"user-1", value, headers or [])


def test_the_largest_input_and_its_origin_fit_a_letter() -> None:
    large = letter(refused(bytes(BATCH_BYTES)), "decode", "DecodeError", "x" * MESSAGE_CHARS_MAX)

    assert len(large.value or b"") == BATCH_BYTES
    assert large.size <= LETTER_BYTES_MAX


def test_a_record_that_fits_no_letter_leaves_its_beginning_and_where_the_rest_is() -> None:
    vast = letter(refused(bytes(LETTER_BYTES_MAX), [("ce_id", b"7")]), "decode", "DecodeError", "no")

    headers = dict(vast.headers)
    assert vast.size < 4 * EXCERPT_BYTES
    assert len(vast.value or b"") == EXCERPT_BYTES
    assert int(headers["salience.truncated"]) > LETTER_BYTES_MAX
    assert (headers["salience.topic"], headers["salience.offset"]) == (b"clicks", b"17")


def test_a_header_without_a_value_is_kept() -> None:
    told = letter(refused(headers=[("empty", None)]), "decode", "DecodeError", "no")

    assert told.headers[0] == ("empty", None)


def in_a_batch(message: Message) -> int:
    """Bytes of a batch with ``message`` alone, as the producer builds it."""
    builder = BatchBuilder(BATCH_BYTES, 0)
    headers = list(message.headers)
    assert builder.append(timestamp=START_MS, key=message.key, value=message.value, headers=headers) is not None
    builder.close()
    return builder.size()


@pytest.mark.parametrize("value", [None, b"", b"v", bytes(64), bytes(8_192), bytes(1_048_576)], ids=len_or_none)
@pytest.mark.parametrize("name", ["", "x", "名" * 30, "n" * 64, "n" * 8_192])
def test_a_message_counts_for_as_much_as_its_headers_take_in_a_batch(name: str, value: bytes | None) -> None:
    bare = in_a_batch(Message(b"user-1", b"{"))
    for count in (1, 70):
        message = Message(b"user-1", b"{", ((name, value),) * count)
        assert in_a_batch(message) - bare <= message.size


def test_a_record_with_a_million_tiny_headers_leaves_a_letter_that_can_be_sent() -> None:
    many = [("x", None)] * 1_000_000
    vast = letter(refused(headers=many), "decode", "DecodeError", "no")

    assert in_a_batch(vast) <= LETTER_BYTES_MAX
    assert int(dict(vast.headers)["salience.truncated"]) > LETTER_BYTES_MAX


def test_a_record_that_its_headers_make_too_large_to_be_sent_on_is_a_letter() -> None:
    many = record(click("a"), headers=[("x", None)] * 500_000)

    out = decoded([many], misplaced={b"a"})

    assert [(stage, error) for _, stage, error, _ in out.dead] == [("reroute", "RecordTooLarge")]
    assert not out.misplaced


def test_a_letter_that_is_refused_again_tells_its_newest_origin_alone() -> None:
    first = letter(refused(headers=[("ce_id", b"7")]), "decode", "DecodeError", "first")
    again = Record("clicks", 3, 99, START_MS, first.key, first.value, first.headers)

    second = letter(again, "decode", "DecodeError", "second")

    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names))
    assert dict(second.headers)["salience.offset"] == b"99"
    assert dict(second.headers)["ce_id"] == b"7"


def test_a_letter_tells_that_its_record_came_in_another_partition_and_was_sent_back() -> None:
    told = letter(refused(headers=[(REROUTED, b"1"), (REQUEUED, b"2")]), "decode", "DecodeError", "no")

    assert told.headers[:2] == ((REROUTED, b"1"), (REQUEUED, b"2"))


def test_of_a_hostile_key_an_error_tells_the_length_alone() -> None:
    ((_, _, _, message),) = decoded([record(click(), key=b"k" * 100_000)]).dead

    assert message.startswith("the key has 100,000 bytes, expected the user_id, of 6 bytes")
    assert "kk" not in message


def test_a_record_too_large_to_be_sent_on_is_a_letter_and_not_the_end_of_the_worker() -> None:
    large = record(click("a"), headers=[("pad", bytes(RECORD_BYTES_MAX))])

    out = decoded([large, record(click("a"), offset=1)], misplaced={b"a"})

    assert [(stage, error) for _, stage, error, _ in out.dead] == [("reroute", "RecordTooLarge")]
    assert [misplaced.offset for misplaced in out.misplaced] == [1]


def test_a_letter_as_large_as_may_be_is_whole_and_one_byte_more_is_cut() -> None:
    bare = letter(refused(b""), "decode", "DecodeError", "no")
    room = LETTER_BYTES_MAX - bare.size
    whole = letter(refused(bytes(room)), "decode", "DecodeError", "no")
    assert (whole.size, len(whole.value or b"")) == (LETTER_BYTES_MAX, room)
    assert in_a_batch(whole) <= 2 * BATCH_BYTES
    cut = dict(letter(refused(bytes(room + 1)), "decode", "DecodeError", "no").headers)
    assert cut["salience.truncated"] == str(LETTER_BYTES_MAX + 1).encode()


def test_of_a_record_that_fits_no_letter_what_is_missing_stays_so_and_its_key_is_cut_too() -> None:
    pad = [("pad", bytes(LETTER_BYTES_MAX))]
    bare = letter(Record("clicks", 3, 17, START_MS, None, None, pad), "decode", "DecodeError", "no")
    assert (bare.key, bare.value) == (None, None)
    assert "pad" not in dict(bare.headers)
    long = letter(Record("clicks", 3, 17, START_MS, b"k" * LETTER_BYTES_MAX, b"", ()), "decode", "DecodeError", "no")
    assert (long.key, long.value) == (b"k" * EXCERPT_BYTES, b"")


def test_a_letter_says_where_and_when_its_record_was() -> None:
    told = dict(letter(refused(), "decode", "DecodeError", "no").headers)
    assert told["salience.partition"] == b"3"
    assert told["salience.timestamp_ms"] == str(START_MS).encode()
