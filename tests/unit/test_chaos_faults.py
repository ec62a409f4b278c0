"""The fault harness's faults without brokers: which there are, whom they meet, and what counts as having happened."""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from streams.settings import Settings
from tests.integration.chaos.__main__ import FAULTS, RECREATED, choose
from tests.integration.chaos.cluster import Cluster
from tests.integration.chaos.faults import AT_WORK, STARTING, Bench, disk_full, killed
from tests.integration.chaos.fleet import Fleet, unexplained
from tests.integration.chaos.recorder import Recorder
from tests.integration.chaos.run import Disturbed
from tests.integration.lanes import Shop

LATE = """
import sys, time
time.sleep(float(sys.argv[1]))
print("lane taken over", flush=True)
time.sleep(60)
"""
"""A worker that takes so long to start."""


class Waits(random.Random):
    """Draws faults that wait for a worker at work, or none that does."""

    def __init__(self, *, wait: bool) -> None:
        super().__init__(1)
        self._drawn = 0.0 if wait else 0.99

    def random(self) -> float:
        return self._drawn


def bench_of(folder: Path, start_s: float) -> Bench:
    """A bench of one worker, and of brokers that do not run."""
    fleet = Fleet(Shop(Settings(home=folder)), folder, 1, program=(sys.executable, "-c", LATE, str(start_s)))
    return Bench(Cluster(folder / "cluster"), fleet, Recorder("127.0.0.1:1", "", "group", 1), 1, folder)


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One whose worker takes as long to start as the test says."""
    made = bench_of(tmp_path, request.param)
    made.fleet.start(1)
    try:
        yield made
    finally:
        made.fleet.stop()


@pytest.mark.parametrize("bench", [0.5], indirect=True)
def test_a_fault_waits_for_a_worker_that_is_at_work(bench: Bench) -> None:
    assert killed(bench, Waits(wait=True)) == AT_WORK


@pytest.mark.parametrize("bench", [60.0], indirect=True)
def test_a_fault_that_does_not_wait_is_told_to_have_met_a_worker_that_was_starting(bench: Bench) -> None:
    assert killed(bench, Waits(wait=False)) == STARTING


@pytest.mark.parametrize("bench", [60.0], indirect=True)
def test_a_fault_whose_time_is_over_does_not_happen(bench: Bench) -> None:
    bench.over.set()
    assert killed(bench, Waits(wait=True)) is None
    assert bench.fleet.slots[0].alive


def test_a_disk_that_cannot_be_filled_is_no_fault_that_happened(tmp_path: Path) -> None:
    assert disk_full(bench_of(tmp_path, 0), random.Random(1)) is None


def test_all_kinds_are_drawn_from_but_those_that_cannot_be() -> None:
    assert choose("", "exactly_once", small_disk=True) == ({*FAULTS, RECREATED}, {})
    chosen, left_out = choose("", "at_least_once", small_disk=False)
    assert left_out.keys() == {"disk_full", "frozen", "joined_and_left", "unreachable"}
    assert chosen == {*FAULTS, RECREATED} - left_out.keys()


@pytest.mark.parametrize(
    ("only", "guarantee", "small_disk"),
    [("frozen", "at_least_once", True), ("disk_full", "exactly_once", False), ("no_such", "exactly_once", True)],
)
def test_a_run_of_which_no_fault_is_left_is_refused(only: str, guarantee: str, *, small_disk: bool) -> None:
    with pytest.raises(typer.BadParameter):
        choose(only, guarantee, small_disk=small_disk)


def test_faults_that_hardly_met_workers_at_work_are_found_and_so_is_a_run_without_faults() -> None:
    assert Disturbed().unmet() == (1, "no fault happened")
    faults = Disturbed(tried=21)
    faults.happened.update({"killed while starting": 14, "frozen at work": 6, "leader_killed": 9})
    assert faults.unmet() == (15, "6 of 21 faults of workers met one that was at work")
    faults.happened["stopped at work"] += 1
    assert faults.unmet() == (0, "")
    assert Disturbed(Counter(leader_killed=9)).unmet() == (0, "")


def test_of_few_faults_a_share_is_asked_in_whole_faults_and_one_at_least() -> None:
    few = Disturbed(Counter({"frozen at work": 1, "killed while starting": 3}), tried=5)
    assert few.unmet() == (0, "")
    none = Disturbed(Counter({"killed while starting": 2}), tried=2)
    assert none.unmet() == (2, "0 of 2 faults of workers met one that was at work")


TRACEBACK = "Traceback (most recent call last):\nRuntimeError: half of all starts\n"
NO_BROKER = "127.0.0.1:1 does not answer\n"
REFUSED = TRACEBACK + "the worker ended   reason=another topic of that name status=1\n"


@pytest.mark.parametrize(
    ("said", "excused", "found"),
    [
        (NO_BROKER, True, ""),
        (NO_BROKER, False, "could not start, while no broker was away"),
        (TRACEBACK, True, "was ended by an exception that nobody caught"),
        (TRACEBACK, False, "was ended by an exception that nobody caught"),
        (REFUSED, True, ""),
    ],
)
def test_an_end_with_status_1_is_explained_by_a_broker_that_was_away_and_by_nothing_else(
    said: str, found: str, *, excused: bool
) -> None:
    assert unexplained(said, excused=excused) == found


@pytest.mark.parametrize("away", [True, False])
def test_a_worker_that_could_not_start_is_found_unless_brokers_were_away(tmp_path: Path, *, away: bool) -> None:
    program = (sys.executable, "-c", "import sys; sys.exit('no broker answers')")
    fleet = Fleet(Shop(Settings(home=tmp_path)), tmp_path, 1, program=program)
    if away:
        with fleet.starts_may_fail():
            pass
    fleet.start(1)
    with fleet.lock:
        assert fleet.wait(lambda: bool(fleet.statuses), 30)
    fleet.stop()
    assert bool(fleet.unexplained) != away
