"""A log of our own messages goes to Parquet and comes back the same."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")

import pyarrow as pa

from streams.logs import Log, LogError, in_order
from streams.logs.parquet import FILES, SCHEMAS, Writer, read, schema_of, write
from streams.wire import Ad, Click, Impression, Tone
from tests.builders import START_MS, ad, click, impression, tone
from tests.logs import busy_log


def test_a_log_comes_back_as_it_went(tmp_path: Path) -> None:
    log = busy_log(1, events=500)

    write(log, tmp_path)

    assert read(tmp_path) == Log(list(log.ads), list(log.events), [])


def test_what_was_not_told_stays_untold_and_everything_told_comes_back(tmp_path: Path) -> None:
    full = ad("ad-1", tags=("a", "b"), budget_micros=7, end_ms=START_MS, title="t", status="paused")
    events = [
        impression("u", "ad-1", START_MS, placement_id="p", slot=3, price_micros=5, surface="home"),
        click("u", "ad-1", START_MS + 1, kind="purchase", viewed_s=1.5, value_micros=9, impression_time_ms=START_MS),
        click("u", "ad-1", START_MS + 2),
    ]

    tones = [tone("ad", "ad-1", 7, START_MS, turned_ms=START_MS - 5), tone("brand", "b", 1, START_MS + 1)]

    write(Log([full, ad("ad-2")], in_order(events), tones[::-1]), tmp_path)

    assert read(tmp_path) == Log([full, ad("ad-2")], events, tones)


def test_a_log_without_reviews_needs_no_file_of_them(tmp_path: Path) -> None:
    write(Log([ad("ad-1")], []), tmp_path)
    (tmp_path / FILES[Tone]).unlink()

    assert read(tmp_path) == Log([ad("ad-1")], [], [])


LEAST: dict[type[Any], dict[str, Any]] = {
    Ad: {"ad_id": "a", "campaign_id": "c", "advertiser_id": "v", "bid_micros": 5},
    Impression: {"event_id": "i", "user_id": "u", "ad_id": "a", "time_ms": START_MS},
    Click: {"event_id": "c", "user_id": "u", "ad_id": "a", "time_ms": START_MS},
    Tone: {"of": "ad", "name": "a", "reviews": 3, "tone": 0.5, "time_ms": START_MS},
}
"""What each kind of message must tell."""


def value_of(column: Any) -> Any:
    """Something that a column of this type may hold, and no field's default."""
    return {pa.bool_(): True, pa.int64(): 7, pa.float64(): 0.25, pa.list_(pa.string()): ("x", "y")}.get(column, "x")


@pytest.mark.parametrize("kind", FILES)
def test_every_field_of_every_kind_comes_back_told_or_not(kind: type[Any], tmp_path: Path) -> None:
    named = {"kind": "purchase", "bid_type": "cpm", "status": "paused", "of": "brand"}
    told = {name: named.get(name, value_of(SCHEMAS[kind].field(name).type)) for name in SCHEMAS[kind].names}
    most = kind(**told)
    least = kind(**{**LEAST[kind], **({"ad_id": "b"} if kind is Ad else {})})
    assert not [
        name for name, value in msgspec.structs.asdict(least).items() if value == told[name] and name != "ad_id"
    ]

    with Writer(tmp_path) as writer:
        writer.add(most)
        writer.add(least)

    log = read(tmp_path)
    came = [*log.ads, *log.events, *log.tones]
    assert sorted(came, key=str) == sorted([most, least], key=str)


def test_a_field_of_a_type_that_has_no_column_is_an_error_at_once() -> None:
    class Strange(msgspec.Struct):
        parts: dict[str, int]

    with pytest.raises(TypeError, match=r"Strange\.parts"):
        schema_of(Strange)


class Interrupted(BaseException):
    """As Ctrl-C, or a broker that fails."""


def write_half(directory: Path) -> None:
    """What is interrupted after its first event."""
    with Writer(directory) as writer:
        writer.add(impression("v", "ad-1"))
        raise Interrupted


def test_an_export_that_does_not_end_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    log = Log([ad("ad-1")], [impression("u", "ad-1"), click("u", "ad-1", START_MS + 5)], [])
    write(log, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(Interrupted):
        write_half(tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read(tmp_path) == log


def test_a_second_export_into_a_folder_is_told_of_the_first_and_takes_nothing_from_it(tmp_path: Path) -> None:
    with Writer(tmp_path) as first:
        first.add(impression("u", "ad-1"))
        with pytest.raises(OSError, match="another export writes to"), Writer(tmp_path) as second:
            second.add(impression("v", "ad-2"))
        first.add(impression("w", "ad-3"))
    assert [event.user_id for event in read(tmp_path).events] == ["u", "w"]

    write(Log([], [impression("v", "ad-2")]), tmp_path)  # the first has let go
    assert [event.user_id for event in read(tmp_path).events] == ["v"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES.values())


def test_a_first_export_that_does_not_end_leaves_nothing_that_could_be_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write_half(tmp_path / "log")

    assert list((tmp_path / "log").iterdir()) == []


def test_a_folder_without_the_files_says_which_command_writes_them(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="salience export-log"):
        read(tmp_path)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    (tmp_path / FILES[Click]).write_bytes(b"clicks")

    with pytest.raises(LogError, match=r"clicks\.parquet cannot be read"):
        read(tmp_path)


IMPRESSIONS: dict[str, Any] = {"event_id": ["i-1", "i-2"], "user_id": ["u", "u"], "ad_id": ["a", "a"]}


def refusal(directory: Path, columns: Any) -> str:
    """What is said of a log whose impressions are ``columns``."""
    write(Log([], []), directory)
    pa.parquet.write_table(pa.table(columns) if isinstance(columns, dict) else columns, directory / FILES[Impression])
    with pytest.raises(LogError) as error:
        read(directory)
    return str(error.value)


def test_a_row_that_is_no_message_is_told_with_its_number_and_its_values(tmp_path: Path) -> None:
    said = refusal(tmp_path, {**IMPRESSIONS, "time_ms": [1000.0, 1000.5]})
    assert "impressions.parquet, row 1" in said
    assert "`$.time_ms`" in said
    assert "{'time_ms': 1000.0}" in said
    assert "u" * 201 not in refusal(tmp_path, {**IMPRESSIONS, "user_id": ["u" * 5_000] * 2, "time_ms": [1, 2]})


@pytest.mark.parametrize("time", [1_700_000_000, 1_700_000_000_000_000, 1_700_000_000.5])
def test_a_time_in_another_unit_than_milliseconds_is_refused_with_the_fix(tmp_path: Path, time: float) -> None:
    said = refusal(tmp_path, {**IMPRESSIONS, "time_ms": [time, time]})
    assert "impressions.parquet, row 1: " in said
    assert f"{{'time_ms': {time}}}" in said
    assert "expected milliseconds of UTC since 1970" in said
    assert "multiply seconds by 1,000, divide microseconds by 1,000" in said


@pytest.mark.parametrize(("kind", "name"), [(Click, "impression_time_ms"), (Ad, "end_ms"), (Tone, "turned_ms")])
def test_every_time_of_every_kind_is_looked_at(tmp_path: Path, kind: type[Any], name: str) -> None:
    write(Log([], []), tmp_path)
    rows = [LEAST[kind], {**LEAST[kind], name: START_MS // 1000}]
    pa.parquet.write_table(pa.Table.from_pylist(rows, SCHEMAS[kind]), tmp_path / FILES[kind])
    with pytest.raises(LogError, match=rf"{FILES[kind]}, row 2: .*'{name}': {START_MS // 1000}"):
        read(tmp_path)


def test_a_column_of_timestamps_is_read_whatever_its_unit(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    for unit, zone in (("s", None), ("ms", "UTC"), ("us", None), ("ns", "Asia/Shanghai")):
        times = pa.array([START_MS, START_MS + 1000], pa.timestamp("ms", zone)).cast(pa.timestamp(unit, zone))
        pa.parquet.write_table(pa.table({**IMPRESSIONS, "time_ms": times}), tmp_path / FILES[Impression])
        assert [event.time_ms for event in read(tmp_path).events] == [START_MS, START_MS + 1000]


def test_integers_of_a_column_with_gaps_are_read_as_pandas_writes_them(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    times = pa.array([float(START_MS), START_MS + 1_000.0])
    columns = {**IMPRESSIONS, "time_ms": times, "slot": pa.array([3.0, None])}
    pa.parquet.write_table(pa.table(columns), tmp_path / FILES[Impression])
    assert [(event.time_ms, event.slot) for event in read(tmp_path).events] == [(START_MS, 3), (START_MS + 1000, None)]  # type: ignore[union-attr]  # both are impressions


@pytest.mark.parametrize("slots", [[3.5, 1.0], [float("nan"), 1.0]])
def test_a_float_that_is_no_integer_is_told_with_its_row(tmp_path: Path, slots: list[float]) -> None:
    said = refusal(tmp_path, {**IMPRESSIONS, "time_ms": [START_MS] * 2, "slot": slots})
    assert (
        f"impressions.parquet, row 1: Expected `int | null`, got `float` - at `$.slot`, in {{'slot': {slots[0]}}}"
        in said
    )


def test_a_float_of_single_precision_is_no_time(tmp_path: Path) -> None:
    said = refusal(tmp_path, {**IMPRESSIONS, "time_ms": pa.array([float(START_MS)] * 2).cast("float", safe=False)})
    assert "got `float` - at `$.time_ms`" in said  # it is a minute off


@pytest.mark.parametrize("ids", [pa.int32(), pa.int64(), pa.uint64()])
def test_ids_may_be_integers(tmp_path: Path, ids: pa.DataType) -> None:
    write(Log([], []), tmp_path)
    columns = {"event_id": ["i-1", "i-2"], "ad_id": ["a", "a"], "time_ms": [START_MS] * 2}
    pa.parquet.write_table(pa.table({**columns, "user_id": pa.array([7, 12], ids)}), tmp_path / FILES[Impression])
    assert [event.user_id for event in read(tmp_path).events] == ["7", "12"]


def test_a_folder_of_parts_in_place_of_a_file_is_told_as_such(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    (tmp_path / FILES[Click]).unlink()
    (tmp_path / FILES[Click]).mkdir()
    with pytest.raises(LogError, match=r"clicks\.parquet is a folder; expected one file, with the rows of all"):
        read(tmp_path)


FOR_EVER_MS = 86_400_000 * 10**8
"""Beyond the year 9999, which Python's dates end with."""


def test_a_column_that_no_message_has_is_not_looked_at(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    further = {"valid_to": pa.array([FOR_EVER_MS] * 2, pa.date64()), "took": pa.array([2**62] * 2, pa.duration("s"))}
    columns = {**further, **IMPRESSIONS, "time_ms": [START_MS] * 2}
    pa.parquet.write_table(pa.table(columns), tmp_path / FILES[Impression])
    assert [event.user_id for event in read(tmp_path).events] == ["u", "u"]


def test_a_column_of_dates_that_python_has_not_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    said = refusal(tmp_path, {**IMPRESSIONS, "time_ms": pa.array([FOR_EVER_MS] * 2, pa.date64())})
    assert "impressions.parquet cannot be read (date value out of range)" in said


@pytest.mark.parametrize("others", [{"userid": ["u"], "event_id": ["i"]}, {"x": [1]}])
def test_columns_that_are_missing_are_told_beside_those_that_are_there(tmp_path: Path, others: dict[str, Any]) -> None:
    said = refusal(tmp_path, others)
    assert repr([*others]) in said
    assert "'user_id'" in said
    assert "salience export-log" in said


def test_a_file_without_rows_needs_no_columns(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    pa.parquet.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / FILES[Impression])
    assert read(tmp_path) == Log([], [], [])


def test_text_that_is_no_utf_8_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    bytes_ = pa.array([b"\xff\xfe", b"u"], pa.binary())
    users = pa.Array.from_buffers(pa.string(), 2, bytes_.buffers())
    assert "cannot be read" in refusal(tmp_path, {**IMPRESSIONS, "user_id": users, "time_ms": [1, 2]})


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    names = [*IMPRESSIONS, "time_ms", "time_ms"]
    twice = pa.Table.from_arrays([*map(pa.array, IMPRESSIONS.values()), pa.array([1, 2]), pa.array([3, 4])], names)
    assert "time_ms" in refusal(tmp_path, twice)
