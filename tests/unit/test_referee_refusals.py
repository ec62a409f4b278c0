"""Impressions that the workers make dead letters: they expose nobody to an experiment."""

from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from scoring.units import DAY_MS
from streams.clock import wall_ms
from streams.experiments.service import RefereeService
from streams.settings import Settings
from streams.topics import AD_IMPRESSIONS
from streams.wire import encode_json
from tests.builders import Record
from tests.unit.showing import placed
from tests.unit.test_experiments import running

SHOWN = {"event_id": "e", "user_id": "u", "ad_id": "a", "time_ms": 10, "slot": 0, "placement_id": placed("u", (1, 0))}


def exposed(home: Path, key: bytes | None, fields: dict[str, Any]) -> tuple[int, int]:
    """How many people are in the books of a referee that reads such an impression, and how many are malformed."""
    service = RefereeService(Settings(home=home), 0, lambda _: None)
    service._referee.follow(running())
    record = Record(AD_IMPRESSIONS, 0, 0, 10, key, encode_json(SHOWN | fields))
    service._take_impressions({TopicPartition(AD_IMPRESSIONS, 0): [record]})
    return service._referee.people.number, service._referee.malformed


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (b"session-7", {}),
        (None, {}),
        (b"u\n", {"user_id": "u\n"}),
        (b"u", {"price_micros": -1}),
        (b"u", {"surface": 7}),
        (b"u", {"seal": "x" * 10_000}),
        (b"u", {"time_ms": wall_ms() + DAY_MS}),
    ],
)
def test_an_impression_that_workers_refuse_for_its_key_price_seal_or_time_exposes_nobody(
    key: bytes | None, fields: dict[str, Any], tmp_path: Path
) -> None:
    assert exposed(tmp_path, key, fields) == (0, 1)


def test_an_impression_that_workers_take_exposes_whom_it_was_shown(tmp_path: Path) -> None:
    assert exposed(tmp_path, b"u", {"price_micros": 5, "surface": "home", "time_ms": wall_ms()}) == (1, 0)
