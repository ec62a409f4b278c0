"""What a worker tells Prometheus of its market: ads refused, why candidates lost, variety, breadth and fairness."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from scoring.shown import Shown


class MarketMetrics:
    """Read off `scoring.shown.Shown` when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._refused = counter("salience_refused_ads", "Ads that could not be read, as letters are made of them.")
        self._losers = counter(
            "salience_losing_candidates", "Candidates that were not placed, by what kept each out.", ("reason",)
        )
        self._empty = counter("salience_empty_slots", "Slots that the rules, budgets included, left empty.")
        self._filled = counter("salience_filled_slots", "Slots in which an ad was placed.")
        self._distance = gauge(
            "salience_list_distance", "Mean cosine distance between the ads of a placement, of the last few thousand."
        )
        self._entropy = gauge(
            "salience_interest_entropy_bits",
            "Mean entropy of the categories that a person has attended to, of the last few thousand placements.",
        )
        self._fairness = gauge(
            "salience_exposure_fairness_ratio",
            "Exposure over merit of the group that has least of it, as a share of everybody's; 1 is fair.",
            ("among",),
        )
        self._pacing_error = gauge(
            "salience_pacing_error_ratio",
            "Mean distance of what campaigns have spent today from the plan, in shares of their budgets.",
        )
        self._unbilled = gauge(
            "salience_unbilled_ratio",
            "Delivered beyond the budgets, today and while lanes are in it on the day before, as a share of them.",
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
        """Letters were made of so many more ``ads``."""
        self._refused.inc(ads)

    def pace(self, error: float, unbilled_share: float) -> None:
        """Set how spending keeps to its plan, and what of it nobody pays for (`Budgets.standing`)."""
        self._pacing_error.set(error)
        self._unbilled.set(unbilled_share)
