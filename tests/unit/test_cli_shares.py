"""How `salience experiment` tells shares: what is small is not nothing."""

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app, experiment
from streams.control import Control
from streams.control_wire import ArmSetting
from tests.unit.test_referee_service import RUNNING, Broker

SMALL = msgspec.structs.replace(
    RUNNING,
    arms=(ArmSetting(arm="as-is", share=0.996), ArmSetting(arm="warmer", share=0.004)),
    low=0.0005,
    high=0.0015,
    ramp=0.001,
)


def test_a_change_of_an_experiment_tells_a_small_ramp_and_range_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    experiment._tell(SMALL, as_json=False)
    assert capsys.readouterr().out == "warmth: running, ramp 0.1%, 0.0005 to 0.0015 of layer r\n"


def test_the_list_of_experiments_tells_small_shares_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rails = tuple(msgspec.structs.replace(rail, most_loss=0.002) for rail in SMALL.guardrails)
    control = Control()
    control.take(Broker([msgspec.structs.replace(SMALL, guardrails=rails)]).records())
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _: control)

    listed = CliRunner().invoke(app, ["experiment", "list"], env={"COLUMNS": "200"}).output

    for told in ("0.0005 to 0.0015", " 0.1% ", "as-is 99.6%, warmer 0.4%", "ctr 0.2%"):
        assert told in listed
