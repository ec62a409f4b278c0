"""A file that tests must come after the log that trains, or the command says what would not be learnt."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.cli.trials import kuairand_trial
from streams.logs import LogError
from streams.logs.kuairand import HISTORIES, HISTORY_COLUMNS, IMPRESSION_COLUMNS, IMPRESSIONS, VIDEO_COLUMNS, VIDEOS

BEGIN_MS = 1_651_330_800_000
"""2022-04-30T15:00Z."""
ROWS = 40


def file_of(path: Path, header: Sequence[str], rows: Sequence[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in (",".join(header), *rows)).encode()))
    return path


def shown(first: int, count: int) -> list[str]:
    """Impressions a second apart."""
    return [f"{BEGIN_MS + 1_000 * at},{at % 7},{at % 5},1,{at % 2},900" for at in range(first, first + count)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file_of(tmp_path / IMPRESSIONS, IMPRESSION_COLUMNS, shown(0, ROWS))
    file_of(tmp_path / VIDEOS, VIDEO_COLUMNS, [f"{video},1,NORMAL,2022-04-01,Short,9000,1,3" for video in range(5)])
    file_of(tmp_path / HISTORIES, ("user_id", "last_time_ms", "videos", "long_view"), [f"1,{BEGIN_MS - 5},1 2,10"])
    return tmp_path


def parted(data: Path, first: int, count: int) -> tuple[int, int]:
    """Impressions that are learnt, and those that test, where the later file has these."""
    later = file_of(data / "later.csv.gz", IMPRESSION_COLUMNS, shown(first, count))
    trial = kuairand_trial(data, later, lambda *_: None)
    return len(trial.learn), len(trial.stateful)


def test_a_later_file_leaves_all_of_the_data_to_learn_from(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parted(data, ROWS, 10) == (ROWS, 10)
    assert capsys.readouterr().err == ""


def test_a_few_impressions_that_both_files_have_are_told_and_are_no_error(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parted(data, ROWS - 1, 10) == (ROWS - 1, 10)
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 40 impressions in --data are not before it, and are left out" in told


def test_what_the_data_has_of_the_later_files_time_tests_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [f"{BEGIN_MS + 1_000 * (ROWS - 2) + 500 + at},{100 + at},{at % 5},1,{at % 2},900" for at in range(10)]
    later = file_of(data / "later.csv.gz", IMPRESSION_COLUMNS, others)
    trial = kuairand_trial(data, later, lambda *_: None)
    assert (len(trial.learn), len(trial.stateful), len(trial.frozen)) == (ROWS - 1, 10, 10)
    assert {f"{100 + at}" for at in range(10)} == {
        trial.store.users[row].decode() for row in trial.stateful.row.tolist() if trial.store.users[row] is not None
    }
    assert "1 of 40 impressions" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["videos", "people"])
def test_a_later_file_whose_names_are_not_the_datas_is_told_beside_what_it_then_says(
    data: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    user, video = ("", "v") if column == "videos" else ("u", "")
    others = [f"{BEGIN_MS + 1_000 * at},{user}{at % 7},{video}{at % 5},1,{at % 2},900" for at in range(ROWS, ROWS + 10)]
    later = file_of(data / "later.csv.gz", IMPRESSION_COLUMNS, others)
    assert len(kuairand_trial(data, later, lambda *_: None).stateful) == 10
    told = " ".join(capsys.readouterr().err.split())
    assert ("10 of 50 impressions are of videos that videos.csv.gz lacks" in told) == (column == "videos")
    assert ("Of the test's people nobody was met before" in told) == (column == "people")


@pytest.mark.parametrize("later", [False, True])
def test_what_histories_tell_since_the_impressions_began_is_no_example(data: Path, *, later: bool) -> None:
    rows = [f"1,{BEGIN_MS + 3_600_000},1 2,10", f"2,{BEGIN_MS},3 4,01", f"3,{BEGIN_MS - 1},0,1"]
    file_of(data / HISTORIES, HISTORY_COLUMNS, rows)
    test = file_of(data / "later.csv.gz", IMPRESSION_COLUMNS, shown(ROWS, 10)) if later else None
    trial = kuairand_trial(data, test, lambda *_: None)
    assert len(trial.before) == 2  # of the second user's the older, an hour before, and the third's
    assert (trial.learn.surface != 0).all()


def test_a_wrong_time_in_the_data_is_told_where_a_later_file_tests(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file_of(data / IMPRESSIONS, IMPRESSION_COLUMNS, ["0,1,1,1,0,900", *shown(0, 200)])
    later = file_of(data / "later.csv.gz", IMPRESSION_COLUMNS, shown(200, 10))
    assert len(kuairand_trial(data, later, lambda *_: None).learn) == 201  # a shop may have begun with a trickle
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 201 impressions" in told
    assert "Has one of them a wrong time?" in told


@pytest.mark.parametrize(("first", "count"), [(20, 40), (0, ROWS), (-30, 20)], ids=["overlaps", "the same", "earlier"])
def test_a_file_that_is_not_later_is_refused_with_the_times_of_both(data: Path, first: int, count: int) -> None:
    with pytest.raises(LogError, match="not before it") as error:
        parted(data, first, count)
    assert "--data ends 2022-04-30T15:00:39+00:00" in str(error.value)
    assert "expected a later file" in str(error.value)


def test_files_without_impressions_are_refused(data: Path) -> None:
    with pytest.raises(LogError, match=r"later\.csv\.gz.* no rows"):
        parted(data, 0, 0)
    file_of(data / IMPRESSIONS, IMPRESSION_COLUMNS, [])
    with pytest.raises(LogError, match=f"{IMPRESSIONS}.* no rows"):
        kuairand_trial(data, None, lambda *_: None)
