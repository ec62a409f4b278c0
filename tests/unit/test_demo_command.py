import json

import pytest
from typer.testing import CliRunner

from deploy.brokers import BrokerError
from streams.cli import app
from streams.demo.meter import Meter
from streams.demo.report import Report


def test_a_demo_in_which_nothing_was_shown_has_unknown_click_rates_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Report.of(Meter(), 0.0, dead_letters=0, seconds=0, guarantee="at_least_once", broker="embedded")
    monkeypatch.setattr("streams.demo.run.run_demo", lambda *_: empty)
    told = CliRunner().invoke(app, ["demo", "--json"])
    assert told.exit_code == 1
    report = json.loads(told.stdout)
    assert [report[f"ctr_{arm}{what}"] for arm in ("engine", "random") for what in ("", "_interval")] == [None] * 4
    assert "Nothing was shown to anybody" in told.stderr


def test_a_demo_whose_broker_dies_says_so_in_a_line_of_its_own_and_to_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: object) -> Report:
        raise BrokerError("The embedded broker ended with code -9.")

    monkeypatch.setattr("streams.demo.run.run_demo", died)
    told = CliRunner().invoke(app, ["demo", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout) == {"error": "The embedded broker ended with code -9."}
    assert told.stderr.splitlines()[-1] == "Error: The embedded broker ended with code -9."
