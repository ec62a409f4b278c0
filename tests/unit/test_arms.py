"""What `salience experiment create` says of options that are wrong, and of what it cannot do."""

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.arms import arm, arms, bandit
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
    made = arm("warmer=0.5:ucb_alpha=0.3,explore=linucb,model=m-00c0ffee")

    changes = {"ucb_alpha": 0.3, "explore": "linucb"}
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

    assert refused(*GOOD[:3], "--arm", "none=0.5:slots=0") == "Error: warmth: slots 0.0; expected 1 to 50\n"
    half = refused(*GOOD[:3], "--arm", "half=0.5:slots=2.5")
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

    runs = "the referee must run while an experiment runs: salience experiment referee"
    said = [CliRunner().invoke(app, ["experiment", "report", name]).stderr for name in ("warmht", "warmth", "over")]
    assert said == [
        "Error: there is no experiment 'warmht'; there are: over, warmth\n",
        f"Error: no report of 'warmth' yet: the referee writes one at its next look; {runs}\n",
        f"Error: 'over' was stopped before the referee had judged it: there is no report of it; {runs}\n",
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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arm", "a=1"], "--arm: only a; give two or more, the first to compare with: --arm as-is=0.5 --arm warmer="),
        (["--arm", "a=0.5", "--arm", "a=0.5"], "--arm: a twice; give each arm a name of its own: --arm as-is=0.5"),
        (["--arm", "a=0.333", "--arm", "b=0.333", "--arm", "c=0.333"], "the shares sum to 0.999; expected 1 (write a"),
        (["--arm", "a=50%", "--arm", "b=50%"], "50% is no share; expected 0 to 1: write 50 % as 0.5"),
        (["--arm", "a=50", "--arm", "b=50"], "--arm a=50: 50 is no share; expected 0 to 1: write 50 % as 0.5"),
        (
            ["--arm", "a=0.5", "--arm", "b=0.5", "--guardrail", "ctr=5"],
            "ctr=5: 5 is no share; expected 0 to 1: write a loss of 5 % as 0.05",
        ),
        (
            ["--arm", "a=0.5", "--arm", "b=0.5", "--guardrail", "ctr=5%"],
            "5% is no share; expected 0 to 1: write a loss of 5 % as 0.05",
        ),
        (["--arm", "a=500", "--arm", "b=0.5"], "--arm a=500: 500 is no share; expected 0 to 1"),
        (["--arm", "a=half", "--arm", "b=0.5"], "'half' is no number; expected NAME=SHARE"),
        (["--arm", "a=0.5", "--arm", "b=0.5:explore=thompson,temperature=0.3"], "has no temperature; leave one out"),
    ],
)
def test_arms_that_cannot_be_are_told_with_how_to_write_them(options: list[str], says: str) -> None:
    told = CliRunner().invoke(app, ["experiment", "create", "x", *options, "--bootstrap", "127.0.0.1:1"])
    assert told.exit_code == 1
    assert says in " ".join(told.stderr.split())


def test_three_thirds_are_all_there_is() -> None:
    assert len(arms([f"{name}=0.3333333333" for name in "abc"])) == 3
