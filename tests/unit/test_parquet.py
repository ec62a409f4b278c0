"""A log of our own messages goes to Parquet and comes back the same."""

from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")

from streams.logs import Log, LogError, in_order  # noqa: E402 - only where pyarrow is
from streams.logs.parquet import FILES, read, schema_of, write  # noqa: E402 - as above
from streams.wire import Ad, Click, Impression, Tone  # noqa: E402 - as above
from tests.builders import START_MS, ad, click, impression, tone  # noqa: E402 - as above
from tests.logs import busy_log  # noqa: E402 - as above


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


@pytest.mark.parametrize("kind", [Ad, Impression, Click, Tone])
def test_every_field_is_a_column_and_numbers_are_numbers(kind: type) -> None:
    schema = schema_of(kind)

    assert schema.names == list(kind.__struct_fields__)  # type: ignore[attr-defined]  # a Struct's
    for name in schema.names:
        is_whole = name.endswith(("_ms", "_micros")) or name in ("slot", "reviews")
        assert pa.types.is_int64(schema.field(name).type) == is_whole


def test_a_folder_without_the_files_says_which_command_writes_them(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="salience export-log"):
        read(tmp_path)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    write(Log([], []), tmp_path)
    (tmp_path / FILES[Click]).write_bytes(b"clicks")

    with pytest.raises(LogError, match=r"clicks\.parquet cannot be read"):
        read(tmp_path)
