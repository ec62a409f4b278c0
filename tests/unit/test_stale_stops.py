"""What is told to whoever stops an experiment that no referee has judged lately."""

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from typer.testing import CliRunner

from scoring.units import MINUTE_MS
from streams.cli import app
from streams.control import Control
from streams.experiments.registry import start
from streams.experiments.report import ArmReport, ExperimentReport
from tests.unit.test_experiment_numbers import Topic, asked

NOW_MS = 1_764_500_000_000


def report(number: int, minutes_ago: int) -> ExperimentReport:
    return ExperimentReport(
        experiment="warmth", number=number, status="running", time_ms=NOW_MS, primary="ctr", verdict="",
        split_p_value=1.0, crossed_users=0, arms=(ArmReport(arm="as-is", users=1, metrics={"ctr": 0.1}),),
        judged_ms=NOW_MS - minutes_ago * MINUTE_MS,
    )  # fmt: skip


def stopped(monkeypatch: pytest.MonkeyPatch, found: ExperimentReport | Exception | None, ago_ms: int | None) -> str:
    """What is told when an experiment is stopped that was started so long ago, or never."""
    topic, draft = Topic(), asked("warmth")({})
    topic.write([draft] if ago_ms is None else [draft, start(draft, 1.0, NOW_MS - ago_ms)])

    def newest(_settings: object) -> dict[str, ExperimentReport]:
        if isinstance(found, Exception):
            raise found
        return {} if found is None else {"warmth": found}

    monkeypatch.setattr("streams.cli.experiment.wall_ms", lambda: NOW_MS)
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _: topic.read())
    monkeypatch.setattr("streams.cli.experiment._write", lambda _, messages, gone=(): topic.write(messages, gone))
    monkeypatch.setattr("streams.cli.experiment_report.newest", newest)
    told = CliRunner().invoke(app, ["experiment", "stop", "warmth"])
    assert told.exit_code == 0
    assert topic.known()["warmth"].status == "stopped"
    return told.stderr


@pytest.mark.parametrize(
    ("found", "ago_ms", "says"),
    [
        (report(1, 11), 60 * MINUTE_MS, "UTC alone, and what came since stays unjudged"),
        (report(1, 9), 60 * MINUTE_MS, ""),
        (report(7, 1), 60 * MINUTE_MS, "never judged it"),
        (None, 60 * MINUTE_MS, "never judged it"),
        (None, MINUTE_MS, ""),
        (None, None, ""),
        (TopicAuthorizationFailedError("experiment-reports"), 60 * MINUTE_MS, "is not known: [Error 29]"),
    ],
    ids=["judged long ago", "judged now", "another of its name was", "never judged", "just begun", "a draft", "secret"],
)
def test_who_stops_what_no_referee_judged_lately_is_told_what_stays_unjudged(
    monkeypatch: pytest.MonkeyPatch, found: ExperimentReport | Exception | None, ago_ms: int | None, says: str
) -> None:
    said = stopped(monkeypatch, found, ago_ms)
    assert (says in said) if says else said == ""


def test_a_report_is_shown_though_it_cannot_be_known_whether_newer_ones_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unread(_settings: object) -> Control:
        raise TopicAuthorizationFailedError("control")

    monkeypatch.setattr("streams.cli.experiment.newest", lambda _: {"warmth": report(1, 9)})
    monkeypatch.setattr("streams.cli.experiment.wall_ms", lambda: NOW_MS)
    monkeypatch.setattr("streams.control.read_control", unread)
    told = CliRunner().invoke(app, ["experiment", "report", "warmth"])
    assert told.exit_code == 0
    assert "no sign that users are split otherwise than meant" in told.stdout
    assert "whether workers let people take part in it is not known: [Error 29]" in told.stderr
