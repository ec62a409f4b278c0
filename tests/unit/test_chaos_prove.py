"""The proof of the fault harness: what counts as a mistake found, and what does not."""

from typing import Any

import msgspec
import pytest

from tests.integration.chaos.mutations import FOUND_BY, MUTATIONS
from tests.integration.chaos.prove import CONTROL, amiss
from tests.integration.chaos.run import Report

CLEAN = Report(
    seed=1,
    minutes=1,
    guarantee="exactly_once",
    mutation="none",
    faults={"killed at work": 3},
    events=1_000,
    dead_letters=0,
    placements=10,
    slices=10,
    worker_ends={"0": 2},
    lag=0,
    lost=0,
    doubled=0,
    reordered=0,
    other=0,
    ended=0,
    left_open=0,
    unmet=0,
    findings=[],
    notes=[],
)


def told(**fields: Any) -> bytes:
    """What a run says on stdout."""
    return msgspec.json.encode(msgspec.structs.replace(CLEAN, **fields))


def test_a_control_without_findings_and_a_mutation_found_by_its_own_kind_are_as_they_should_be() -> None:
    assert amiss(CONTROL, 0, told()) == ""
    assert amiss("no_offset_in_row", 1, told(other=3, findings=["other: 3 rows are not those of the replay"])) == ""


def test_a_control_that_ended_otherwise_than_with_success_is_amiss_though_it_names_no_finding() -> None:
    assert "status 1" in amiss(CONTROL, 1, told(lag=5_000))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_not_found_by_what_a_run_left_open_or_how_workers_ended(mutation: str) -> None:
    assert "not found" in amiss(mutation, 1, told(left_open=1, findings=["left open: child process 7"]))
    assert "not found" in amiss(mutation, 1, told(ended=1, findings=["ended: 1 workers ended with status 9"]))
    assert "not found" in amiss(mutation, 1, told(unmet=1, findings=["no fault happened"]))


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_found_by_the_kinds_that_are_named_for_it_alone(mutation: str) -> None:
    for kind in ("lost", "doubled", "reordered", "other"):
        found = amiss(mutation, 1, told(**{kind: 1, "findings": [f"{kind}: 1 of something"]})) == ""
        assert found == (kind in FOUND_BY[mutation])


@pytest.mark.parametrize("stdout", [b"", b'{"seed": 1'])
def test_a_run_that_ended_without_a_report_is_told_as_one_that_crashed(stdout: bytes) -> None:
    assert "crashed with status -9" in amiss("no_fence", -9, stdout)
    assert "crashed with status 1" in amiss(CONTROL, 1, stdout)
