"""Benchmarks on a small load: their engines do all of the work, every event counts once, the report is complete.

No test looks at a time, nor at a ratio of times: on a busy machine those of a small run are noise.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.brokers import Broker, BrokerError
from tests.bench import e2e, ingest, latency, overload, receipts, recovery, scale, swap
from tests.bench.bed import Bed, BenchError
from tests.bench.bed import bed as bed_in
from tests.bench.goals import GOALS
from tests.bench.load import Load
from tests.bench.report import Report

pytestmark = pytest.mark.integration

LOAD = Load(events=2_000, users=200, ads=2_000)


def places(report: Report, above: str = "") -> set[str]:
    """Where a report has anything, as goals name it."""
    return {above + name for name in report}.union(
        *(places(part, f"{above}{name}.") for name, part in report.items() if isinstance(part, dict))
    )


def goals_of(benchmark: str) -> set[str]:
    return {goal.at for goal in GOALS[benchmark]}


@pytest.fixture
def bed(kafka: Broker, tmp_path: Path) -> Bed:
    if not kafka.transactions:
        pytest.skip("exactly_once needs a broker with transactions, and Apache Kafka could not be had")
    return Bed(kafka.bootstrap, tmp_path, None, lambda _line: None)


def test_what_fails_on_a_broker_that_has_ended_is_laid_to_that_and_else_is_as_it_was(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.transactions:
        pytest.skip("starts Apache Kafka, and it could not be had")

    def fail(*, end: bool) -> None:
        with bed_in(tmp_path, [].append) as there:
            if end:
                os.kill(there.broker_pids[0], signal.SIGKILL)
                os.waitid(os.P_PID, there.broker_pids[0], os.WEXITED | os.WNOWAIT)
            raise BenchError("no leaders")

    with pytest.raises(BrokerError, match="Node 0 ended with code -9"):
        fail(end=True)
    monkeypatch.setattr("tests.bench.bed.ApacheKafka", lambda *_, **__: contextlib.nullcontext(kafka))
    with pytest.raises(BenchError, match="no leaders"):
        fail(end=False)


def test_ingest_tells_every_engines_pace_and_leaves_out_those_that_are_not_there(bed: Bed) -> None:
    report = ingest.measure(bed, LOAD, {"aiokafka": sys.executable})
    paces = report["events_per_s"]
    assert paces["faust_stock"] is paces["quix"] is report["ratio_vs_faust_stock"] is report["ratio_vs_quix"] is None
    assert {name for name, found in paces.items() if found is not None} == {
        "salience_at_least_once",
        "salience_exactly_once",
        "aiokafka",
    }
    assert 150 < report["bytes_per_event"] < 170
    assert goals_of("ingest") <= places(report)


def test_every_touched_user_gets_a_placement_in_the_e2e_benchmark(bed: Bed) -> None:
    users = len(set(LOAD.user_numbers().tolist()))
    report = e2e.measure(bed, LOAD)
    for guarantee in ("at_least_once", "exactly_once"):
        assert users / LOAD.events - 0.001 <= report["placements_per_event"][guarantee] <= 1


def test_every_receipt_that_the_benchmark_seeks_is_found_on_every_lane(bed: Bed) -> None:
    report = receipts.measure(bed, LOAD)
    users = len(set(LOAD.user_numbers().tolist()))
    assert users <= report["receipts"] <= LOAD.events
    assert 0 < report["found_s"]["median"] <= report["found_s"]["longest"]
    assert report["missing_s"] > 0
    assert report["topic_s"] > 0


def test_the_generator_has_every_event_answered_by_placements_and_by_the_echo(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "capped", lambda _capacity: 100.0)
    monkeypatch.setattr(latency, "LOADS", (0.5,))
    report = latency.measure(bed, seconds=2, events=400, warm_s=1)
    assert {place for place in goals_of("latency") if "load_50" in place} <= places(report)
    for guarantee in ("at_least_once", "exactly_once"):
        found = report["latency"][guarantee]["load_50"]
        assert found["events"] == 50 * 2
        assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"]
        assert found["echo_p99_ms"] > 0
        if Path("/proc/self/stat").exists():  # else nobody knows
            assert found["core"] > 0
            assert found["event_vs_backlog"] > 0


def test_an_overload_is_answered_to_the_last_event(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "capped", lambda _capacity: 100.0)
    report = overload.measure(bed, seconds=2, events=400)
    assert report["events_per_s"] == 150
    assert all(megabytes > 0 for megabytes in report["resident_mb"].values())
    assert report["lag_max"] >= 0


def test_recovery_brings_every_user_back_from_the_changelog_and_from_a_snapshot(bed: Bed) -> None:
    report = recovery.measure(bed, users=500)
    assert set(report) == {"recover_s", "recover_snapshot_s", "from_process_start_s"}
    assert goals_of("state") - {"bytes_per_user"} <= places(report)


def test_the_scale_benchmark_has_a_cell_of_every_size(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ADS", (1_000, 20_000))
    monkeypatch.setattr(scale, "USERS", (100,))
    monkeypatch.setattr(scale, "PARTITIONS", (4,))
    report = scale.measure(bed, ingest_events=600, e2e_events=300)
    assert goals_of("scale") <= places(report)
    assert list(report["workers"]["e2e"]) == ["1", "2"]
    assert list(report["partitions"]["ingest"]) == ["4"]
    assert list(report["ads"]) == ["1000", "20000"]
    assert list(report["users"]) == ["100"]
    assert all(math.isfinite(cell["per_s"]) for cell in report["users"].values())


def test_every_event_is_answered_while_models_change(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "capped", lambda _capacity: 100.0)
    report = swap.measure(bed, seconds=3, events=400, warm_s=1)
    assert goals_of("swap") <= places(report)
    assert report["events"] == 50 * 3
    assert report["changes"] >= 2
    for figure in ("p50_ms", "p99_ms", "max_ms"):
        assert report[figure]["before"] > 0
        assert report[figure]["during"] > 0


def test_a_benchmark_that_is_told_to_end_leaves_no_folder_and_no_broker(bed: Bed, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "streams.cli", "bench", "ingest", "--events", "1000"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as benchmark:
        while not list(temporary.glob("*/broker/node-0/server.log")) and benchmark.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                benchmark.wait(0.02)
        benchmark.terminate()
        said, _ = benchmark.communicate()
    assert benchmark.returncode == 128 + signal.SIGTERM, said
    assert list(temporary.glob("salience-bench-*")) == []
