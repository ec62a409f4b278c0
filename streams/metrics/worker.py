"""A worker's metrics for Prometheus, each with its meaning; ``deploy/METRICS.md`` is made from here.

Counters and histograms are updated a few times per slice, never per event; gauges are read from the worker at each
scrape. Base units (seconds, bytes, records); labels are bounded, and `LABELS` says by what.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scoring.events import Outcome
from scoring.shown import Shown
from scoring.units import HOUR_MS
from streams import topics
from streams.metrics.clicks import ClickMetrics
from streams.metrics.market import MarketMetrics
from streams.step import Effects, Slice
from streams.vitals import Stage

OUTCOMES = (*(outcome.name.lower() for outcome in Outcome), "dead", "rerouted")
STAGES = ("wait", "decode", "apply", "place", "encode", "deliver", "commit")
LANE_STAGES: tuple[Stage, ...] = ("taking over", "running", "lost")
ARMS_MAX = 64
"""Arms with a label of their own; all further arms are counted as ``other``, until one of these is silent."""
ARM_SILENT_MS = HOUR_MS
"""Arms without a placement for so long make room: their experiment has ended, and a worker may outlive hundreds."""

LABELS = {
    "topic": "the topic's name without prefix: a fixed set",
    "outcome": "what became of an event: a fixed set",
    "stage": "the steps of a slice, or of a lane's life: a fixed set",
    "clicked": "true or false",
    "detector": "calibration, surprise, interest, gain",
    "answer": "quicken, fall-back, retrain",
    "arm": f"the arms of experiments, at most {ARMS_MAX} at a time, then `other`",
    "reason": "why a candidate lost: a fixed set",
    "among": "advertiser, category",
    "of": "ad, brand",
    "finding": "the finding of an experiment: a fixed set",
    "slot": "slots of a placement, at most 50",
    "version": "the model in use: one",
    "specification": "the specification of the model in use: one",
    "layout": "the layout of rows: one",
    "group": "watched consumer groups",
    "partition": "partitions of the topics that those groups read, at most 20,000 in all",
    "status": "Burrow's statuses: a fixed set",
}

TIMES_S = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""From 10 µs, the fastest decoding, to 10 s, just below a slice's deadline."""
AGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)
"""From 1 ms, faster than any broker, to an hour: the backlog of an outage."""
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
RECOVERY_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ManyHistogram(Collector):
    """A histogram that takes many values, such as all ages of a slice, at once. ``buckets``: upper bounds, ascending.

    In plain Python: a live slice holds a few records, for which numpy's calls take longer than the counting.
    """

    def __init__(self, name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        self._bounds = (*buckets, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: Sequence[float]) -> None:
        """Count all of ``values``."""
        ordered = sorted(values)
        for place, bound in enumerate(self._bounds):
            self._counts[place] += bisect_right(ordered, bound)
        self._sum += sum(values)

    def collect(self) -> Iterator[Metric]:
        """Cumulative counts, as Prometheus wants them."""
        names = map(floatToGoString, self._bounds)
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric((), buckets=list(zip(names, self._counts, strict=True)), sum_value=self._sum)
        yield family


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker's gauges at one moment. Queued records and bytes are pairs: impressions, then clicks."""

    lanes: tuple[Stage, ...] = ()
    queued_records: tuple[int, int] = (0, 0)
    queued_bytes: tuple[int, int] = (0, 0)
    users: int = 0
    recovery_left: int = 0
    unaccounted: int = 0
    ads: int = 0
    shown: Shown | None = None
    pacing_error: float = 0.0
    unbilled_share: float = 0.0
    ledger_share: float = 0.0
    ready: bool = False
    models_refused: int = 0
    examined: tuple[float, ...] = ()
    """Probability that each slot is looked at, relative to the first; empty where no lane is held."""


class Metrics:
    """One worker's metrics, in their own registry."""

    def __init__(self) -> None:
        # Nobody needs a counter's creation time, and it would be a metric of its own.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        arrays = partial(ManyHistogram, registry=self.registry)
        # --- slices
        self.events = counter("salience_events", "Records taken, by input topic and outcome.", ("topic", "outcome"))
        self.slice_records = histogram("salience_slice_records", "Records in a slice.", buckets=RECORDS)
        self.stage_seconds = histogram(
            "salience_stage_seconds",
            "Duration of each step of a slice; wait: for the compute thread, which lanes share.",
            ("stage",),
            buckets=TIMES_S,
        )
        self.event_to_placement = arrays(
            "salience_event_to_placement_seconds",
            "From a record's timestamp, set by its producer, to the commit of its effects.",
            AGES_S,
        )
        self.ahead = gauge("salience_records_ahead_seconds", "How far most records are ahead of this worker's clock.")
        self.last_commit = gauge(
            "salience_last_commit_timestamp_seconds", "When this worker last committed a slice; 0 before the first."
        )
        # --- what comes out
        self.produced = counter("salience_produced_records", "Records delivered, by output topic.", ("topic",))
        self.placements = counter(
            "salience_placements", "Placements published, by arm; engine: of those in no experiment.", ("arm",)
        )
        self.unknown_ads = counter("salience_unknown_ads", "Events for ads that the catalogue does not hold.")
        self.misquoted = counter(
            "salience_misquoted_events", "Events with a price that no placement of their user has; they charge nothing."
        )
        self.expired = counter("salience_expired_users", "Users forgotten because they were idle.")
        self._clicks = ClickMetrics(self.registry)
        self._market = MarketMetrics(self.registry)
        # --- lanes
        self.lanes = gauge("salience_lanes", "Lanes that this worker holds, by stage.", ("stage",))
        self.ready = gauge("salience_ready", "1 if every lane that this worker holds is scored, as /readyz says.")
        self.rebalances = counter("salience_rebalances", "Times that the consumer group assigned lanes to this worker.")
        self.recovery_seconds = histogram(
            "salience_recovery_seconds", "From the assignment of a lane until it runs.", buckets=RECOVERY_S
        )
        self.recovery_left = gauge(
            "salience_recovery_records_left", "Changelog offsets that lanes being taken over still have to read."
        )
        self.queued_records = gauge("salience_queued_records", "Records fetched but not yet taken.", ("topic",))
        self.queued_bytes = gauge("salience_queued_bytes", "Bytes fetched but not yet taken.", ("topic",))
        self.users = gauge("salience_users", "Users whose rows this worker holds.")
        self.ads = gauge("salience_ads", "Ads in the catalogue.")
        self.unaccounted = gauge(
            "salience_unaccounted_records",
            "Records in minus those with a known fate, since the lanes' first record; must be 0.",
        )
        self.model = Info("salience_model", "The live model.", registry=self.registry)
        self.models_refused = gauge("salience_models_refused", "Models with a role that this worker does not use.")
        ProcessCollector(registry=self.registry)
        self._arms: dict[str, int] = {}  # when each was last placed by, ms; the longest silent first
        self._show_all()

    def _show_all(self) -> None:
        """Export every label set known in advance, so that rates start at 0 and not at the first event."""
        for name in topics.LANE_INPUTS:
            self.queued_records.labels(name)
            self.queued_bytes.labels(name)
            for outcome in OUTCOMES:
                self.events.labels(name, outcome)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for lane_stage in LANE_STAGES:
            self.lanes.labels(lane_stage)
        for topic in topics.TABLE:
            if topic.name not in (*topics.LANE_INPUTS, topics.ADS, topics.CONTROL, topics.MODELS):
                self.produced.labels(topic.name)

    def describe_model(self, version: str, specification: str, layout: int) -> None:
        """Set which model scores."""
        self.model.info({"version": version, "specification": specification, "layout": str(layout)})

    def committed(self, taken: Slice, effects: Effects, laps: Sequence[tuple[str, float]], now_ms: int) -> None:
        """Count a slice that was committed at ``now_ms``; ``laps``: seconds of each stage."""
        for (source, outcome), count in effects.tally.items():
            self.events.labels(topics.LANE_INPUTS[source], outcome).inc(count)
        self.slice_records.observe(len(taken.records))
        for stage, seconds in laps:
            self.stage_seconds.labels(stage).observe(seconds)
        # A record of an old message format has no time.
        ages_s = [(now_ms - record.timestamp) / 1000 for record in taken.records if record.timestamp >= 0]
        self.event_to_placement.observe([age if age > 0 else 0.0 for age in ages_s])
        if ages_s:
            self.ahead.set(max(-median(ages_s), 0.0))
        self.last_commit.set(now_ms / 1000)
        for name, messages in effects.messages.items():
            if messages:
                self.produced.labels(name).inc(len(messages))
        for arm, count in effects.arms.items():
            self.placements.labels(self._arm(arm, now_ms)).inc(count)
        self._clicks.observe(effects.observed, len(effects.messages[topics.OUTCOMES]), effects.drifts)
        self.unknown_ads.inc(effects.counts["unknown_ads"])
        self._market.refuse(effects.counts["refused_ads"])
        self.misquoted.inc(effects.counts["misquoted"])
        self.expired.inc(effects.counts["expired"])

    def begun_anew(self) -> None:
        """Count a click layer that began anew as its lane was taken over."""
        self._clicks.begun_anew.inc()

    def _arm(self, arm: str, now_ms: int) -> str:
        if arm not in self._arms and len(self._arms) >= ARMS_MAX:
            silent, last_ms = next(iter(self._arms.items()))
            if now_ms - last_ms < ARM_SILENT_MS:
                return "other"
            del self._arms[silent]
            self.placements.remove(silent)
        self._arms.pop(arm, None)
        self._arms[arm] = now_ms
        return arm

    def stands(self, now: Standing) -> None:
        """Set the gauges to the worker's present state."""
        for stage in LANE_STAGES:
            self.lanes.labels(stage).set(now.lanes.count(stage))
        for name, records, size in zip(topics.LANE_INPUTS, now.queued_records, now.queued_bytes, strict=True):
            self.queued_records.labels(name).set(records)
            self.queued_bytes.labels(name).set(size)
        self.users.set(now.users)
        self.ads.set(now.ads)
        self.recovery_left.set(now.recovery_left)
        self.unaccounted.set(now.unaccounted)
        self.ready.set(now.ready)
        self.models_refused.set(now.models_refused)
        self._clicks.stand(now.examined)
        if now.shown is not None:
            self._market.stand(now.shown)
        self._market.charge(now.pacing_error, now.unbilled_share, now.ledger_share)
