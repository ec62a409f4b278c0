"""What a report says once its experiment has been stopped."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scoring.units import DAY_MS
from streams.cli.experiment_report import show
from streams.experiments.findings import SPLIT_P_MIN
from streams.experiments.referee import Referee
from streams.experiments.registry import start, stop
from streams.experiments.report import (
    ExperimentReport,
    breached,
    decode_report,
    duel_report,
    encode_report,
    report,
    report_of,
)
from streams.experiments.store import load, save
from streams.wire import encode_json
from tests.unit.showing import see
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import played, row, running, shown
from tests.unit.test_findings import score


def ended(referee: Referee) -> ExperimentReport:
    """The report of an experiment that is stopped by hand after a look."""
    referee.look()
    referee.follow(stop(running(), "warmer won", 9))
    (watched,) = referee.look()
    assert watched.last is not None
    return decode_report(encode_report(report(watched.setting, watched.last, 10)))


def losing_users() -> Referee:
    """Of whose users a fifth should be half."""
    referee, users = Referee(), range(600)
    referee.follow(running())
    see(referee, [shown(user, int(user % 5 == 0), 10) for user in users])
    referee.take_rows([f"u{user}".encode() for user in users], np.concatenate([row(10, 1, 0)] * len(users)))
    return referee


def said(told: ExperimentReport, capsys: pytest.CaptureFixture[str]) -> str:
    show(told)
    return " ".join(capsys.readouterr().out.split())


def test_a_report_without_arms_is_none_and_readers_say_so_as_of_any_other_that_cannot_be_read() -> None:
    told = encode_report(msgspec.structs.replace(ended(played(1)), arms=()))
    with pytest.raises(msgspec.ValidationError, match=r"`array` of length >= 1 - at `\$.arms`"):
        decode_report(told)


def test_a_stop_hides_no_split_that_was_broken(capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(losing_users())
    assert told.split_p_value < SPLIT_P_MIN
    assert told.finding is not None
    assert told.last_finding is not None
    assert (told.finding.code, told.last_finding.code) == ("stopped", "unequal_shares")
    assert f"the last look found: {told.last_finding.sentence}" in said(told, capsys)


def test_a_stop_hides_nothing_that_the_last_look_had_found(capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(played(1))
    assert "warmth: stopped: warmer won" in said(told, capsys)
    assert "the last look found: as-is is better than every other arm in ctr" in said(told, capsys)


def test_a_duels_stop_is_told_with_what_its_clicks_had_shown() -> None:
    setting = start(duel_draft(), 1.0, 2)
    assert duel_report(setting, score(None), 9).last_finding is None
    told = duel_report(stop(setting, "enough", 9), score(None), 10)
    assert told.last_finding is not None
    assert told.last_finding.code == "too_few_clicks"


def test_what_runs_has_no_finding_beside_its_finding() -> None:
    (watched,) = played(1).look()
    assert watched.last is not None
    assert report(watched.setting, watched.last, 9).last_finding is None


JUDGED_MS = 1_764_500_000_000


@pytest.mark.parametrize("told", [True, False], ids=["by this version", "by one of before"])
def test_a_final_report_tells_up_to_when_it_was_judged_however_long_the_referee_was_down(
    told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, referee, again = tmp_path / "x.npz", played(1), Referee()
    referee.look(JUDGED_MS)
    save(file, referee, {}, {})
    if not told:
        with np.load(file) as npz:
            saved = dict(npz)
        about = msgspec.json.decode(saved["about"].tobytes())
        for name in ("judged_ms", "unwatched"):
            del about["experiments"]["1"][name]
        np.savez(file, allow_pickle=False, **saved | {"about": np.frombuffer(encode_json(about), dtype=np.uint8)})
    load(file, again)
    again.follow(stop(running(), "warmer won", JUDGED_MS + 12 * DAY_MS))
    (watched,) = again.look(JUDGED_MS + 12 * DAY_MS)
    found = decode_report(encode_report(report_of(watched, JUDGED_MS + 13 * DAY_MS)))
    assert (found.judged_ms, found.unwatched) == (JUDGED_MS if told else 0, 0)
    assert ("judged up to 2025-11-30 10:53 UTC" in said(found, capsys)) == told


def test_no_guardrail_acts_on_arms_that_do_not_have_their_shares_of_the_users() -> None:
    (watched,) = played(1).look()
    assert watched.last is not None
    assert breached(watched.setting, watched.last) is not None
    assert breached(watched.setting, replace(watched.last, split_p_value=0.99 * SPLIT_P_MIN)) is None


def test_below_its_table_a_report_says_in_words_what_its_figures_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    referee = losing_users()
    (watched,) = referee.look(JUDGED_MS)
    told = report_of(watched, JUDGED_MS)
    assert "users are NOT split as meant, p " in said(told, capsys)
    whole = msgspec.structs.replace(told, split_p_value=0.3, crossed_users=1_234)
    show(whole)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "judged up to 2025-11-30 10:53 UTC, by ctr",
        "no sign that users are split otherwise than meant, p 0.3",  # of few users there never is
        "1,234 users saw two arms and are left out",
        "each interval holds the truth in 95 % of experiments, however often one looks",
        "value is that of a user and day",
    ]


def test_of_rankings_that_take_turns_no_split_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show(duel_report(start(duel_draft(), 1.0, 2), score(None), 9))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "judged, by preference",
        "each interval holds the truth in 95 % of experiments, however often one looks",
    ]
