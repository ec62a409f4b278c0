"""The referee's places for people: those of idle people in no experiment go to who comes, so that experiments go on."""

from pathlib import Path

import numpy as np
import pytest

from streams.cli.experiment_report import show
from streams.experiments.exporter import RefereeCollector
from streams.experiments.referee import Referee
from streams.experiments.registry import start, stop
from streams.experiments.report import decode_report, encode_report, report_of
from streams.experiments.vitals import Vitals
from tests.unit.showing import see
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_duels import shown as shown_both
from tests.unit.test_experiments import row, running, shown
from tests.unit.test_referee import restarted

PLACES = 200
OLD = [f"old{user}".encode() for user in range(PLACES)]


def full(*, idle: bool = True) -> Referee:
    """One whose places are all of visitors of the past, in no experiment; their rows have expired, where ``idle``."""
    referee = Referee(users_max=PLACES)
    referee.take_rows(OLD, np.concatenate([row(5, 3, 1)] * PLACES))
    if idle:
        referee.begin_anew(OLD)
    referee.follow(running())
    return referee


def shown_to(referee: Referee, users: range) -> None:
    see(referee, [shown(user, user % 2, 10) for user in users])
    referee.take_rows([f"u{user}".encode() for user in users], np.concatenate([row(20, 10, 1)] * len(users)))


def counted(referee: Referee) -> int:
    return int(sum(one.last.users.sum() for one in referee.look() if one.last is not None))


def test_people_of_an_experiment_get_the_places_of_idle_people_who_are_in_none() -> None:
    referee = full()
    shown_to(referee, range(PLACES))
    assert (counted(referee), referee.people.unwatched, referee.people.number) == (PLACES, 0, PLACES)
    shown_to(referee, range(PLACES, PLACES + 5))  # nobody is left who is in none
    assert (counted(referee), referee.people.unwatched) == (PLACES, 10)


def test_who_still_comes_keeps_their_place_and_their_past() -> None:
    referee = full(idle=False)
    shown_to(referee, range(5))
    assert (counted(referee), referee.people.unwatched) == (0, 10)
    referee.begin_anew(OLD[:3])
    shown_to(referee, range(5, 10))
    assert (counted(referee), referee.people.unwatched) == (3, 14)


def test_who_is_in_an_experiment_keeps_their_place_however_idle_until_it_has_ended(tmp_path: Path) -> None:
    referee = full()
    shown_to(referee, range(PLACES))
    referee.begin_anew([f"u{user}".encode() for user in range(PLACES)])
    referee = restarted(referee, tmp_path)
    referee.people.most = PLACES
    shown_to(referee, range(PLACES, PLACES + 5))
    assert (counted(referee), referee.people.unwatched) == (PLACES, 10)
    referee.follow(stop(running(), "over", 30))
    referee.take_rows([b"new"], row(40, 1, 0))
    assert referee.people.unwatched == 10


def test_who_sees_two_rankings_keeps_their_place() -> None:
    referee = Referee(users_max=2)
    referee.follow(start(duel_draft(), 1.0, 2))
    see(referee, [shown_both(1, 0, "a")])
    referee.take_rows([b"u1", b"idle"], np.concatenate([row(5, 1, 0)] * 2))
    referee.begin_anew([b"u1", b"idle"])
    see(referee, [shown_both(2, 0, "b"), shown_both(3, 0, "c")])
    (watched,) = referee.look()
    assert watched.score is not None
    assert (watched.score.people, referee.people.unwatched) == (2, 1)


def test_no_more_places_are_freed_at_once_than_take_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.experiments.referee.ROOM", 30)
    referee = full()
    shown_to(referee, range(10))
    assert referee.people.left == 20
    shown_to(referee, range(10, 25))
    assert referee.people.left == 5
    shown_to(referee, range(25, 35))
    assert (counted(referee), referee.people.unwatched) == (35, 0)


def test_a_report_and_the_exporter_tell_how_often_somebody_found_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    referee = Referee(users_max=2)
    shown_to(referee, range(3))  # before the experiment: the third finds no place, twice
    referee.follow(running())
    assert (told_of(referee), referee.people.unwatched) == (0, 2)
    shown_to(referee, range(3, 5))
    shown_to(referee, range(5, 6))
    assert (told_of(referee), referee.people.unwatched) == (6, 8)
    assert "had no place for somebody 6 times" in " ".join(capsys.readouterr().out.split())
    again = restarted(referee, tmp_path)
    again.follow(stop(running(), "over", 30))
    again.people.unwatched = 99
    assert told_of(again) == 6
    vitals = Vitals(1_000)
    vitals.unwatched = 8
    (metric,) = [one for one in RefereeCollector(vitals).collect() if one.name == "salience_referee_unwatched"]
    assert metric.samples[0].value == 8


def told_of(referee: Referee) -> int:
    """What the only experiment's report tells, on the screen, too."""
    (watched,) = referee.look(7)
    told = decode_report(encode_report(report_of(watched, 9)))
    show(told)
    assert told.judged_ms == 7 or told.status == "stopped"
    return told.unwatched
