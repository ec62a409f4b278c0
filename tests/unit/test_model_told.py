"""When lanes last told of a model, as `salience model list` says it."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.control import Control
from streams.control_wire import ModelRoles, ModelStatus, PushedModel
from tests.builders import START_MS, Record

NET = "net-00c0ffee"
PUSHED = PushedModel(model=NET, manifest="{}", bytes=1, parity=1e-6, score_ms=0.2, time_ms=START_MS)


def told(lane: int, time_ms: int) -> ModelStatus:
    return ModelStatus(lane=lane, model=NET, worker="vm:1", time_ms=time_ms)


@pytest.mark.parametrize(
    ("statuses", "ages", "said"),
    [
        ([told(0, 0)], [None], "before any event"),
        ([told(0, START_MS), told(1, 0)], [None, 5.0], "5 s ago,\nlane 1 before any event"),
        ([told(0, START_MS), told(1, START_MS - 60_000)], [65.0, 5.0], "5 s ago,\nlane 1 1 min ago"),
    ],
)
def test_a_lane_that_told_before_its_first_event_is_not_said_to_have_done_so_in_1970(
    statuses: list[ModelStatus], ages: list[float | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = Control()
    messages = [PUSHED, ModelRoles(shadow=NET, shadow_share=1.0, time_ms=START_MS), *statuses]
    control.take([Record("control", 0, at, 0, one.key, msgspec.json.encode(one)) for at, one in enumerate(messages)])
    monkeypatch.setattr("streams.cli.model.control_of", lambda _: control)
    monkeypatch.setattr("streams.cli.model.wall_ms", lambda: START_MS + 5_000)

    listed = CliRunner().invoke(app, ["model", "list"], env={"COLUMNS": "240"})
    (model,) = json.loads(CliRunner().invoke(app, ["model", "list", "--json"]).stdout)["models"]

    assert [one["age_s"] for one in model["told"]] == ages
    assert all(part in listed.output for part in said.splitlines())
