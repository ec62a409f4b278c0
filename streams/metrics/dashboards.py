"""Grafana's dashboards; a query for a metric that does not exist makes their creation fail."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streams.metrics.table import Row, monitor_rows, referee_rows, review_rows, worker_rows

Unit = Literal["short", "s", "bytes", "reqps", "percentunit", "none"]
Kind = Literal["timeseries", "stat", "table", "state-timeline"]

WIDTH, HEIGHT = 24, 8
"""Grafana's grid: two panels side by side."""
SOURCE = {"type": "prometheus", "uid": "prometheus"}
_METRIC = re.compile(r"\b(?:salience|process)_[a-z_]+")
_PARTS = ("_bucket", "_sum", "_count")


class DashboardError(RuntimeError):
    """A query for a metric that does not exist."""


@dataclass(frozen=True, slots=True)
class Panel:
    """``queries``: expression by legend."""

    title: str
    queries: Mapping[str, str]
    unit: Unit = "short"
    kind: Kind = "timeseries"


def _rates(by: str, metric: str) -> dict[str, str]:
    """A line for each value of the label ``by``."""
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}[$__rate_interval]))"}


def _p(quantile: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


WORKERS = (
    Panel("Events by outcome", _rates("outcome", "salience_events_total"), "reqps"),
    Panel("Placements by arm", _rates("arm", "salience_placements_total"), "reqps"),
    Panel(
        "Event to placement",
        {f"p{100 * q:g}": _p(q, "salience_event_to_placement_seconds") for q in (0.5, 0.95, 0.99)},
        "s",
    ),
    Panel("Stages of a slice, p95", {"{{stage}}": _p(0.95, "salience_stage_seconds", "stage")}, "s"),
    Panel("Records per slice", {f"p{100 * q:g}": _p(q, "salience_slice_records") for q in (0.5, 0.95)}),
    Panel("Queued records", {"{{instance}} {{topic}}": "salience_queued_records"}),
    Panel("Queued bytes", {"{{instance}} {{topic}}": "salience_queued_bytes"}, "bytes"),
    Panel("Calibration of clicks (1 is right)", {"{{instance}}": "salience_click_calibration_ratio"}),
    Panel(
        "AUC, log loss",
        {
            "AUC of a day": "sum(increase(salience_click_ranks_total[1d])) "
            "/ sum(increase(salience_ranked_clicks_total[1d]))",
            "{{instance}} AUC": "salience_click_auc",
            "{{instance}} log loss": "salience_click_log_loss",
        },
    ),
    Panel(
        "Click rate, drifts, windows cut, layers begun anew",
        {
            "click rate": 'sum(rate(salience_click_windows_total{clicked="true"}[$__rate_interval])) '
            "/ sum(rate(salience_click_windows_total[$__rate_interval]))",
            "drifts": "sum(increase(salience_click_drifts_total[$__rate_interval]))",
            "windows cut": "sum(increase(salience_click_windows_cut_total[$__rate_interval]))",
            "layers begun anew": "sum(increase(salience_click_layers_begun_anew_total[$__rate_interval]))",
        },
    ),
    Panel(
        "Outcomes as they come, by whether clicked", _rates("clicked", "salience_impression_outcomes_total"), "reqps"
    ),
    Panel("Lanes", {"{{instance}} {{stage}}": "salience_lanes"}),
    Panel(
        "Readiness, rebalances",
        {
            "{{instance}} ready": "salience_ready",
            "{{instance}} rebalances": "increase(salience_rebalances_total[$__rate_interval])",
        },
    ),
    Panel(
        "Recovery",
        {
            "{{instance}} records left": "salience_recovery_records_left",
            "p95 seconds": _p(0.95, "salience_recovery_seconds"),
        },
    ),
    Panel("Since the last commit", {"{{instance}}": "time() - salience_last_commit_timestamp_seconds"}, "s"),
    Panel("Records ahead of the worker's clock", {"{{instance}}": "salience_records_ahead_seconds"}, "s"),
    Panel("Unaccounted records (must be 0)", {"{{instance}}": "salience_unaccounted_records"}, kind="stat"),
    Panel("Users", {"{{instance}}": "salience_users"}),
    Panel(
        "Ads, events and outcomes of unknown ads",
        {
            "ads": "max(salience_ads)",
            "unknown": "sum(rate(salience_unknown_ads_total[$__rate_interval]))",
            "refused ads": "sum(rate(salience_refused_ads_total[$__rate_interval]))",
            "unnamed outcomes": "sum(rate(salience_unnamed_outcomes_total[$__rate_interval]))",
            "misquoted": "sum(rate(salience_misquoted_events_total[$__rate_interval]))",
        },
    ),
    Panel("Records produced", _rates("topic", "salience_produced_records_total"), "reqps"),
    Panel("Memory", {"{{instance}}": "process_resident_memory_bytes"}, "bytes"),
    Panel("Processor", {"{{instance}}": "rate(process_cpu_seconds_total[$__rate_interval])"}, "percentunit"),
    Panel("Why candidates lost", _rates("reason", "salience_losing_candidates_total")),
    Panel(
        "Filled and empty slots, distance within lists",
        {
            "filled": "sum(rate(salience_filled_slots_total[$__rate_interval]))",
            "empty": "sum(rate(salience_empty_slots_total[$__rate_interval]))",
            "distance": "avg(salience_list_distance)",
        },
    ),
    Panel(
        "Interest entropy (bits), fairness of exposure",
        {
            "entropy": "avg(salience_interest_entropy_bits)",
            "fairness {{among}}": "avg by (among) (salience_exposure_fairness_ratio)",
        },
    ),
    Panel(
        "How likely slots are looked at, by the first",
        {"slot {{slot}}": "avg by (slot) (salience_slot_examination_ratio)"},
        "percentunit",
    ),
    Panel(
        "Distance from the pacing plan, unbilled delivery, fullest ledger",
        {
            "pacing error": "max(salience_pacing_error_ratio)",
            "unbilled": "max(salience_unbilled_ratio)",
            "fullest ledger": "max(salience_ledger_full_ratio)",
        },
        "percentunit",
    ),
    Panel("Users forgotten", {"{{instance}}": "increase(salience_expired_users_total[$__rate_interval])"}),
    Panel("Model", {"{{instance}} {{version}}": "salience_model_info"}, kind="table"),
)
LAG = (
    Panel("Time lag", {"{{group}} {{topic}}[{{partition}}]": "salience_lag_seconds"}, "s"),
    Panel("Records behind", {"{{group}} {{topic}}[{{partition}}]": "salience_lag_records"}),
    Panel(
        "Status",
        {"{{group}} {{topic}}[{{partition}}] {{status}}": 'salience_lag_status{status!="OK"} == 1'},
        kind="state-timeline",
    ),
    Panel("Stuck for", {"{{group}} {{topic}}[{{partition}}]": "salience_lag_stuck_seconds > 0"}, "s"),
    Panel(
        "Consumed and produced",
        {
            "{{group}} {{topic}} consumed": "sum by (group, topic) (salience_lag_consumed_records_per_second)",
            "{{group}} {{topic}} produced": "sum by (group, topic) (salience_lag_produced_records_per_second)",
        },
        "reqps",
    ),
    Panel("Time to catch up", {"{{group}} {{topic}}[{{partition}}]": "salience_lag_catch_up_seconds > 0"}, "s"),
    Panel("Members", {"{{group}}": "salience_lag_group_members"}),
    Panel(
        "The monitor itself",
        {"age of the report": "salience_lag_poll_age_seconds", "a poll takes": "salience_lag_poll_duration_seconds"},
        "s",
    ),
    Panel("Failed polls", {"{{outcome}}": "rate(salience_lag_polls_total[$__rate_interval])"}, "reqps"),
    Panel("Some of the lag is not told (1)", {"{{instance}}": "salience_lag_lacking"}),
)

REVIEWS = (
    Panel("Reviews", _rates("outcome", "salience_reviews_total"), "reqps"),
    Panel("Tones turned", {"{{of}}s": "sum by (of) (increase(salience_tones_turned_total[$__rate_interval]))"}),
)

EXPERIMENTS = (
    Panel("Experiments", {"{{finding}}": "sum by (finding) (salience_experiments) > 0"}),
    Panel("Guardrails broken", {"ended": "sum(increase(salience_guardrails_broken_total[$__rate_interval]))"}),
    Panel("Judging", {"{{instance}}": "salience_referee_judging"}, kind="state-timeline"),
    Panel("Since the last look", {"{{instance}}": "time() - salience_referee_judged_timestamp_seconds"}, "s"),
    Panel("Records behind", {"{{topic}}": "sum by (topic) (salience_referee_lag_records)"}),
    Panel("No place for somebody", {"times": "sum(increase(salience_referee_unwatched_total[$__rate_interval]))"}),
)


def dashboards() -> dict[str, str]:
    """JSON by file name. Raises `DashboardError`."""
    return {
        "workers.json": _dashboard("salience-workers", "salience: workers", WORKERS, worker_rows()),
        "lag.json": _dashboard("salience-lag", "salience: lag", LAG, monitor_rows()),
        "reviews.json": _dashboard("salience-reviews", "salience: reviews", REVIEWS, review_rows()),
        "experiments.json": _dashboard("salience-experiments", "salience: experiments", EXPERIMENTS, referee_rows()),
    }


def metrics_in(expression: str) -> set[str]:
    """Names of metrics in a query, as the table has them."""
    names = _METRIC.findall(expression)
    return {next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), name) for name in names}


def _dashboard(uid: str, title: str, panels: tuple[Panel, ...], rows: list[Row]) -> str:
    known = {row.name for row in rows}
    for panel in panels:
        for expression in panel.queries.values():
            if unknown := metrics_in(expression) - known:
                raise DashboardError(f"panel {panel.title!r} asks for {sorted(unknown)}, which are not in METRICS.md")
    told = {
        "uid": uid,
        "title": title,
        "tags": ["salience"],
        "timezone": "utc",  # as the console, the commands and the days of budgets
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }
    return json.dumps(told, indent=1) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    width = WIDTH // 2
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": width * (number % 2), "y": HEIGHT * (number // 2), "w": width, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
