"""What a worker tells Prometheus of its click predictions (part of `streams.metrics.worker`)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from scoring.feedback import Observed
from streams.quality import KEPT, Quality


class ClickMetrics:
    """Fed with outcomes; the figures that look back are made when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._outcomes = counter(
            "salience_impression_outcomes",
            "Impressions whose outcome is known, by whether they were clicked.",
            ("clicked",),
        )
        self._unnamed = counter(
            "salience_unnamed_outcomes", "Outcomes of ads that the catalogue holds no more; nobody is told of them."
        )
        self._calibration = gauge(
            "salience_click_calibration_ratio", f"Clicks over predicted clicks, of the last {KEPT:,} outcomes."
        )
        self._clicks = gauge("salience_click_window_clicks", f"Clicks of the last {KEPT:,} outcomes.")
        self._expected = gauge(
            "salience_click_window_expected_clicks", f"Clicks predicted of the last {KEPT:,} outcomes."
        )
        self._log_loss = gauge("salience_click_log_loss", f"Mean log loss of the last {KEPT:,} predictions.")
        self._auc = gauge(
            "salience_click_auc", f"Chance to rank a click above a non-click, of the last {KEPT:,} outcomes."
        )
        self._ranks = counter(
            "salience_click_ranks",
            f"Sum over clicks of the share of non-clicks, of the last {KEPT:,} outcomes, that were predicted lower.",
        )
        self._ranked = counter(
            "salience_ranked_clicks", "Clicks of which that is the sum: over them it is the AUC of any time."
        )
        self._drifts = counter("salience_click_drifts", "Times that ADWIN has found the predictions' error changed.")
        self._cut = counter(
            "salience_click_windows_cut",
            "Impressions whose window had to end early, since too many of their lane were open.",
        )
        self._examined = gauge(
            "salience_slot_examination_ratio",
            "How likely a slot is looked at, by the first, as this worker's lanes have learned it: their mean.",
            ("slot",),
        )
        self._quality = Quality()
        for clicked in ("false", "true"):
            self._outcomes.labels(clicked)

    def observe(self, observed: Observed, told: int) -> None:
        """Count outcomes, as they come, of which so many were ``told``; predictions once their windows have ended."""
        clicks = int(np.count_nonzero(observed.outcomes["clicked"]))
        self._outcomes.labels("true").inc(clicks)
        self._outcomes.labels("false").inc(len(observed.outcomes) - clicks)
        self._unnamed.inc(len(observed.outcomes) - told)
        before = self._quality.drifts
        self._quality.observe(observed.judged)
        self._quality.watch(observed.judged)
        self._drifts.inc(self._quality.drifts - before)
        self._cut.inc(observed.cut)

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
