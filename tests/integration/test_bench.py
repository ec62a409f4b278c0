"""Benchmarks on a small load: their engines do all of the work, and the report has what it promises."""

import sys
from pathlib import Path

import pytest

from deploy.brokers import Broker
from tests.bench import e2e, ingest
from tests.bench.bed import Bed
from tests.bench.load import Load

pytestmark = pytest.mark.integration

LOAD = Load(events=2_000, users=200, ads=100)


@pytest.fixture
def bed(kafka: Broker, tmp_path: Path) -> Bed:
    if not kafka.transactions:
        pytest.skip("exactly_once needs transactions")
    return Bed(kafka.bootstrap, tmp_path, None, lambda _line: None)


def test_ingest_tells_every_engines_pace_and_leaves_out_those_that_are_not_there(bed: Bed) -> None:
    report = ingest.measure(bed, LOAD, {"aiokafka": sys.executable})
    paces = report["events_per_s"]
    assert paces["faust_stock"] is paces["quix"] is report["ratio_vs_faust_stock"] is report["ratio_vs_quix"] is None
    for name in ("salience_at_least_once", "salience_exactly_once", "aiokafka"):
        assert paces[name] > 0
    assert report["ratio_vs_aiokafka"] == pytest.approx(paces["salience_at_least_once"] / paces["aiokafka"], rel=0.02)
    assert report["exactly_once_ratio"] > 0
    assert 150 < report["bytes_per_event"] < 170


def test_every_touched_user_gets_a_placement_in_the_e2e_benchmark(bed: Bed) -> None:
    users = len(set(LOAD.user_numbers().tolist()))
    report = e2e.measure(bed, LOAD)
    for guarantee in ("at_least_once", "exactly_once"):
        assert report["placements_per_s"][guarantee] > 0
        assert users / LOAD.events - 0.001 <= report["placements_per_event"][guarantee] <= 1
