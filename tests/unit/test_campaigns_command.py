"""``salience campaigns``: what it says of budgets, and of records that are none."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streams import reading
from streams.cli import app
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record
from tests.unit.test_unreadable import BAD


def _cell(**fields: Any) -> bytes:
    figures = Figures(impressions=10, clicks=1, spent_micros=5_000_000)
    given = {"lane": 0, "campaign_id": "one", "time_ms": 1, "day": 7, "today": figures, "total": figures}
    return encode_json(CampaignMetrics(**(given | fields)))


def _told(monkeypatch: pytest.MonkeyPatch, values: Sequence[bytes | None], *options: str) -> Result:
    async def read(*_: object, **__: object) -> AsyncIterator[list[Record]]:
        yield [Record("campaign-metrics", 0, at, 0, b"%d" % at, value) for at, value in enumerate(values)]

    monkeypatch.setattr(reading, "read_topic", read)
    said = CliRunner().invoke(app, ["campaigns", *options])
    assert said.exit_code == 0, said.output
    return said


@pytest.mark.parametrize(("budget", "share"), [(None, "no limit"), (0, "100.0%"), (20_000_000, "25.0%")])
def test_a_budget_of_nothing_is_a_limit(monkeypatch: pytest.MonkeyPatch, budget: int | None, share: str) -> None:
    said = _told(monkeypatch, [_cell(budget_micros=budget)])
    assert [each for each in ("no limit", "100.0%", "25.0%") if each in said.stdout] == [share]


@pytest.mark.parametrize("bad", [*BAD.values(), b'{"lane":0}', _cell().replace(b":5000000", b":%d" % 2**64)])
def test_a_record_that_tells_of_no_campaign_is_counted_and_left_out(
    monkeypatch: pytest.MonkeyPatch, bad: bytes
) -> None:
    said = _told(monkeypatch, [_cell(), bad, None], "--json")
    assert [each["total"]["impressions"] for each in json.loads(said.stdout)["campaigns"]] == [10]
    assert "1 record on campaign-metrics is unreadable and left out" in said.stderr
