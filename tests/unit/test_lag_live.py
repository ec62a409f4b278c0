"""``salience lag`` over several polls: what it says of what is not told, and how long it looks at what stands still."""

import json

import pytest
from typer.testing import CliRunner

from streams.cli import app, lag
from streams.cli.screen import screen
from streams.lag.board import Observation
from streams.lag.monitor import LagMonitor
from streams.lag.poller import Poller
from tests.unit.test_lag_monitor import Broker

NOW_MS = 1_000_000


class OverError(Exception):
    """The script has ended."""


class OnePoll(Poller):
    """Sees no group, once."""

    def __init__(self, lacking: str) -> None:
        self.polls = [Observation(NOW_MS, {}, {}, lacking=lacking)]

    def poll(self) -> Observation:
        if not self.polls:
            raise OverError
        return self.polls.pop()


@pytest.mark.parametrize(
    ("asked", "lacking", "said"),
    [
        ("--group salence", "", "'salence' has committed no offset that is there, or does not exist;"),
        ("--group salence", "broker 2 does not answer", "broker 2 does not answer\n'salence' is not told;"),
        ("", "broker 2 does not answer", "broker 2 does not answer"),
        ("", "", "No consumer group has committed an offset yet;"),
    ],
)
def test_a_watch_says_what_of_that_which_was_asked_for_is_not_there(
    asked: str, lacking: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = LagMonitor(OnePoll(lacking), every_s=0.01, clock=lambda: NOW_MS)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)
    result = CliRunner().invoke(app, ["lag", "--watch", *asked.split()], env={"COLUMNS": "160"})
    assert isinstance(result.exception, OverError)
    shown = result.stdout
    assert shown.startswith(said)
    assert ("No consumer group" in shown) == ("No consumer group" in said)


def test_a_watch_into_a_pipe_prints_each_frame_when_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with lag._frames(screen()) as show:
        for frame in ("one", "two"):
            show(frame)
            assert capsys.readouterr().out == f"{frame}\n"


@pytest.mark.parametrize(
    ("committed", "worst", "polls"),
    [
        ([90], "STALL", 11),  # stands still: looked at until it has done so for --stuck-after
        ([90, 90, 90, 90, 91], "OK", 5),  # moves at last
        ([90, 91], "OK", 2),
        ([100], "OK", 1),  # nothing to do
    ],
)
def test_one_look_lasts_until_what_is_behind_has_moved_or_is_known_to_be_stuck(
    committed: list[int | None], worst: str, polls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(committed)  # a poll is a second of its clock
    first_ms = broker.now_ms
    monitor = LagMonitor(broker, every_s=0.02, clock=lambda: broker.now_ms)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)
    result = CliRunner().invoke(app, ["lag", "--seconds", "0.000001", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["worst"]) == (1 if worst == "STALL" else 0, worst)
    assert broker.now_ms - first_ms == 1_000 * polls
