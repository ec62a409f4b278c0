"""What the referee makes of a lane's slices does not depend on where its fetches end."""

from pathlib import Path

import numpy as np
import pytest
from aiokafka import TopicPartition

from scoring.ids import id64
from scoring.trial import SUMS
from streams.topics import CHANGELOG
from streams.wire import LANE_KEY
from tests.builders import Record
from tests.unit.showing import see
from tests.unit.test_experiments import shown
from tests.unit.test_referee_privacy import Books, kept, watermark

LANE = (LANE_KEY, b"")
Change = tuple[bytes, bytes | None]


def read(books: Books, changes: list[Change], *cuts: int) -> None:
    """Let it read ``changes``, in fetches that end at ``cuts``."""
    begin = len(books._changed)
    books._changed += [Record(CHANGELOG, 0, begin + at, 1, *change) for at, change in enumerate(changes)]
    for first, end in zip((0, *cuts), (*cuts, len(changes)), strict=True):
        books.service._take_rows({TopicPartition(CHANGELOG, 0): [*books._changed[begin + first : begin + end]]})


def earned(books: Books) -> tuple[int, bool, list[float]]:
    """The arm of ``u1``, whether their past is unknown, and the impressions and clicks that the arm has earned."""
    (place,) = np.flatnonzero(books.referee.people.ids == id64("u1"))
    trial = books.referee.watched[1].trial
    since = books.referee.people.totals[place] - trial.before[place]
    of = [SUMS.index(name) for name in ("impressions", "clicks")]
    return int(trial.arm[place]), bool(trial.blank[place]), since[of].tolist()


@pytest.mark.parametrize("cuts", [(), (2,), (1,), (3,), (1, 2, 3)])
def test_what_people_did_before_their_exposure_is_not_the_arms_though_one_fetch_has_both(
    cuts: tuple[int, ...], tmp_path: Path
) -> None:
    books = Books(tmp_path)
    read(books, [(b"u1", kept(10, 5, 0)), LANE])
    see(books.referee, [shown(1, 1, 30)])
    read(books, [(b"u1", kept(20, 9, 4)), LANE, (b"u1", kept(30, 10, 4)), LANE], *cuts)
    assert earned(books) == (1, False, [1, 0])


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2)])
def test_who_refuses_and_comes_back_within_a_slice_is_one_person_wherever_a_fetch_ends(
    cuts: tuple[int, ...], tmp_path: Path
) -> None:
    books = Books(tmp_path)
    read(books, [(b"u1", kept(50, 3, 1)), LANE])
    see(books.referee, [shown(1, 1, 200)])
    read(books, [(b"u1", kept(200, 1, 1)), watermark(b"u1", 100), LANE], *cuts)
    see(books.referee, [shown(1, 1, 300)])
    read(books, [(b"u1", kept(310, 2, 2)), LANE])
    assert earned(books) == (1, False, [1, 1])


@pytest.mark.parametrize("did", [2, 6, 9])
@pytest.mark.parametrize("cuts", [(), (4,), (2, 4), (5,)])
def test_who_was_idle_and_forgotten_and_comes_back_keeps_what_they_did_however_much_they_do_then(
    cuts: tuple[int, ...], did: int, tmp_path: Path
) -> None:
    books = Books(tmp_path)
    read(books, [(b"u1", kept(10, 5, 0)), LANE])
    see(books.referee, [shown(1, 1, 30)])
    back = [(b"u1", kept(30, 6, 1)), LANE, (b"u1", None), LANE, (b"u1", kept(9_000, did, 2)), LANE]
    read(books, [*back, (b"u1", None), LANE, (b"u1", kept(20_000, did, 0)), LANE], *cuts)
    assert earned(books) == (1, False, [1 + did + did, 1 + 2])


def test_whose_row_begins_anew_with_less_was_forgotten_though_compaction_has_taken_the_tombstone(
    tmp_path: Path,
) -> None:
    books = Books(tmp_path)
    see(books.referee, [shown(1, 1, 10)])
    read(books, [(b"u1", kept(10, 1, 1)), LANE, (b"u1", kept(20, 6, 1)), LANE, (b"u1", kept(9_000, 2, 0)), LANE], 4)
    assert earned(books)[2] == [6 + 2, 1]
