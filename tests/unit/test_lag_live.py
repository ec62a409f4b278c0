"""``salience lag --watch`` where something that was asked for is not told."""

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.lag.board import Observation
from streams.lag.monitor import LagMonitor
from streams.lag.poller import Poller

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
        ("--group salence", "", "salence has committed no offset that is there, or does not exist;"),
        ("--group salence", "broker 2 does not answer", "broker 2 does not answer\nsalence not told;"),
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
