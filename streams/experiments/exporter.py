"""Prometheus metrics of the referee."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.experiments.findings import Code
from streams.experiments.vitals import Vitals


class RefereeCollector(Collector):
    """What a referee has read and found, at the moment of the scrape."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        """Every metric. None has an experiment's number or name as a label: experiments come and go."""
        seen = self._vitals
        yield GaugeMetricFamily(
            "salience_referee_judging",
            "1 while experiments are judged, 0 where /healthz says why not.",
            not seen.unwell(),
        )
        yield GaugeMetricFamily(
            "salience_referee_judged_timestamp_seconds",
            "When experiments were last judged, 0 before the first time.",
            seen.judged_ms / 1000,
        )
        behind = GaugeMetricFamily(
            "salience_referee_lag_records", "Records that the referee has not read yet.", labels=["topic"]
        )
        for topic, records in seen.behind.items():
            behind.add_metric([topic], records)
        yield behind
        yield CounterMetricFamily(
            "salience_referee_unwatched",
            "Times that the referee had no place for somebody, who then counts in no experiment.",
            seen.unwatched,
        )
        experiments = GaugeMetricFamily(
            "salience_experiments", "Experiments, as they were last judged, by what they show.", labels=["finding"]
        )
        for code in get_args(Code):
            experiments.add_metric([code], seen.found[code])
        yield experiments
        yield CounterMetricFamily(
            "salience_guardrails_broken", "Experiments ended since the start: an arm broke a guardrail.", seen.broken
        )
