"""What `salience experiment create` says of options that are wrong, and of what it cannot do."""

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.arms import arm, bandit
from streams.control import Control
from streams.control_wire import ArmSetting, ExperimentSetting
from streams.experiments.registry import Bandit, create, stop
from streams.wire import encode_json
from tests.builders import Record

GOOD = ("warmth", "--arm", "as-is=0.5", "--arm", "warmer=0.5:temperature=0.3")


def refused(*words: str) -> str:
    told = CliRunner().invoke(app, ["experiment", "create", *words, "--bootstrap", "127.0.0.1:1"])
    assert (told.exit_code, told.stdout) == (1, "")
    return told.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("Bad", *GOOD[1:]), "NAME: the name 'Bad'; expected lower-case letters, digits and dashes, 32 at most"),
        ((*GOOD, "--layer", "A b"), "--layer: the name 'A b'; expected lower-case letters"),
        ((*GOOD, "--arm", "nonsense"), "--arm nonsense: '' is no number; expected NAME=SHARE, or NAME=SHARE:setting"),
        ((*GOOD, "--arm", "b=2"), "--arm b=2: 2 is no share; expected 0 to 1"),
        ((*GOOD, "--arm", "B=0.5"), "--arm B=0.5: the name 'B'; expected lower-case letters"),
        ((*GOOD, "--arm", "b=0.5:slots"), "--arm b=0.5:slots: 'slots'; expected NAME=SHARE, or NAME=SHARE:setting"),
        (
            (*GOOD, "--arm", "b=0.5:model=newer"),
            "--arm b=0.5:model=newer: the model 'newer'; expected a version, as salience model list tells them",
        ),
        (
            (*GOOD, "--arm", "b=0.5:temperature=hot"),
            "--arm b=0.5:temperature=hot: 'hot' is no number; expected temperature=NUMBER",
        ),
        ((*GOOD, "--guardrail", "ctr"), "--guardrail ctr: '' is no number; expected METRIC=LOSS, such as ctr=0.05"),
        ((*GOOD, "--guardrail", "xyz=0.1"), "--guardrail xyz=0.1: the metric 'xyz'; expected one of ctr, cvr, "),
        (
            (*GOOD, "--guardrail", "ctr=1"),
            "--guardrail ctr=1: an arm never surely loses more than all; expected less than 1",
        ),
        ((*GOOD, "--minimum", "0.2"), "--minimum 0.2: only a bandit leaves one; add --allocation bandit"),
        ((*GOOD, "--epoch", "60"), "--epoch 60: only a bandit has one; add --allocation bandit"),
        ((*GOOD, "--primary", "clicks"), "--primary: the metric 'clicks'; expected one of ctr, cvr, "),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_it_may_be(words: tuple[str, ...], message: str) -> None:
    assert message in refused(*words)


def test_a_bandit_has_a_minimum_and_an_epoch_where_none_is_given() -> None:
    assert bandit("bandit", None, None) == Bandit(minimum=0.1, epoch_s=3_600)
    assert bandit("bandit", 0.2, 60) == Bandit(minimum=0.2, epoch_s=60)
    assert bandit("fixed", None, None) is None


def test_an_arm_is_read_with_its_changes_and_its_model() -> None:
    made = arm("warmer=0.5:temperature=0.3,explore=thompson,model=m-00c0ffee")

    changes = {"temperature": 0.3, "explore": "thompson"}
    assert made == ArmSetting(arm="warmer", share=0.5, changes=changes, model="m-00c0ffee")


def test_an_arm_that_cannot_be_is_told_before_a_layer_that_is_full_and_of_that_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = create(
        {}, "first", [arm("a=0.5"), arm("b=0.5")], layer="ranking", width=1, primary="ctr", guardrails=(), time_ms=1
    )
    control = Control()
    control.take([Record("control", 0, 0, 1, first.key, encode_json(first))])
    assert control.get(ExperimentSetting, "first") == first
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _settings: control)

    assert refused(*GOOD, "--arm", "none=0.1:slots=0") == "Error: warmth: slots 0.0; expected 1 to 100\n"
    half = refused(*GOOD, "--arm", "half=0.1:slots=2.5")
    assert half == "Error: warmth: slots 2.5; expected a whole number: say 2 or 3\n"
    full = refused(*GOOD)
    assert full.endswith("stop an experiment or use another layer, or a smaller --width\n")


def test_a_report_that_is_not_there_is_told_by_whether_there_is_such_an_experiment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = create(
        {}, "warmth", [arm("a=0.5"), arm("b=0.5")], layer="x", width=1, primary="ctr", guardrails=(), time_ms=1
    )
    over = stop(msgspec.structs.replace(made, experiment="over", number=2), "", 2)
    control = Control()
    control.take([Record("control", 0, at, 1, one.key, encode_json(one)) for at, one in enumerate((made, over))])
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _settings: control)
    monkeypatch.setattr("streams.cli.experiment.newest", lambda _settings: {})

    runs = "The referee must run while an experiment runs: salience experiment referee"
    said = [CliRunner().invoke(app, ["experiment", "report", name]).stderr for name in ("warmht", "warmth", "over")]
    assert said == [
        "Error: there is no experiment 'warmht'; there are: over, warmth\n",
        "Error: no report of 'warmth' yet; reports are written by: salience experiment referee\n",
        f"Error: 'over' was stopped before the referee had judged it: there is no report of it. {runs}\n",
    ]


def test_whether_a_person_has_consented_must_be_said() -> None:
    told = CliRunner().invoke(app, ["privacy", "consent", "user-2", "--bootstrap", "127.0.0.1:1"])

    assert told.exit_code == 2
    assert "expected --granted or --refused" in told.stderr


@pytest.mark.parametrize("setting", ["SALIENCE_WEB_HOST=0.0.0.0", "SALIENCE_SECURITY_PROTOCOL=SASL_SSL"])
def test_a_setting_that_is_wrong_is_told_in_our_own_words_alone(setting: str) -> None:
    name, _, value = setting.partition("=")
    told = CliRunner().invoke(app, ["settings"], env={name: value, "SALIENCE_WEB_TOKEN": ""})

    assert told.exit_code == 2
    assert told.stderr.startswith(f"Error: {setting} ")
