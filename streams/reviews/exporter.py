"""Prometheus metrics of the reader of reviews."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.reviews.reviewer import Reviewer


class ReviewCollector(Collector):
    """What a reader has read and found, at the moment of the scrape."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    def collect(self) -> Iterator[Metric]:
        """Every metric, from 0 on: Prometheus sees no increase in a counter that was not there before."""
        reader = self._reviewer
        reviews = CounterMetricFamily(
            "salience_reviews", "Reviews read since the start, refused, or sent again.", labels=["outcome"]
        )
        reviews.add_metric(["read"], reader.reviews)
        reviews.add_metric(["refused"], reader.refused)
        reviews.add_metric(["repeated"], reader.repeated)
        yield reviews
        turned = CounterMetricFamily(
            "salience_tones_turned", "Ads and brands whose reviews have turned for the worse.", labels=["of"]
        )
        for of, count in reader.turned.items():
            turned.add_metric([of], count)
        yield turned
