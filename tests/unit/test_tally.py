"""What the demo reads of the topics for its report."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from streams.demo.tally import Since, calibrations
from streams.settings import Settings
from streams.wire import Outcome, encode_json
from tests.builders import START_MS, Record
from tests.unit.test_unreadable import BAD


class Come(Since):
    """A topic on which these values have come."""

    def __init__(self, values: Sequence[bytes | None]) -> None:
        super().__init__(Settings(), "outcomes")
        self._values = values

    async def news(self) -> AsyncIterator[Sequence[Record]]:
        yield [Record(self.topic, 0, at, START_MS, None, value) for at, value in enumerate(self._values)]


def outcome(*, clicked: bool) -> bytes:
    told = Outcome(
        event="e", ad_id="a", shown_ms=START_MS, known_ms=START_MS, ends_ms=START_MS, predicted=0.25, attention=0.5,
        clicked=clicked, arm="engine", model="m",
    )  # fmt: skip
    return encode_json(told)


def test_what_is_no_outcome_is_left_out_of_the_reports_calibration() -> None:
    told = [outcome(clicked=at % 2 == 0) for at in range(8)]
    whole = asyncio.run(calibrations(Come(told)))
    assert whole == (2.0, 1.0)
    assert asyncio.run(calibrations(Come([None, *told[:4], *BAD.values(), b"{}", *told[4:]]))) == whole
    assert asyncio.run(calibrations(Come([None]))) == (None, None)
