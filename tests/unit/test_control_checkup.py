"""What the doctor says of a control topic that a former version wrote, before workers of this one follow it."""

import msgspec
import pytest
from typer.testing import CliRunner

from scoring.inputs import SPEC_HASH
from scoring.manifest import Manifest
from streams.checkup import Check, control
from streams.cli import app
from streams.control import Control
from streams.control_wire import ModelRoles, PushedModel
from tests.builders import Record

MANY = (
    b'{"kind":"experiment","revision":2,"experiment":"many","number":1,"layer":"ranking","low":0.0,"high":1.0,'
    b'"ramp":1.0,"arms":[{"arm":"a","share":0.5,"changes":{},"model":""},{"arm":"b","share":0.5,"changes":'
    b'{"slots":60.0},"model":""}],"status":"running","time_ms":1796125449065,"primary":"ctr","guardrails":[],'
    b'"reason":"","allocation":"fixed","minimum":0.0,"epoch_s":0,"interleaved":false}'
)
"""As it was written while placements had up to 100 ads."""
FEWER = MANY.replace(b"60.0", b"50.0")
FORMER = "c21d952c5770bb1f"
"""The specification of the models of that time."""
TAKEN = Check("control", True, "workers take the experiments that run, and the models that have a role")


def held(*values: bytes) -> Control:
    """What the control topic says with these records, each of its kind's only key."""
    out = Control()
    told = [msgspec.json.decode(value) for value in values]
    names = {"experiment": "experiment/{experiment}", "model": "model/{model}", "model-roles": "model-roles/all"}
    records = [
        Record("control", 0, at, 0, names[one["kind"]].format(**one).encode(), value)
        for at, (one, value) in enumerate(zip(told, values, strict=True))
    ]
    assert out.take(records) == 0
    return out


def pushed(spec_hash: str) -> bytes:
    manifest = Manifest(
        format=1, name="net", spec_hash=spec_hash, dim=32, vocabulary=4096, opset=17, data="", files={}, golden=""
    )
    told = msgspec.json.encode(manifest).decode()
    return msgspec.json.encode(
        PushedModel(model=manifest.version, manifest=told, bytes=1, parity=0.0, score_ms=0.1, time_ms=1)
    )


def roles(**versions: object) -> bytes:
    return msgspec.json.encode(ModelRoles(**versions))  # type: ignore[arg-type]  # roles by name


def version_of(model: bytes) -> str:
    version: str = msgspec.json.decode(model)["model"]
    return version


def test_a_running_experiment_that_a_former_version_allowed_and_workers_refuse_is_told_with_what_helps() -> None:
    check = control(held(MANY))
    assert (check.ok, check.found) == (False, "workers refuse experiment many (slots 60.0; expected 1 to 50)")
    assert check.fix.startswith("salience experiment stop many: its users have the shop's policy now")


@pytest.mark.parametrize("status", [b"draft", b"stopped"])
def test_what_runs_within_todays_bounds_and_what_does_not_run_are_not_told(status: bytes) -> None:
    assert control(held()) == control(held(FEWER)) == TAKEN
    assert control(held(MANY.replace(b"running", status))) == TAKEN


@pytest.mark.parametrize("role", ["live", "canary", "shadow"])
def test_a_model_with_a_role_that_was_trained_for_another_specification_is_told(role: str) -> None:
    former, ours = pushed(FORMER), pushed(SPEC_HASH)
    check = control(held(former, ours, roles(**{role: version_of(former)})))
    assert not check.ok
    assert f"model {version_of(former)}: trained for the feature specification {FORMER}" in check.found
    assert "salience model list" in check.fix
    assert control(held(former, ours, roles(**{role: version_of(ours)}))) == TAKEN


def test_a_former_models_specification_is_nobodys_business_while_it_has_no_role() -> None:
    former = pushed(FORMER)
    assert control(held(former)) == control(held(former, roles(former=(version_of(former),)))) == TAKEN


def test_a_model_of_an_experiments_arm_is_told_like_one_that_has_a_role() -> None:
    former = pushed(FORMER)
    arm = FEWER.replace(b'{"slots":50.0},"model":""', b'{},"model":"' + version_of(former).encode() + b'"')
    assert version_of(former) in control(held(former, arm)).found


@pytest.mark.parametrize(
    ("status", "told"), [("running", "refused: slots 60.0; expected 1 to 50"), ("stopped", "a 50%, b 50%")]
)
def test_the_list_of_experiments_tells_what_workers_refuse_and_what_has_run(
    status: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.cli.experiment.control_of", lambda _: held(MANY.replace(b"running", status.encode())))
    listed = CliRunner().invoke(app, ["experiment", "list"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0
    assert told in listed.output
