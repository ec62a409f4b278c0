"""What commands say of running experiments in which workers let nobody take part, as after an upgrade."""

from collections.abc import Sequence

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.control import Control
from streams.control_wire import ControlMessage, ExperimentSetting
from streams.experiments.report import SILENT_MS, ExperimentReport
from tests.unit.test_referee_service import RUNNING, Broker
from tests.unit.test_referee_upgrades import BY_MODEL, MANY, MODEL
from tests.unit.test_stale_stops import NOW_MS, report

REPORT = msgspec.structs.replace(report(2, minutes_ago=0), experiment="many", verdict="no difference is certain yet")


def said(
    monkeypatch: pytest.MonkeyPatch,
    messages: Sequence[ControlMessage],
    reports: Sequence[ExperimentReport],
    *words: str,
    now_ms: int = NOW_MS,
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``salience experiment`` where the topics hold ``messages`` and ``reports``."""
    control = Control()
    control.take(Broker(messages).records())

    async def read(*_: object) -> Control:
        return control

    monkeypatch.setattr("streams.control.read_control", read)
    monkeypatch.setattr("streams.cli.experiment.wall_ms", lambda: now_ms)
    monkeypatch.setattr("streams.cli.experiment.newest", lambda _: {one.experiment: one for one in reports})
    told = CliRunner().invoke(app, ["experiment", *words], env={"COLUMNS": "250"})
    return told.exit_code, told.stdout, told.stderr


@pytest.mark.parametrize(
    ("messages", "why"),
    [([MANY], "slots 60.0; expected 1 to 50"), ([MODEL, BY_MODEL], "trained for the feature specification")],
    ids=["slots", "model"],
)
def test_a_report_of_before_says_that_nobody_takes_part_any_more_and_what_to_do(
    messages: list[ControlMessage], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = said(monkeypatch, messages, [REPORT], "report", "many", "--json")
    assert (code, msgspec.json.decode(out)["verdict"]) == (0, REPORT.verdict)
    assert why in err
    assert "salience experiment stop many" in err


def test_that_there_is_no_report_is_told_with_the_reason_that_there_will_be_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, _, err = said(monkeypatch, [MANY], [], "report", "many")
    assert code == 1
    assert "slots 60.0; expected 1 to 50" in err
    assert "salience experiment stop many" in err


@pytest.mark.parametrize("messages", [[msgspec.structs.replace(MANY, status="stopped")], [MANY, RUNNING]])
def test_a_report_of_what_has_ended_or_is_taken_says_nothing_of_that(
    messages: list[ExperimentSetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = msgspec.structs.replace(REPORT, experiment=messages[-1].experiment)
    assert said(monkeypatch, messages, [found], "report", found.experiment, "--json")[2] == ""


@pytest.mark.parametrize(("later_ms", "says"), [(SILENT_MS, ""), (SILENT_MS + 1, "the referee must run")])
def test_a_report_that_no_newer_one_follows_says_that_no_referee_judges(
    later_ms: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = msgspec.structs.replace(REPORT, experiment=RUNNING.experiment)
    words = ("report", found.experiment, "--json")
    _, _, err = said(monkeypatch, [RUNNING], [found], *words, now_ms=found.time_ms + later_ms)
    assert (says in err) if says else err == ""


def test_the_list_tells_of_an_experiment_whose_arms_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = said(monkeypatch, [RUNNING, MODEL, BY_MODEL], [], "list")
    assert "refused: " in out
    assert "warmer 50%" in out
