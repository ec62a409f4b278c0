"""Who saw two arms counts for neither, in whatever order the referee reads impressions and rows."""

from pathlib import Path

import pytest

from streams.control_wire import ArmSetting
from streams.experiments.referee import Referee
from tests.unit.consenting import erasure
from tests.unit.showing import see
from tests.unit.test_experiments import row, running, shown
from tests.unit.test_referee import restarted

FUTURE_MS = 10**12
THREE = tuple(
    ArmSetting(arm=name, share=share, changes={"temperature": share})
    for name, share in (("a", 0.5), ("b", 0.25), ("c", 0.25))
)


def found(referee: Referee) -> tuple[list[int], int]:
    """Users by arm, and those who saw two."""
    (watched,) = referee.look()
    assert watched.last is not None
    return watched.last.users.tolist(), watched.last.crossed


def referee_of(*impressions: bytes) -> Referee:
    referee = Referee()
    referee.follow(running(arms=THREE))
    see(referee, impressions)
    return referee


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    "arms",
    [(0, 1), (1, 0), (0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 2), (2, 2, 1)],
    ids=lambda arms: "-".join(map(str, arms)),
)
def test_who_saw_two_arms_before_a_row_was_read_counts_for_neither(
    arms: tuple[int, ...], restarts: bool, tmp_path: Path
) -> None:
    referee = referee_of(*(shown(1, arm, 10 + at) for at, arm in enumerate(arms)))
    if restarts:
        referee = restarted(referee, tmp_path)
    referee.take_rows([b"u1"], row(9 + len(arms), len(arms), 0))
    assert found(referee) == ([0, 0, 0], 1)


def test_who_saw_two_arms_counts_for_the_first_until_a_row_holds_the_second() -> None:
    referee = referee_of(shown(1, 1, 10), shown(1, 0, 20))
    referee.take_rows([b"u1"], row(9, 1, 0))
    assert found(referee) == ([0, 0, 0], 0)
    referee.take_rows([b"u1"], row(19, 1, 0))
    assert found(referee) == ([0, 1, 0], 0)
    referee.take_rows([b"u1"], row(20, 2, 0))
    assert found(referee) == ([0, 0, 0], 1)


def test_the_arm_that_was_shown_first_counts_first_whichever_impression_comes_first() -> None:
    referee = referee_of(shown(1, 0, 40), shown(1, 2, 60), shown(1, 1, 20))
    referee.take_rows([b"u1"], row(39, 1, 0))
    assert found(referee) == ([0, 1, 0], 0)
    referee.take_rows([b"u1"], row(40, 2, 0))
    assert found(referee) == ([0, 0, 0], 1)


def test_who_saw_an_arm_twice_counts_from_the_row_that_holds_the_first_time() -> None:
    referee = referee_of(shown(1, 1, 10), shown(1, 1, 20))
    referee.take_rows([b"u1"], row(10, 1, 0))
    assert found(referee) == ([0, 1, 0], 0)


def test_who_saw_another_arm_twice_counts_for_neither_from_the_row_that_holds_the_first_time() -> None:
    referee = referee_of(shown(1, 0, 10), shown(1, 1, 20), shown(1, 1, 50))
    referee.take_rows([b"u1"], row(20, 2, 0))
    assert found(referee) == ([0, 0, 0], 1)


@pytest.mark.parametrize("later", [False, True])
def test_an_impression_of_another_arm_that_is_dated_in_the_future_crosses_nobody(later: bool) -> None:
    told = [shown(1, 0, FUTURE_MS), shown(1, 1, 30)]
    referee = referee_of(*told[:: -1 if later else 1])
    referee.take_rows([b"u1"], row(30, 1, 0))
    assert found(referee) == ([0, 1, 0], 0)
    see(referee, [shown(1, 2, FUTURE_MS), shown(1, 1, 40)])
    referee.take_rows([b"u1"], row(40, 2, 0))
    assert found(referee) == ([0, 1, 0], 0)
    see(referee, [shown(1, 2, 50)])
    referee.take_rows([b"u1"], row(50, 3, 0))
    assert found(referee) == ([0, 0, 0], 1)


@pytest.mark.parametrize("seen_before", [False, True])
def test_who_takes_the_place_of_somebody_who_was_about_to_cross_does_not(seen_before: bool) -> None:
    referee = referee_of(shown(3, 0, 10), shown(1, 0, 10), shown(1, 1, 20))
    referee.take_rows([b"u3"], row(10, 1, 0))
    referee.settle([erasure("u1", 30)], 1)
    if seen_before:
        referee.take_rows([b"u2"], row(35, 0, 0))
    see(referee, [shown(2, 0, 40)])
    referee.take_rows([b"u2"], row(40, 1, 0))
    assert referee.people.number == 2
    assert found(referee) == ([2, 0, 0], 0)
