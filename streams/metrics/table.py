"""``deploy/METRICS.md``: every metric of workers and of the processes beside them, read from what they export."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from prometheus_client.core import Metric

from streams.experiments.exporter import RefereeCollector
from streams.experiments.vitals import Vitals
from streams.lag.arithmetic import Rules
from streams.lag.board import Board, GroupSeen, Observation, Partition
from streams.lag.exporter import LagCollector
from streams.lag.monitor import News
from streams.metrics.worker import LABELS, Metrics, Standing
from streams.reviews.exporter import ReviewCollector
from streams.reviews.reviewer import Reviewer

SUFFIX = {"counter": "_total", "info": "_info"}
"""What the text format adds to a name."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric, named as in the text format. ``kind``: Prometheus's type, where info is a gauge."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def worker_rows() -> list[Row]:
    """Every metric of ``salience worker``."""
    metrics = Metrics()
    metrics.describe_model("", "", 0)
    metrics.placements.labels("control")  # an arm's labels exist only once it is drawn
    metrics.stands(Standing(examined=(1.0,)))  # and a slot's only once a lane is held
    return _rows(metrics.registry.collect())


def monitor_rows() -> list[Row]:
    """Every metric of ``salience lag serve``."""
    here = Partition("clicks", 0)
    seen = Observation(0, {"salience": GroupSeen("stable", 1, {here: 0}, {here: ""})}, {here: 0})
    report = Board(Rules()).observe(seen)
    news = News(time_ms=0, age_s=0.0, stale=False, polls=0, failed=0, poll_s=0.0, error="", report=report)
    return _rows(LagCollector(lambda: news).collect())


def review_rows() -> list[Row]:
    """Every metric of ``salience reviews follow``."""
    return _rows(ReviewCollector(Reviewer()).collect())


def referee_rows() -> list[Row]:
    """Every metric of ``salience experiment referee``."""
    vitals = Vitals(every_ms=0)
    vitals.behind["outcomes"] = 0  # a topic's labels exist only once it is read
    return _rows(RefereeCollector(vitals).collect())


def _rows(families: Iterable[Metric]) -> list[Row]:
    rows = []
    for family in families:
        labels = {name: None for sample in family.samples for name in sample.labels if name != "le"}
        kind = "gauge" if family.type == "info" else family.type
        rows.append(Row(family.name + SUFFIX.get(family.type, ""), kind, tuple(labels), family.documentation))
    return sorted(rows, key=lambda row: row.name)


SECTIONS = (
    (
        "Worker",
        "`salience worker`, at the address that it logs (`SALIENCE_WEB_HOST`, `SALIENCE_WEB_PORT`), `/metrics`.",
        worker_rows,
    ),
    ("Lag monitor", "`salience lag serve`, `/metrics`.", monitor_rows),
    ("Reviews", "`salience reviews follow --port 9307`, `/metrics`.", review_rows),
    ("Referee", "`salience experiment referee --port 9306`, `/metrics`.", referee_rows),
)
"""Title, where the metrics are, and what they are."""


def table() -> str:
    """The page."""
    sections = [(f"## {title}", "", where, "", *_markdown(rows()), "") for title, where, rows in SECTIONS]
    return "\n".join(
        (
            "# Metrics",
            "",
            "All exported metrics, and no others. Base units; histograms have `_bucket`, `_sum` and `_count`. Made",
            "by `salience metrics`.",
            "",
            *chain(*sections),
            "## Labels and their bounds",
            "",
            "| label | bound |",
            "|---|---|",
            *(f"| `{name}` | {bound} |" for name, bound in LABELS.items()),
            "",
        )
    )


def _markdown(rows: Iterable[Row]) -> list[str]:
    told = [
        f"| `{row.name}` | {row.kind} | {' '.join(f'`{label}`' for label in row.labels)} | {row.text} |" for row in rows
    ]
    return ["| metric | type | labels | what it says |", "|---|---|---|---|", *told]
