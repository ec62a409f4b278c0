"""Records that can be read and hardly be told: of times that no calendar has, nested nearly as deep as can be read."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from streams.cli import explain, tail
from streams.cli.screen import moment, screen
from tests.builders import START_MS, Record

DEPTHS = range(600, 1_100)
"""Around the thousand at which reading ends; how many there are to be had depends on who calls."""


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_whatever_of_a_nested_value_can_be_read_is_told_as_json_and_to_people() -> None:
    for depth in DEPTHS:
        record = Record("clicks", 0, 0, START_MS, b"a", nested(depth))
        assert json.dumps(tail.as_object(record))
        assert tail.for_people("clicks", record)
    assert tail.as_object(Record("clicks", 0, 0, START_MS, b"a", nested(600)))["value"] == json.loads(nested(600))


@pytest.mark.parametrize("time_ms", [253_402_300_800_000, 1_700_000_000_000_000, 2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_is_told_as_its_producer_wrote_it(
    time_ms: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert moment(time_ms, "%Y-%m-%d") == f"{time_ms} ms"
    screen(soft_wrap=True).print(tail.for_people("clicks", Record("clicks", 0, 7, time_ms, b"a", b"{}")))
    assert capsys.readouterr().out == f"{time_ms} ms 0:7 a {{}}\n"


def test_a_records_time_is_told_to_the_millisecond() -> None:
    for ms in (0, 1, 57, 999):
        told = tail.for_people("clicks", Record("clicks", 0, 7, 1_700_000_000_000 + ms, b"a", b"{}"))
        assert str(told).startswith(f"22:13:20.{ms:03} 0:7 ")


def test_a_null_is_told_as_a_value_and_a_tombstone_as_none() -> None:
    null, tombstone = (Record("ads", 0, 0, START_MS, b"a", value) for value in (b"null", None))
    assert str(tail.for_people("ads", null)).endswith(" a null")
    assert str(tail.for_people("ads", tombstone)).endswith(" a (tombstone)")
    assert str(tail.for_people("ads", Record("ads", 0, 0, START_MS, b"a", b'"(tombstone)"'))).endswith('"(tombstone)"')
    assert "tombstone" not in tail.as_object(null)
    assert (tail.as_object(tombstone)["value"], tail.as_object(tombstone)["tombstone"]) == (None, True)


def _placement(name: str, **slots_own: Any) -> bytes:
    """A placement of one slot, in which everything is called ``name``."""
    slot = {
        "slot": 0, "ad_id": name, "campaign_id": "c", "pctr": 0.5, "ecpm_micros": 1, "price_micros": 1,
        "propensity": 1, "attention": [{"ad_id": name, "weight": 1}],
    }  # fmt: skip
    made = {"placement_id": name, "user_id": name, "arm": name, "model": "m", "slots": [slot | slots_own]}
    return json.dumps(made | {"time_ms": START_MS, "valid_until_ms": START_MS}).encode()


HUGE = 10**400


def test_a_placement_of_a_price_that_is_no_fraction_is_told_on_a_line_as_it_is() -> None:
    record = Record("placements", 0, 7, START_MS, b"a", _placement("b", ecpm_micros=HUGE))
    assert str(HUGE) in str(tail.for_people("placements", record))


@pytest.mark.parametrize(
    "value",
    [_placement("b", ecpm_micros=HUGE), _placement("b", price_micros=HUGE), _placement("b", slot=7), b"{", b""],
)
def test_a_receipt_whose_placement_cannot_be_told_is_refused_in_words(
    value: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    decision: Any = SimpleNamespace(placement_id="p-1", placement=value, examined=bytes(8), fates=b"")
    with pytest.raises(typer.Exit):
        explain._told(decision)
    assert "The receipt 'p-1' holds no placement that can be told: " in " ".join(capsys.readouterr().err.split())


FORGED = "a\n22:13:20.000 0:7 ad-1 (tombstone)"


@pytest.mark.parametrize(
    "record",
    [
        Record("clicks", 0, 7, START_MS, FORGED.encode(), b"{}"),
        Record("clicks", 0, 7, START_MS, b"a", json.dumps(FORGED).encode()),
        Record("clicks", 0, 7, START_MS, b"a", b"{}", [(FORGED, b"")]),
        Record("clicks", 0, 7, START_MS, b"a", b"{}", [("h", FORGED.encode())]),
    ],
)
def test_no_record_can_be_told_as_two(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    screen(soft_wrap=True).print(tail.for_people("clicks", record))
    (line,) = capsys.readouterr().out.splitlines()
    assert r"a\n22:13:20.000 0:7 ad-1 (tombstone)" in line


def test_no_name_in_a_placement_begins_a_line_of_its_tables_own(capsys: pytest.CaptureFixture[str]) -> None:
    screen(width=400).print(
        tail.for_people("placements", Record("placements", 0, 7, START_MS, b"a", _placement(FORGED)))
    )
    assert not [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("22:13:20.000 0:7")]
