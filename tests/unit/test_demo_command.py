import json
import logging
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from deploy.brokers import BrokerError
from streams.cli import app
from streams.cli.demo import _live
from streams.cli.screen import screen
from streams.demo.meter import Meter
from streams.demo.report import Report, Snapshot
from streams.demo.shopping import Plan
from streams.logs import Log

EMPTY = Report.of(Meter(), 0.0, dead_letters=0, seconds=0, guarantee="at_least_once", broker="embedded")


def test_where_there_is_no_terminal_the_first_ads_are_told_and_then_the_last_frame(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _live(screen()) as show:
        for phase, shown in (("waits", 0), ("begins", 3), ("goes on", 7)):
            assert ("first ads" in capsys.readouterr().out) == (phase == "goes on")
            show(Snapshot(phase, structs.replace(EMPTY, impressions_random=shown), 0.0, 0.0, None, {}, {}, 0.0))
    told = capsys.readouterr().out
    assert "first ads" not in told
    assert told.count("salience · ") == told.count("salience · goes on") == 1


def test_a_demo_in_which_nothing_was_shown_has_unknown_click_rates_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.demo.run.run_demo", lambda *_: EMPTY)
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


def test_a_demo_ends_by_itself_and_is_not_longer_than_its_broker_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def planned(plan: Plan, *_: object) -> Report:
        plans.append(plan)
        raise BrokerError("not now")

    monkeypatch.setattr("streams.demo.run.run_demo", planned)
    for arguments in ([], ["--seconds", "300"]):
        assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 1
    assert [plan.seconds for plan in plans] == [120, 300]
    refused = CliRunner().invoke(app, ["demo", "--seconds", "301"])
    assert refused.exit_code == 2
    assert "less than or equal to 300" in refused.stderr


def test_once_a_command_is_done_libraries_log_as_they_did(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    during = []

    def levels() -> list[int]:
        return [logging.getLogger(library).level for library in ("aiokafka", "asyncio")]

    def failing(*_: object) -> Report:
        during.append(levels())
        raise BrokerError("not now")

    monkeypatch.setattr("streams.logs.kuairand.read", lambda _: Log([], []))
    monkeypatch.setattr("streams.cli.replay._replay", failing)
    for library in ("aiokafka", "asyncio"):
        caplog.set_level(logging.INFO, logger=library)
    monkeypatch.setattr("streams.demo.run.run_demo", failing)
    assert CliRunner().invoke(app, ["demo"]).exit_code == 1
    assert CliRunner().invoke(app, ["replay", "kuairand", "--data", str(tmp_path)]).exit_code == 1
    assert during == [[logging.CRITICAL] * 2, [logging.CRITICAL, logging.INFO]]
    assert levels() == [logging.INFO] * 2
