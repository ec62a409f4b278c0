"""A model that has lost its role and is given one again: what lanes told of the former one counts no more."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.control_wire import ArmSetting, ExperimentSetting, ModelRoles, ModelStatus
from streams.experiments.registry import create, models_of
from streams.models import desk
from streams.models.roles import Record, promoted, record_of, roles_told, with_canary
from tests.models import toy_model
from tests.unit.test_model_desk import SETTINGS, Topics, in_memory, push, status


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = in_memory(monkeypatch)
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: topics.control.read())
    monkeypatch.setattr("streams.control.publish", topics.publish)
    return topics


def record_told(topics: Topics, version: str) -> Record:
    """What counts of a model where it is to be promoted."""
    control = topics.control.read()
    arms = models_of(control.all(ExperimentSetting).values())
    return record_of(version, roles_told(control), arms, control.all(ModelStatus).values())


@pytest.mark.parametrize("role", ["shadow", "canary"])
def test_a_model_that_is_given_a_role_again_begins_anew_and_one_that_has_one_goes_on(
    topics: Topics, tmp_path: Path, role: str
) -> None:
    there = push(toy_model(tmp_path))
    topics.control.write([status(there.model, 0), status(there.model, 1), status("other-00000002", 0)])
    assert CliRunner().invoke(app, ["model", role, there.model]).exit_code == 0
    assert record_told(topics, there.model).lanes == 0
    keys = [record.key for record in topics.control.records]
    assert keys.index(b"model-roles/all") == len(keys) - 1, "a lane may tell anew as soon as there is a role"
    assert list(topics.control.read().all(ModelStatus)) == ["other-00000002/0"]

    topics.control.write([status(there.model, 0)])
    assert CliRunner().invoke(app, ["model", role, there.model, "--share", "0.5"]).exit_code == 0
    assert record_told(topics, there.model).lanes == 1


def test_a_model_that_becomes_what_could_be_gone_back_to_begins_anew(topics: Topics, tmp_path: Path) -> None:
    there = push(toy_model(tmp_path))
    newer = [msgspec.structs.replace(there, model=version) for version in ("newer-00000002", "newest-00000003")]
    roles = promoted(promoted(promoted(ModelRoles(), there.model, 1), newer[0].model, 2), newer[1].model, 3)
    topics.control.write([*newer, roles, status(there.model, 0), status(newer[0].model, 0)])
    assert record_told(topics, there.model).lanes == 0
    assert CliRunner().invoke(app, ["model", "rollback"]).exit_code == 0
    assert [record_told(topics, one.model).lanes for one in (there, *newer)] == [0, 1, 0]


def test_a_model_that_an_experiment_names_begins_anew_unless_it_has_a_role(topics: Topics, tmp_path: Path) -> None:
    there = push(toy_model(tmp_path))
    topics.control.write([with_canary(ModelRoles(), "other-00000002", 0.1, 1)])
    topics.control.write([status(there.model, 0), status("other-00000002", 0)])
    asyncio.run(desk.begin_anew(SETTINGS, (there.model, "other-00000002")))
    assert list(topics.control.read().all(ModelStatus)) == ["other-00000002/0"]

    arms = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="newer", share=0.5, model=there.model))
    draft = create({}, "newer", arms=arms, layer="ranking", width=1.0, primary="ctr", guardrails=(), time_ms=1)
    topics.control.write([draft, status(there.model, 0)])
    asyncio.run(desk.begin_anew(SETTINGS, models_of([draft])))
    assert record_told(topics, there.model).lanes == 1


@pytest.mark.parametrize("path", [("shadow",), ("canary",), ("shadow", "canary")], ids=" then ".join)
def test_a_model_that_was_not_compared_with_what_is_live_is_promoted_by_force_alone_whatever_roles_it_had(
    topics: Topics, tmp_path: Path, path: tuple[str, ...]
) -> None:
    there = push(toy_model(tmp_path))
    for role in path:
        assert CliRunner().invoke(app, ["model", role, there.model]).exit_code == 0
        fares = msgspec.structs.replace(status(there.model, 0), outcomes=1_200, clicks=60, predicted=61.0)
        topics.control.write([fares])
    asked = ["model", "promote", there.model, "--json"]
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 1
    assert "0 of its 1,200 outcomes were compared with what is live; expected 1,000" in refused.stderr
    forced = msgspec.json.decode(CliRunner().invoke(app, [*asked, "--force", "--reason", "a test"]).stdout)
    assert (forced["live"], forced["forced"], len(forced["overruled"])) == (there.model, True, 1)


def test_what_was_compared_of_a_shadow_counts_on_while_it_is_a_canary(topics: Topics, tmp_path: Path) -> None:
    there = push(toy_model(tmp_path))
    assert CliRunner().invoke(app, ["model", "shadow", there.model]).exit_code == 0
    sums = {"outcomes": 2_000, "clicks": 60, "predicted": 61.0, "beside": 1_000, "gain_squares": 1.0}
    topics.control.write([msgspec.structs.replace(status(there.model, 0), **sums)])
    for command in (["canary", there.model], ["promote", there.model]):
        assert CliRunner().invoke(app, ["model", *command]).exit_code == 0
    assert roles_told(topics.control.read()).live == there.model
