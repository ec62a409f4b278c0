"""The overload's own judgement: one that was none proves nothing."""

import msgspec
import pytest

from tests.integration.chaos.overload import Report
from tests.integration.chaos.run import LANES

WELL = Report(
    capacity_per_s=4_000,
    offered_per_s=6_000,
    minutes=10,
    events=3_640_000,
    events_offered=3_600_000,
    undelivered=0,
    events_in=3_640_000,
    unprocessed=0,
    most_behind=1_200_000,
    seconds_to_catch_up=300.0,
    memory_mb={},
    memory_growth=1.0,
    takeovers=LANES,
    placements_doubled=0,
    worker_status=0,
)


def test_a_worker_that_kept_its_shape_under_an_overload_is_well() -> None:
    assert WELL.ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"events_offered": 600_000},
        {"most_behind": 0},
        {"undelivered": 1},
        {"unprocessed": 1},
        {"memory_growth": 1.2},
        {"takeovers": LANES + 1},
        {"placements_doubled": 1},
        {"worker_status": 70},
    ],
    ids=str,
)
def test_a_run_with_something_wrong_is_not(wrong: dict[str, float]) -> None:
    assert not msgspec.structs.replace(WELL, **wrong).ok
