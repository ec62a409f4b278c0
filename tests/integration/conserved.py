"""Every record that came in has one fate: asserted of every shop, at the end of every integration test."""

from typing import TYPE_CHECKING

import msgspec

from streams.conservation import unaccounted
from streams.reading import MissingTopicError, read_topic
from streams.wire import LANE_KEY, LaneRow

if TYPE_CHECKING:
    from tests.integration.lanes import Shop


async def assert_conserved(shop: "Shop") -> None:
    """The totals of every lane row balance, those of the last count the records that its offsets have passed.

    Where topics were made anew (``shop.adopted``), totals speak of records that are no longer there, and only balance.
    """
    settings = shop.settings
    rows: dict[int, LaneRow] = {}
    try:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + "state-changelog"):
            for record in records:
                if record.key == LANE_KEY and record.value is not None:
                    row = rows[record.partition] = msgspec.msgpack.decode(record.value, type=LaneRow)
                    assert unaccounted(row.totals) == row.totals.get("unaccounted", 0) == 0, (record.partition, row)
    except MissingTopicError:
        return
    if shop.adopted or not rows:
        return
    passed = dict.fromkeys(rows, 0)
    for source, name in enumerate(("ad-impressions", "clicks")):
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + name):
            for record in records:
                if record.partition in rows:
                    passed[record.partition] += record.offset < rows[record.partition].next_offsets[source]
    assert {lane: row.totals["events_in"] for lane, row in rows.items()} == passed
