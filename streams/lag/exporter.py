"""The latest report as Prometheus metrics, made at every scrape. Of a stale report, only the age is exported."""

import math
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.lag.arithmetic import PartitionLag, Status
from streams.lag.monitor import News

LABELS = ("group", "topic", "partition")

PER_PARTITION: tuple[tuple[str, str, Callable[[PartitionLag], float | None]], ...] = (
    ("salience_lag_records", "Records behind: log end - committed offset.", lambda lag: lag.lag),
    (
        "salience_lag_seconds",
        "Time lag: since when the record at the committed offset has been there; at least, where the watch is younger.",
        lambda lag: lag.time_lag_s,
    ),
    ("salience_lag_committed_offset", "The group's committed offset, the next one to read.", lambda lag: lag.committed),
    ("salience_lag_log_end_offset", "The log end, the next offset to be written.", lambda lag: lag.log_end),
    ("salience_lag_consumed_records_per_second", "Consumption over the window.", lambda lag: lag.consumed_per_s),
    ("salience_lag_produced_records_per_second", "Production over the window.", lambda lag: lag.produced_per_s),
    (
        "salience_lag_catch_up_seconds",
        "Estimated time to catch up at the present rates; +Inf where it never would.",
        lambda lag: None if lag.lag is None else math.inf if lag.catch_up_s is None else lag.catch_up_s,
    ),
    ("salience_lag_stuck_seconds", "How long there has been lag without any progress.", lambda lag: lag.stuck_s),
)


class LagCollector(Collector):
    """Collects from ``latest``, which gives the monitor's news."""

    def __init__(self, latest: Callable[[], News]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Every metric of the monitor; those of groups are empty while the report is stale."""
        news = self._latest()
        groups = () if news.stale else news.report.groups
        for name, text, value_of in PER_PARTITION:
            family = GaugeMetricFamily(name, text, labels=LABELS)
            for group in groups:
                for lag in group.partitions:
                    if (value := value_of(lag)) is not None:
                        family.add_metric((group.group, lag.topic, str(lag.partition)), value)
            yield family
        states = GaugeMetricFamily(
            "salience_lag_status", "1 for the partition's status, 0 for the others.", labels=(*LABELS, "status")
        )
        members = GaugeMetricFamily("salience_lag_group_members", "Live members of the group.", labels=("group",))
        for group in groups:
            if group.members is not None:
                members.add_metric((group.group,), group.members)
            for lag in group.partitions:
                for status in Status:
                    labels = (group.group, lag.topic, str(lag.partition), status.value)
                    states.add_metric(labels, float(lag.status is status))
        yield states
        yield members
        yield from _freshness(news)


def _freshness(news: News) -> Iterator[Metric]:
    """Metrics that tell whether to believe the others."""
    for name, text, value in (
        ("salience_lag_poll_timestamp_seconds", "When a poll last succeeded; 0 before the first.", news.time_ms / 1000),
        ("salience_lag_poll_age_seconds", "Since the last poll that succeeded, or since the start.", news.age_s),
        ("salience_lag_poll_duration_seconds", "What the latest poll took.", news.poll_s),
        ("salience_lag_lacking", "1 while no broker tells some groups or log ends, else 0.", bool(news.lacking)),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    polls = CounterMetricFamily("salience_lag_polls", "Polls, by how they ended.", labels=("outcome",))
    polls.add_metric(("ok",), news.polls - news.failed)
    polls.add_metric(("failed",), news.failed)
    yield polls
