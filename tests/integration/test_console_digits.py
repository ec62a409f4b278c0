"""Figures on the console's page that stand below each other, on snapshots that the test hands out."""

import asyncio
import re

import pytest
from msgspec.structs import replace

from streams.console.desk import Snapshot
from tests.integration.test_console_seen import Full, full_page

pytestmark = pytest.mark.integration


class Uneven(Full):
    """Figures of which one ends in a zero behind the point, and another does not."""

    def made(self, number: int) -> Snapshot:
        told = super().made(number)
        rates = (47.83, 40.0)
        lanes = [replace(lane, placements_per_s=rates[at % 2]) for at, lane in enumerate(told.lanes)]
        spent = (123_216_500, 61_600_000)
        campaigns = [replace(one, spent_micros=spent[at % 2]) for at, one in enumerate(told.day.campaigns)]
        return replace(told, lanes=lanes, day=replace(told.day, campaigns=campaigns))


def test_numbers_below_each_other_have_as_many_digits_behind_the_point() -> None:
    async def scenario() -> None:
        async with full_page(Uneven()) as page:
            for column in ("lanes placements_per_s", "campaigns spent", "campaigns budget", "why-slots pctr"):
                table, field = column.split()
                cells = await page.locator(f"#{table} tbody [data-field={field}]").all_inner_texts()
                digits = {len(found) for cell in cells for found in re.findall(r"\d[.](\d+)", cell)}
                assert (len(digits), bool(cells)) == (1, True), (column, cells)

    asyncio.run(scenario())
