"""Alerts and dashboards: promtool passes, every alert is tried and explained, every query names an existing metric."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.metrics.dashboards import LAG, DashboardError, Panel, _dashboard, dashboards, metrics_in
from streams.metrics.table import monitor_rows, referee_rows, review_rows, worker_rows
from tests.needs import lacking

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
TESTS = sorted(RULES.parent.glob("*.test.yml"))
METRICS = {row.name for row in (*worker_rows(), *monitor_rows(), *review_rows(), *referee_rows())}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


NAMES = [alert["alert"] for alert in alerts()]


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        lacking("promtool", "promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    promtool("check", "rules", "--lint-fatal", str(RULES))
    promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml"))


def test_promtool_sees_every_alert_fire_and_stay_quiet_as_written() -> None:
    promtool("test", "rules", *map(str, TESTS))


def test_every_alert_is_tried() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    tried = [each for test in tests for each in test["alert_rule_test"]]
    assert {each["alertname"] for each in tried if each.get("exp_alerts")} == set(NAMES)


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_has_a_severity_a_runbook_and_metrics_that_exist(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    file, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert (file, anchor) == ("deploy/OPERATIONS.md", alert["alert"].lower())
    section = re.search(
        rf"^### {alert['alert']}\n(.*?)(?=^#|\Z)", (DEPLOY / "OPERATIONS.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert section, f"deploy/OPERATIONS.md has no heading ### {alert['alert']}"
    assert len(section[1].split()) >= 30, "say what it means, what to look at, and what to do"
    assert metrics_in(alert["expr"]) <= METRICS


@pytest.mark.parametrize("name", dashboards())
def test_a_dashboard_is_the_one_that_the_command_writes(name: str) -> None:
    written = (DEPLOY / "grafana" / "dashboards" / name).read_text()
    assert written == dashboards()[name], "salience metrics --dashboards deploy/grafana/dashboards"


def test_every_metric_of_ours_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = {name for text in dashboards().values() for name in metrics_in(text)}
    asked |= {name for alert in alerts() for name in metrics_in(alert["expr"])}
    seen_elsewhere = {
        "salience_lag_committed_offset",
        "salience_lag_log_end_offset",
        "salience_lag_poll_timestamp_seconds",
    }
    assert {name for name in METRICS if name.startswith("salience_")} - asked == seen_elsewhere


def test_a_query_for_a_metric_that_does_not_exist_makes_no_dashboard() -> None:
    wrong = Panel("Wrong", {"a": "rate(salience_lag_record_bucket[1m])"})
    with pytest.raises(DashboardError, match="salience_lag_record"):
        _dashboard("uid", "title", (*LAG, wrong), monitor_rows())
