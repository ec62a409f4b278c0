"""A lane that was ahead as all clocks were, on a real broker: it comes back, and whoever owns it next goes on there."""

import contextlib
from pathlib import Path

import pytest

from deploy.brokers import Broker
from scoring.units import DAY_MS
from tests.builders import click, impression
from tests.integration.lanes import ADS, GUARANTEES, LAST_MS, Killed, Owner, dying_outbox, play, shop_on, stepped

pytestmark = pytest.mark.integration

YEAR_MS = 365 * DAY_MS
THEN_MS = LAST_MS - 2 * YEAR_MS
"""So that a year later is still past for the broker, which takes no records of a time to come."""


@GUARANTEES
@pytest.mark.parametrize("deliveries", [1, 3, 100], ids=["killed at once", "killed in the middle", "not killed"])
def test_a_lane_goes_back_once_all_clocks_are_right_whoever_dies_over_it_and_its_next_owner_goes_on_there(
    kafka: Broker,
    topic_prefix: str,
    tmp_path: Path,
    guarantee: str,
    deliveries: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms = THEN_MS
    monkeypatch.setattr("streams.lanes.lane.wall_ms", lambda: now_ms)

    async def scenario() -> None:
        nonlocal now_ms
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish([click("regular", time_ms=now_ms)])
        await stepped(shop)
        now_ms = THEN_MS + YEAR_MS
        await shop.publish([impression("jumper", time_ms=now_ms), click("jumper", "ad-2", time_ms=now_ms)])
        await stepped(shop)
        row = await shop.lane_row()
        assert row is not None
        assert (row.stream_ms, row.totals["late"]) == (now_ms, 0)

        now_ms = THEN_MS + 60_000
        await shop.publish([click("regular", "ad-2", time_ms=now_ms), click("another", time_ms=now_ms)])
        first = Owner(shop, ADS, dying_outbox(deliveries))
        await first.take_over()
        with contextlib.suppress(Killed):
            await first.step_all()
        await first.vanish()
        now_ms += 60_000
        await shop.publish([click("regular", "ad-3", time_ms=now_ms)])
        assert (await stepped(shop))["placements"] >= 1

        row = await shop.lane_row()
        assert row is not None
        assert (row.stream_ms, max(row.watermarks_ms), row.totals["late"]) == (now_ms, now_ms, 0)
        assert await shop.applied() == 5  # the first person's first click is gone: they were idle for the year ahead
        assert row.totals["applied"] + row.totals["replayed"] == 6

    play(scenario)
