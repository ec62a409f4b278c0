"""A worker's metrics of its market: ads refused, why candidates lost, variety, breadth and fairness."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from scoring.shown import Shown


class MarketMetrics:
    """Read from `scoring.shown.Shown` at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._refused = counter("salience_refused_ads", "Unreadable ads, counted as they become dead letters.")
        self._losers = counter("salience_losing_candidates", "Candidates that were not placed, by reason.", ("reason",))
        self._empty = counter("salience_empty_slots", "Slots that the rules, budgets included, left empty.")
        self._filled = counter("salience_filled_slots", "Slots in which an ad was placed.")
        self._distance = gauge(
            "salience_list_distance", "Mean cosine distance between the ads of a placement, over the last few thousand."
        )
        self._entropy = gauge(
            "salience_interest_entropy_bits",
            "Mean entropy of the categories that a person attended to, over the last few thousand placements.",
        )
        self._fairness = gauge(
            "salience_exposure_fairness_ratio",
            "Exposure over merit of the worst-off group, relative to that of all groups together; 1 is fair.",
            ("among",),
        )
        self._pacing_error = gauge(
            "salience_pacing_error_ratio",
            "Mean absolute difference between campaigns' spending today and the plan, as a share of their budgets.",
        )
        self._unbilled = gauge(
            "salience_unbilled_ratio",
            "Delivery beyond budgets, today and on the day before while a lane is still in it, as a share of budgets.",
        )
        self._ledger = gauge(
            "salience_ledger_full_ratio",
            "Campaigns and their arms in this worker's fullest ledger, relative to its bound; from 1 on, what new arms "
            "spend counts for their campaign alone.",
        )
        self._told = Shown()
        for reason in self._told.losers():
            self._losers.labels(reason)
        self.stand(self._told)

    def stand(self, now: Shown) -> None:
        """Set the metrics to what ``now`` says; counters move by what is new."""
        # Read each counter once: the compute thread goes on counting, and what it adds belongs to the next time.
        before = self._told
        self._told = Shown(empty_slots=now.empty_slots, filled_slots=now.filled_slots, fates=now.fates.copy())
        counts = before.losers()
        for reason, count in self._told.losers().items():
            self._losers.labels(reason).inc(count - counts[reason])
        self._empty.inc(self._told.empty_slots - before.empty_slots)
        self._filled.inc(self._told.filled_slots - before.filled_slots)
        self._distance.set(now.list_distance)
        self._entropy.set(now.interest_entropy_bits)
        for division in (now.advertisers, now.categories):
            self._fairness.labels(division.column).set(division.ratio)

    def refuse(self, ads: int) -> None:
        """Count ``ads`` more that became dead letters."""
        self._refused.inc(ads)

    def charge(self, error: float, unbilled_share: float, ledger_share: float) -> None:
        """Set the pacing error, the share of unbilled delivery (`Budgets.standing`), and how full the ledger is."""
        self._ledger.set(ledger_share)
        self._pacing_error.set(error)
        self._unbilled.set(unbilled_share)
