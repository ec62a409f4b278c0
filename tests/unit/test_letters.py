"""Records set aside: whole where they fit, and whatever headers they came with."""

from streams.decode import MESSAGE_CHARS_MAX, RECORD_BYTES_MAX
from streams.letters import EXCERPT_BYTES, LETTER_BYTES_MAX, letter
from streams.topics import BATCH_BYTES
from tests.builders import START_MS, Record, click, record
from tests.unit.test_decode import decoded


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


def test_a_header_without_a_value_is_kept_and_counted_as_nothing() -> None:
    told = letter(refused(headers=[("empty", None)]), "decode", "DecodeError", "no")  # type: ignore[list-item]  # as Kafka allows

    assert told.headers[0] == ("empty", None)
    assert told.size > 0


def test_a_letter_that_is_refused_again_tells_its_newest_origin_alone() -> None:
    first = letter(refused(headers=[("ce_id", b"7")]), "decode", "DecodeError", "first")
    again = Record("clicks", 3, 99, START_MS, first.key, first.value, first.headers)

    second = letter(again, "decode", "DecodeError", "second")

    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names))
    assert dict(second.headers)["salience.offset"] == b"99"
    assert dict(second.headers)["ce_id"] == b"7"


def test_what_an_error_quotes_of_a_hostile_key_is_bounded() -> None:
    ((_, _, _, message),) = decoded([record(click(), key=b"k" * 100_000)]).dead

    assert len(message) == MESSAGE_CHARS_MAX


def test_a_record_too_large_to_be_sent_on_is_a_letter_and_not_the_end_of_the_worker() -> None:
    large = record(click("a"), headers=[("pad", bytes(RECORD_BYTES_MAX))])

    out = decoded([large, record(click("a"), offset=1)], misplaced={b"a"})

    assert [(stage, error) for _, stage, error, _ in out.dead] == [("reroute", "RecordTooLarge")]
    assert [misplaced.offset for misplaced in out.misplaced] == [1]
