"""``salience campaigns``: what it says of budgets, and of records that are none."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streams import reading
from streams.cli import app
from streams.console.campaigns import Campaigns
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record
from tests.unit.test_console_alarms import STATIC
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


def test_which_day_is_today_is_told_and_that_the_rest_is_of_all_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has happened since 8 January 1970: what was spent then is today's, whenever one looks."""
    said = _told(monkeypatch, [_cell(total=Figures(impressions=900, clicks=80, spent_micros=70_000_000))])
    assert "Today is 1970-01-08 (UTC); all else but yesterday's bill is of all time" in said.stdout
    assert all(figure in said.stdout for figure in ("900", "80", "5.00", "70.00"))


def test_yesterdays_bill_is_told_to_people_and_to_machines_and_none_of_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = {"before_day": 6, "before": Figures(spent_micros=61_000_000), "before_billed_micros": 42_000_000}
    cell = _cell(budget_micros=1_000_000, yesterday_budget_micros=37_000_000, **yesterday)
    assert "42.00" in _told(monkeypatch, [cell]).stdout
    assert "42.00" not in _told(monkeypatch, [cell], "--by-arm").stdout
    (one,) = json.loads(_told(monkeypatch, [cell], "--json").stdout)["campaigns"]
    told = {name: value for name, value in one.items() if name.startswith("yesterday")}
    assert told.pop("yesterday")["spent_micros"] == 61_000_000
    assert told == {
        "yesterday_budget_micros": 37_000_000, "yesterday_billed_micros": 42_000_000,
        "yesterday_unbilled_micros": 19_000_000,
    }  # fmt: skip


def test_what_the_console_tells_of_today_is_not_called_what_is_of_all_time_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Campaigns()
    cell = _cell(total=Figures(impressions=900, clicks=80, spent_micros=70_000_000))
    console.take([Record("campaign-metrics", 0, 0, 0, b"0/one/", cell)])
    (today,) = console.day().campaigns
    (here,) = json.loads(_told(monkeypatch, [cell], "--json").stdout)["campaigns"]
    assert (today.impressions, here["total"]["impressions"]) == (10, 900)
    assert (today.spent_micros, here["total"]["spent_micros"]) == (5_000_000, 70_000_000)
    words = json.loads((STATIC / "i18n" / "en.json").read_text())
    heads = {words[f"campaigns.{name}"].lower() for name in ("impressions", "clicks", "spent")}
    assert heads.isdisjoint({"impressions", "clicks", "spent"})
    assert "spent today" in heads
