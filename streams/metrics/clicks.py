"""A worker's metrics of click predictions (part of `streams.metrics.worker`)."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from scoring.feedback import Observed
from scoring.watch import Answer, Detector
from streams.control_wire import Drift
from streams.quality import KEPT, Quality


class ClickMetrics:
    """Counts outcomes as they come; figures over the latest outcomes are computed at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._outcomes = counter(
            "salience_impression_outcomes",
            "Impressions whose outcome is known, by whether they were clicked.",
            ("clicked",),
        )
        self._ended = counter(
            "salience_click_windows",
            "Impressions whose click window has ended, by whether they were clicked: of these the click rate.",
            ("clicked",),
        )
        self._unnamed = counter(
            "salience_unnamed_outcomes", "Outcomes of ads no longer in the catalogue; they are not published."
        )
        self._calibration = gauge(
            "salience_click_calibration_ratio", f"Clicks over predicted clicks, in the last {KEPT:,} outcomes."
        )
        self._clicks = gauge("salience_click_window_clicks", f"Clicks in the last {KEPT:,} outcomes.")
        self._expected = gauge(
            "salience_click_window_expected_clicks", f"Clicks predicted for the last {KEPT:,} outcomes."
        )
        self._log_loss = gauge("salience_click_log_loss", f"Mean log loss of the last {KEPT:,} predictions.")
        self._auc = gauge(
            "salience_click_auc", f"Probability that a click ranks above a non-click, in the last {KEPT:,} outcomes."
        )
        self._ranks = counter(
            "salience_click_ranks",
            f"For each click, the share of non-clicks in the last {KEPT:,} outcomes that were predicted lower; summed.",
        )
        self._ranked = counter(
            "salience_ranked_clicks",
            "Clicks in salience_click_ranks; that sum over this is the AUC of any period.",
        )
        self._drifts = counter("salience_click_drifts", "Changes of the predictions' error that ADWIN detected.")
        self._alarms = counter(
            "salience_click_alarms",
            "Drifts that lanes' click layers told on the topic control, by what drifted and the layer's answer.",
            ("detector", "answer"),
        )
        self._cut = counter(
            "salience_click_windows_cut",
            "Impressions whose click window ended early, because their lane had too many open.",
        )
        self.begun_anew = counter(
            "salience_click_layers_begun_anew",
            "Click layers that began anew as a lane was taken over: what was kept was damaged, or of another layout.",
        )
        self._examined = gauge(
            "salience_slot_examination_ratio",
            "Probability that a slot is looked at, relative to the first; mean of what this worker's lanes learned.",
            ("slot",),
        )
        self._quality = Quality()
        for clicked in ("false", "true"):
            self._outcomes.labels(clicked)
            self._ended.labels(clicked)
        for detector, answer in product(Detector, Answer):
            self._alarms.labels(detector.value, answer.value)

    def observe(self, observed: Observed, told: int, drifts: Sequence[Drift] = ()) -> None:
        """Count outcomes as they come, ``told`` of them published, and predictions once their windows have ended.

        Clicks come before the non-clicks that were shown with them: whenever traffic grows, they are too large a part
        of what comes. Of the windows that have ended they are not.
        """
        for counted, rows in ((self._outcomes, observed.outcomes), (self._ended, observed.judged)):
            if len(rows):  # most live slices have neither
                clicks = int(np.count_nonzero(rows["clicked"]))
                counted.labels("true").inc(clicks)
                counted.labels("false").inc(len(rows) - clicks)
        self._unnamed.inc(len(observed.outcomes) - told)
        if len(observed.judged):
            before = self._quality.drifts
            self._quality.observe(observed.judged)
            self._quality.watch(observed.judged)
            self._drifts.inc(self._quality.drifts - before)
        self._cut.inc(observed.cut)
        for drift in drifts:
            self._alarms.labels(drift.detector, drift.answer).inc()

    def stand(self, examined: Sequence[float]) -> None:
        """Set the gauges; ``examined``: slots' examination, from the first."""
        self._examined.clear()  # so that lanes that are not held any more tell nothing
        for slot, chance in enumerate(examined):
            self._examined.labels(str(slot)).set(chance)
        for gauge, value in zip((self._calibration, self._log_loss, self._auc), self._quality.figures(), strict=True):
            gauge.set(value)
        ranks = self._quality.ranks()
        self._ranks.inc(float(ranks.sum()))
        self._ranked.inc(len(ranks))
        for gauge, value in zip((self._clicks, self._expected), self._quality.clicks(), strict=True):
            gauge.set(value)
