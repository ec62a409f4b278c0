"""The KuaiRand reader, on files small enough to see whole."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.logs import LogError, in_order
from streams.logs.kuairand import BID_LEAST_MICROS, BID_MOST_MICROS, HISTORIES, IMPRESSIONS, VIDEOS, bid_micros, read
from streams.wire import Ad, Click, Impression, encode_json
from tests.builders import click, impression

SHOWN_MS = 1_650_812_741_436
VIDEO_HEADER = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag,server_width"
IMPRESSION_HEADER = "time_ms,user_id,video_id,tab,is_click,play_time_ms,duration_ms,long_view,is_like,is_follow,is_hate"
VIDEO = '7,900,NORMAL,2022-04-10,Web,16001.0,9.0,"39,68",720.0'
CLICKED = f"{SHOWN_MS},12,7,1,1,61802,49866,1,1,1,1"
SKIPPED = f"{SHOWN_MS + 5_000},12,7,4,0,900,49866,0,0,0,0"

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a log's folder from the lines of its files."""

    def make(
        impressions: tuple[str, ...] = (CLICKED, SKIPPED),
        videos: tuple[str, ...] = (VIDEO,),
        impression_header: str = IMPRESSION_HEADER,
    ) -> Path:
        for name, lines in ((IMPRESSIONS, (impression_header, *impressions)), (VIDEOS, (VIDEO_HEADER, *videos))):
            with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        return tmp_path

    return make


def test_a_clicked_impression_becomes_an_impression_and_a_click_that_ends_with_the_watching(folder: Folder) -> None:
    shown, clicked = read(folder(impressions=(CLICKED,))).events

    assert shown == Impression(
        event_id=f"i-12-7-{SHOWN_MS}", user_id="12", ad_id="7", time_ms=SHOWN_MS, surface="tab-1"
    )
    assert clicked == Click(
        event_id=f"c-12-7-{SHOWN_MS}",
        user_id="12",
        ad_id="7",
        time_ms=SHOWN_MS + 61_802,
        viewed_s=61.802,
        impression_time_ms=SHOWN_MS,
        surface="tab-1",
    )


def test_without_a_click_there_is_an_impression_only(folder: Folder) -> None:
    (shown,) = read(folder(impressions=(SKIPPED,))).events

    assert isinstance(shown, Impression)
    assert shown.surface == "tab-4"


def test_people_and_videos_are_the_same_where_a_table_writes_their_numbers_as_fractions(folder: Folder) -> None:
    written = folder(
        impressions=(CLICKED.replace(",12,7,", ",12.0,7.0,"),), videos=(VIDEO.replace("7,900", "7.0,900", 1),)
    )
    assert read(written) == read(folder(impressions=(CLICKED,)))
    (shown,) = read(folder(impressions=(SKIPPED.replace(",12,7,", ",1.0.0,07.0,"),))).events
    assert (shown.user_id, shown.ad_id) == ("1.0.0", "07.0")  # names, not numbers


def test_no_outcome_reaches_an_impression(folder: Folder) -> None:
    liked = read(folder(impressions=(f"{SHOWN_MS},12,7,1,0,61802,49866,1,1,1,1",))).events
    not_liked = read(folder(impressions=(f"{SHOWN_MS},12,7,1,0,0,1,0,0,0,0",))).events

    assert liked == not_liked


def test_events_stand_in_time_order_and_of_one_millisecond_the_impression_first(folder: Folder) -> None:
    at_once = f"{SHOWN_MS},12,7,1,1,0,49866,0,0,0,0"  # played for 0 ms: its click is in its own millisecond
    same_moment = f"{SHOWN_MS},13,7,1,0,0,49866,0,0,0,0"
    while_watching = f"{SHOWN_MS + 60_000},13,7,1,0,0,49866,0,0,0,0"
    events = read(folder(impressions=(CLICKED, at_once, same_moment, while_watching))).events

    assert [event.time_ms for event in events] == sorted(event.time_ms for event in events)
    assert [type(event).__name__ for event in events] == [
        *["Impression"] * 3,  # three of one millisecond
        "Click",  # played for 0 ms
        "Impression",  # shown while the first was still watched
        "Click",  # 61.8 s
    ]


def test_order_keeps_what_was_given_where_time_and_kind_are_one() -> None:
    first, second = impression("b", time_ms=5), impression("a", time_ms=5)

    assert in_order([click("a", time_ms=5), first, second]) == [first, second, click("a", time_ms=5)]


def test_a_repetition_repeats_its_event_ids(folder: Folder) -> None:
    events = read(folder(impressions=(CLICKED, CLICKED))).events

    assert len(events) == 4
    assert len({event.event_id for event in events}) == 2


def test_play_beyond_a_day_counts_as_a_day(folder: Folder) -> None:
    _, clicked = read(folder(impressions=(f"{SHOWN_MS},12,7,1,1,99999999,49866,1,0,0,0",))).events

    assert isinstance(clicked, Click)
    assert clicked.viewed_s == 86_400
    assert clicked.time_ms == SHOWN_MS + 86_400_000


def test_a_video_becomes_an_ad_of_its_content(folder: Folder) -> None:
    (ad,) = read(folder()).ads

    assert ad == Ad(
        ad_id="7",
        campaign_id="900",
        advertiser_id="900",
        bid_micros=bid_micros("7"),
        category="NORMAL/39",
        brand="900",
        tags=("tag-39", "tag-68", "duration-32s", "upload-Web", "music-9"),
        start_ms=1_649_548_800_000,  # 2022-04-10T00:00Z
    )


@pytest.mark.parametrize(
    ("duration_ms", "band"), [("1.0", 1), ("1000.0", 1), ("1001.0", 2), ("16000.0", 16), ("16001.0", 32)]
)
def test_a_duration_band_ends_at_a_power_of_two_of_seconds(folder: Folder, duration_ms: str, band: int) -> None:
    (ad,) = read(folder(videos=(f"7,900,NORMAL,2022-04-10,Web,{duration_ms},9.0,39,720.0",))).ads

    assert f"duration-{band}s" in ad.tags


def test_what_the_file_leaves_empty_is_left_out_of_the_ad(folder: Folder) -> None:
    (ad,) = read(folder(videos=("7,900,UNKNOWN,2022-04-10,,,,,",))).ads

    assert ad.category == "UNKNOWN"
    assert ad.tags == ()


def test_a_video_shown_but_not_in_the_file_becomes_an_ad_without_content(folder: Folder) -> None:
    known, unknown = read(folder(impressions=(f"{SHOWN_MS},12,8,1,0,0,49866,0,0,0,0",))).ads

    assert known.ad_id == "7"
    assert unknown == Ad(ad_id="8", campaign_id="unknown", advertiser_id="unknown", bid_micros=bid_micros("8"))


def test_bids_are_the_same_everywhere_and_fill_their_range() -> None:
    bids = [bid_micros(str(video)) for video in range(2_000)]

    assert bid_micros("5239") == 390_993
    assert all(BID_LEAST_MICROS <= bid <= BID_MOST_MICROS for bid in bids)
    assert min(bids) < 1.02 * BID_LEAST_MICROS
    assert max(bids) > 0.98 * BID_MOST_MICROS


def test_what_is_read_passes_the_wires_own_checks(folder: Folder) -> None:
    log = read(folder())

    for message in (*log.ads, *log.events):
        assert msgspec.json.decode(encode_json(message), type=type(message)) == message


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("soon,12,7,1,0,0,1,0,0,0,0", "line 3: time_ms is 'soon'; expected milliseconds of UTC since 1970"),
        (f"{SHOWN_MS // 1000},12,7,1,0,0,1,0,0,0,0", f"line 3: time_ms is '{SHOWN_MS // 1000}'; .*multiply seconds"),
        (f"{SHOWN_MS}000,12,7,1,0,0,1,0,0,0,0", f"line 3: time_ms is '{SHOWN_MS}000'; .*divide microseconds"),
        (f"{SHOWN_MS},,7,1,0,0,1,0,0,0,0", "line 3: user_id is ''; expected 1 to 20 characters"),
        (f"{SHOWN_MS},12,7,-1,0,0,1,0,0,0,0", "line 3: tab is '-1'; expected an integer from 0 to 999"),
        (f"{SHOWN_MS},12,7,1,2,0,1,0,0,0,0", "line 3: is_click is '2'; expected an integer from 0 to 1"),
        (f"{SHOWN_MS},12,7,1,1,1.5,1,0,0,0,0", "line 3: play_time_ms is '1.5'; expected an integer"),
        (f"{SHOWN_MS},12,7", "line 3: .*; expected 11 fields"),
        (f"{'1' * 5_000},12,7,1,0,0,1,0,0,0,0", "line 3: time_ms is '1{199}…; expected milliseconds"),
        (f"{SHOWN_MS},{'u' * 9_999}", "line 3: .{,201}; expected 11 fields"),
    ],
)
def test_a_malformed_impression_is_told_by_file_line_value_and_expectation(folder: Folder, row: str, told: str) -> None:
    with pytest.raises(LogError, match=f"{IMPRESSIONS}, {told}"):
        read(folder(impressions=(CLICKED, row)))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("7,900,NORMAL,10.04.2022,Web,1.0,9.0,39,720.0", "line 2: upload_dt is '10.04.2022'; expected a date"),
        ("7,900,NORMAL,2022-04-10,Web,long,9.0,39,720.0", "line 2: video_duration is 'long'; expected a number"),
        ("7,900,NORMAL,2022-04-10,Web,nan,9.0,39,720.0", "line 2: video_duration is 'nan'; expected a number"),
        ("7,,NORMAL,2022-04-10,Web,1.0,9.0,39,720.0", "line 2: author_id is ''; expected 1 to 64 characters"),
        (f'7,900,NORMAL,2022-04-10,Web,1.0,9.0,"{",".join("3" * 40)}",1', r"line 2: .* length <= 32 - at `\$.tags`"),
        (f"7,900,{'N' * 300},2022-04-10,Web,1.0,9.0,39,720.0", r"line 2: .* length <= 256 - at `\$.category`"),
        ("7,900,NORMAL,2022-04-10,Web,1.0,1e300,39,720.0", r"line 2: .* length <= 128 - at `\$.tags"),
        ("7,900,NORMAL,9999-12-31,Web,1.0,9.0,39,720.0", r"line 2: .* at `\$.start_ms`"),
    ],
)
def test_a_malformed_video_is_told_by_file_line_value_and_expectation(folder: Folder, row: str, told: str) -> None:
    with pytest.raises(LogError, match=f"{VIDEOS}, {told}"):
        read(folder(videos=(row,)))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (f"12,{SHOWN_MS // 1000},7,1", f"last_time_ms is '{SHOWN_MS // 1000}'; expected milliseconds of UTC"),
        (f"12,{SHOWN_MS},7 8,1", "long_view is '1'; expected 0 or 1 for each of 2 videos"),
        (f"12,{SHOWN_MS},7 8,1x", "long_view is '1x'; expected 0 or 1 for each of 2 videos"),
        (f"12,{SHOWN_MS},7 {'8' * 21},11", "videos is '7 8{21}'; expected ids of at most 20 characters"),
    ],
)
def test_a_malformed_history_is_told_by_file_line_value_and_expectation(folder: Folder, row: str, told: str) -> None:
    (folder() / HISTORIES).write_bytes(gzip.compress(f"user_id,last_time_ms,videos,long_view\n{row}\n".encode()))
    with pytest.raises(LogError, match=f"{HISTORIES}, line 2: {told}"):
        read(folder(), histories=True)


def test_a_replay_of_nothing_ends_before_anything_is_filled(folder: Folder) -> None:
    data = folder(impressions=())
    told = CliRunner().invoke(app, ["replay", "kuairand", "--data", str(data), "--bootstrap", "127.0.0.1:1", "--json"])
    assert told.exit_code == 1
    assert "has no rows" in json.loads(told.stdout)["error"]


def test_numbers_of_a_column_with_gaps_are_read_as_pandas_writes_them(folder: Folder) -> None:
    written = tuple(row.replace(",1,1,61802,", ",1.0,1.0,61802.0,") for row in (CLICKED, SKIPPED))
    assert written[0] != CLICKED
    assert read(folder(impressions=written)) == read(folder(impressions=(CLICKED, SKIPPED)))
    with pytest.raises(LogError, match=r"tab is '1\.0\.0'"):
        read(folder(impressions=(CLICKED.replace(",1,1,", ",1.0.0,1,"),)))


def test_an_empty_place_is_none_and_a_click_whose_time_played_is_empty_stays_a_click(folder: Folder) -> None:
    shown, clicked = read(folder(impressions=(f"{SHOWN_MS},12,7,,1,,49866,1,1,1,1",))).events
    assert shown.surface == ""
    assert clicked == Click(
        event_id=f"c-12-7-{SHOWN_MS}",
        user_id="12",
        ad_id="7",
        time_ms=SHOWN_MS + 18_000,
        impression_time_ms=SHOWN_MS,
    )


PACKINGS = {
    "not gzipped": gzip.decompress,
    "with a mark of UTF-8": lambda data: gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(data)),
    "in two gzips": lambda data: gzip.compress(gzip.decompress(data)[:99]) + gzip.compress(gzip.decompress(data)[99:]),
}


@pytest.mark.parametrize("packed", PACKINGS.values(), ids=PACKINGS)
def test_a_file_is_read_however_it_is_packed(folder: Folder, packed: Callable[[bytes], bytes]) -> None:
    directory = folder()
    before, file = read(directory), directory / IMPRESSIONS
    file.write_bytes(packed(file.read_bytes()))
    assert read(directory) == before


def test_a_missing_column_is_named(folder: Folder) -> None:
    with pytest.raises(LogError, match=r"line 1: the columns are .*; expected also \['tab'\]"):
        read(folder(impression_header=IMPRESSION_HEADER.replace("tab", "place")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=f"{IMPRESSIONS} does not exist; expected in the log's folder"):
        read(tmp_path)


def test_a_column_that_is_there_twice_is_named(folder: Folder) -> None:
    with pytest.raises(LogError, match=r"line 1: the columns are .*; expected each once"):
        read(folder(impression_header=IMPRESSION_HEADER.replace("duration_ms", "user_id")))


def test_blank_lines_say_nothing(folder: Folder) -> None:
    assert read(folder(impressions=(CLICKED, "", ""))) == read(folder(impressions=(CLICKED,)))


DAMAGES = {
    "no gzip": lambda data: b"plain" + data,
    "cut off": lambda data: data[:-12],
    "another byte": lambda data: data[:12] + b"\xff" * 40 + data[52:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(folder: Folder, damage: Callable[[bytes], bytes]) -> None:
    file = folder() / IMPRESSIONS
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(LogError, match=f"{IMPRESSIONS} cannot be read"):
        read(file.parent)


def test_a_pipe_is_refused_since_a_later_file_is_read_twice(folder: Folder) -> None:
    data = folder()
    os.mkfifo(data / "later")
    with pytest.raises(LogError, match=r"later is a pipe; expected a file, .*: write it to one"):
        read(data, later=data / "later")
