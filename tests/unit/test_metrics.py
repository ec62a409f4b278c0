"""Metrics: what a slice adds to them, and that they are those of the page."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from streams.laps import Laps
from streams.metrics.table import monitor_rows, referee_rows, review_rows, table, worker_rows
from streams.metrics.worker import AGES_S, LABELS, TIMES_S, ManyHistogram, Metrics, Standing

PAGE = Path(__file__).parents[2] / "deploy" / "METRICS.md"


def told_by(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample as Prometheus writes it: name{labels} and value."""
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_the_page_of_metrics_is_the_one_that_the_command_prints() -> None:
    assert PAGE.read_text() == table(), "write it anew: salience metrics > deploy/METRICS.md"


def test_every_label_has_a_bound_and_every_metric_a_unit() -> None:
    rows = [*worker_rows(), *monitor_rows(), *review_rows(), *referee_rows()]
    assert {label for row in rows for label in row.labels} == LABELS.keys()
    for row in rows:
        assert row.text.endswith((".", "0")), row
        assert row.name.startswith(("salience_", "process_"))
        assert (row.kind == "counter") == row.name.endswith("_total"), row


def test_a_page_of_an_idle_worker_holds_every_metric_of_the_table() -> None:
    metrics = Metrics()
    metrics.describe_model("demo", "abc", 2)
    text = generate_latest(metrics.registry).decode()
    told = {tuple(line.split()[2:4]) for line in text.splitlines() if line.startswith("# TYPE")}
    assert told == {(row.name, row.kind) for row in worker_rows()}


@given(st.lists(st.lists(st.floats(0, 10_000), max_size=50), max_size=5))
def test_a_histogram_of_many_counts_like_prometheus_own(batches: list[list[float]]) -> None:
    ours = CollectorRegistry()
    histogram = ManyHistogram("ages", "Ages.", AGES_S, ours)
    for batch in batches:
        histogram.observe(batch)
    values = [value for batch in batches for value in batch]

    told = {
        sample.labels.get("le", sample.name): sample.value for family in ours.collect() for sample in family.samples
    }

    assert told["+Inf"] == told["ages_count"] == len(values)
    assert told["ages_sum"] == pytest.approx(sum(values))
    for bound in AGES_S:
        assert told[repr(float(bound))] == sum(value <= bound for value in values)


def test_times_fit_microseconds_to_seconds() -> None:
    assert (TIMES_S[0], TIMES_S[-1]) == (1e-5, 10.0)
    assert all(after / before <= 2.5 for before, after in pairwise(TIMES_S))


def test_laps_are_the_times_between_calls() -> None:
    now = iter([1.0, 1.5, 3.5])
    laps = Laps(lambda: next(now))
    laps("wait")
    laps("decode")
    assert laps.times == [("wait", 0.5), ("decode", 2.0)]


def test_gauges_are_the_worker_as_it_stands() -> None:
    metrics = Metrics()
    metrics.stands(
        Standing(
            lanes=("running", "running", "taking over"),
            queued_records=(3, 5),
            queued_bytes=(30, 50),
            users=7,
            recovery_left=11,
            unaccounted=0,
            ads=20,
            ready=True,
            examined=(1.0, 0.75),
        )
    )
    told = told_by(metrics.registry)
    assert told['salience_lanes{stage="running"}'] == 2
    assert told['salience_lanes{stage="lost"}'] == 0
    assert told['salience_queued_records{topic="clicks"}'] == 5
    assert told['salience_queued_bytes{topic="ad-impressions"}'] == 30
    assert (told["salience_users"], told["salience_ads"], told["salience_ready"]) == (7, 20, 1)
    assert told["salience_recovery_records_left"] == 11
    assert told['salience_slot_examination_ratio{slot="1"}'] == 0.75
    metrics.stands(Standing())
    assert 'salience_slot_examination_ratio{slot="1"}' not in told_by(metrics.registry)
