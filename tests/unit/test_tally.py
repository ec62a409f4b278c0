"""What the demo reads of the topics for its report."""

from collections.abc import Sequence

from streams.demo.tally import Calibrations
from streams.wire import Outcome, encode_json
from tests.builders import START_MS, Record
from tests.unit.test_unreadable import BAD


def calibrations(values: Sequence[bytes | None]) -> tuple[float | None, float | None]:
    """Of these values of an outcomes topic."""
    into = Calibrations()
    into.take([Record("outcomes", 0, at, START_MS, None, value) for at, value in enumerate(values)])
    return into.told()


def outcome(*, clicked: bool) -> bytes:
    told = Outcome(
        event="e", ad_id="a", shown_ms=START_MS, known_ms=START_MS, ends_ms=START_MS, predicted=0.25, attention=0.5,
        clicked=clicked, arm="engine", model="m",
    )  # fmt: skip
    return encode_json(told)


def test_what_is_no_outcome_is_left_out_of_the_reports_calibration() -> None:
    told = [outcome(clicked=at % 2 == 0) for at in range(8)]
    whole = calibrations(told)
    assert whole == (2.0, 1.0)
    assert calibrations([None, *told[:4], *BAD.values(), b"{}", *told[4:]]) == whole
    assert calibrations([None]) == (None, None)
