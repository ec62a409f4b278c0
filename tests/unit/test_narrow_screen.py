"""What operators look at first fits a terminal of eighty columns, a line for each lane and partition."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from streams.cli import app, explain, lag, lanes
from streams.cli.screen import Table, screen
from streams.control import Control
from streams.control_wire import ControlMessage, ModelRoles, ModelStatus, PushedModel
from streams.lag.arithmetic import PartitionLag, Status
from streams.wire import Attended, Slot
from tests.builders import START_MS, Record

OWNER = "salience-vm-8644@127.0.0.1"


def _news(*groups: str) -> Any:
    part = PartitionLag(
        topic="ad-impressions", partition=3, status=Status.STALL, committed=1, log_end=1_001, lag=1_000,
        time_lag_s=754.0, time_lag_at_least=True, consumed_per_s=0.0, produced_per_s=23.5, catch_up_s=None, stuck_s=9.0,
        owner=OWNER,
    )  # fmt: skip
    found = [SimpleNamespace(group=name, members=1, partitions=[part]) for name in groups]
    return SimpleNamespace(age_s=0.0, stale=False, error="", report=SimpleNamespace(groups=found))


def _printed(capsys: pytest.CaptureFixture[str], renderable: Any, width: int) -> list[str]:
    screen(width=width).print(renderable)
    return capsys.readouterr().out.splitlines()


def test_a_partitions_lag_and_its_owner_take_one_line_of_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = _printed(capsys, lag._table(_news("salience"), "partition", 80), 80)
    (row,) = [line for line in said if "ad-impressions[3]" in line]
    assert all(cell in row for cell in ("STALL", "1,000", ">12:34", "never", OWNER))
    assert "salience" in said[0]


def test_a_wide_terminal_shows_rates_too_and_several_groups_each_row_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    said = _printed(capsys, lag._table(_news("salience", "ad-server"), "partition", 140), 140)
    rows = [line for line in said if "ad-impressions[3]" in line]
    assert [row.split()[0] for row in rows] == ["salience", "ad-server"]
    assert all("23.5" in row and OWNER in row for row in rows)


def test_where_no_group_has_committed_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No consumer group" in _printed(capsys, lag._table(_news(), "partition", 80), 80)[0]


def _lane(**totals: int) -> Any:
    return SimpleNamespace(next_offsets=(1_234_567, 765_432), totals=totals, flood_score=0.25)


def test_lanes_show_the_fates_that_came_about_whole_in_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    found = {0: _lane(events_in=1_999_999, applied=1_999_990, dead=9), 1: _lane(events_in=10, applied=10)}
    said = _printed(capsys, lanes._table(found), 80)
    row = next(line for line in said if "1,999,999" in line)
    assert all(cell in row for cell in ("1,234,567", "765,432", "1,999,990", "9", "0.250"))
    heading = " ".join(said[1:3])
    assert "dead" in heading
    assert "erased" not in heading
    assert "…" not in " ".join(said)


def test_no_table_leaves_the_end_of_a_name_or_number_away(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("model", "calibration", "by")
    table.add_column("experiment", justify="right")
    cells = ("demo-fdab3c9d", "0.9612", "salience-vm-8644", "cold-start")
    table.add_row(*cells)
    said = _printed(capsys, table, 36)
    assert "…" not in " ".join(said)
    columns = zip(*(line.split("│")[1:-1] for line in said if "│" in line), strict=True)
    assert ["".join(map(str.strip, column)) for column in columns] == list(cells)


def _models(monkeypatch: pytest.MonkeyPatch, *messages: ControlMessage) -> list[str]:
    control = Control()
    control.take([Record("control", 0, at, 0, one.key, msgspec.json.encode(one)) for at, one in enumerate(messages)])
    for module in ("model", "experiment"):
        monkeypatch.setattr(f"streams.cli.{module}.control_of", lambda _: control)
    monkeypatch.setattr("streams.cli.model.wall_ms", lambda: START_MS + 5_000)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["model", "list"]).stdout.splitlines()


def test_models_take_two_lines_of_a_narrow_terminal_and_no_heading_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = PushedModel(model="demo-a0e46726", manifest="{}", bytes=1, parity=1e-6, score_ms=0.2, time_ms=START_MS)
    told = [
        ModelStatus(lane=lane, model=pushed.model, worker="vm:1", time_ms=START_MS, refused="too slow")
        for lane in range(2)
    ]
    said = _models(monkeypatch, pushed, ModelRoles(shadow=pushed.model, shadow_share=0.1, time_ms=START_MS), *told)
    assert {"model", "state", "outcomes", "clicks", "predicted", "gained", "over", "told"} <= {*" ".join(said).split()}
    (row,) = [line for line in said if line.startswith("demo-a0e46726 shadow 10%")]
    assert "ago" in row
    assert [line for line in said if "refused" in line] == [
        f"demo-a0e46726 is refused by lane {lane}: too slow" for lane in range(2)
    ]


def test_where_no_model_was_pushed_the_command_that_does_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "salience model push DIR" in _models(monkeypatch)[0]


def test_a_slot_and_what_earned_it_take_two_lines_of_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    past = [Attended(ad_id=f"ad-028{at}", weight=0.14) for at in range(3)]
    slot = Slot(
        slot=0, ad_id="ad-0276", campaign_id="campaign-08", pctr=0.261893, ecpm_micros=102_009_304,
        price_micros=368_140, propensity=0.70291, attention=past,
    )  # fmt: skip
    placement: Any = SimpleNamespace(slots=[slot])  # all that is read of it
    said = _printed(capsys, explain._slots(placement, [1.0]), 80)
    assert {"propensity", "price", "looked"} <= {*" ".join(said).split()}
    assert len([line for line in said if "ad-028" in line]) == 2


@pytest.mark.parametrize("width", [30, 40, 60])
def test_a_table_of_lag_leaves_nothing_away_however_narrow(capsys: pytest.CaptureFixture[str], width: int) -> None:
    table = lag._table(_news("salience", "ad-server"), "partition", 80)
    narrow, wide = ("".join("".join(_printed(capsys, table, columns)).split()) for columns in (width, 120))
    assert Counter(narrow) == Counter(wide)


def test_where_no_lane_has_begun_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No lane has begun" in _printed(capsys, lanes._table({}), 80)[0]
