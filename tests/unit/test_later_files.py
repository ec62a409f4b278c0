"""A file that tests must come after the log that trains, or the command says what would not be learnt."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.cli.trials import kuairand_trial
from streams.logs import LogError
from streams.logs.kuairand import HISTORIES, IMPRESSION_COLUMNS, IMPRESSIONS, VIDEO_COLUMNS, VIDEOS

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
    assert "1 of 40 impressions in --data are not before it, and are not learnt" in told


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
