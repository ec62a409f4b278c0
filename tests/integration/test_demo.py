"""The real demo, in a process of its own: broker, worker, shoppers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
KEYS = {
    "events", "placements", "p50_ms", "p99_ms", "ctr_engine", "ctr_random", "ctr_engine_interval",
    "ctr_random_interval", "impressions_engine", "impressions_random", "dead_letters", "seconds", "guarantee",
    "broker", "calibration", "calibration_attention", "unanswered", "unread",
}  # fmt: skip

OF_A_SHOP = {
    "SALIENCE_SECURITY_PROTOCOL": "SASL_SSL", "SALIENCE_SASL_USERNAME": "ads", "SALIENCE_SASL_PASSWORD": "secret",
    "SALIENCE_WEB_HOST": "0.0.0.0", "SALIENCE_SLOTS": "1", "salience_topic_prefix": "shop-",
}  # fmt: skip
"""Settings of a caller's own shop, that the demo would not start with, or sell little; in lower case they hold too."""


def demo(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", "demo", *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)} | environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines and environments of live processes that know the demo's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "environ").read_text(errors="replace") + (process / "cmdline").read_text()
        except OSError:
            continue
        if str(folder) in known and int(process.name) != os.getpid():
            found.append(known)
    return found


def test_the_demo_beats_chance_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as shop:
        shop.setblocking(False)
        at = "{}:{}".format(*shop.getsockname())
        done = demo(tmp_path, "--seconds", "15", "--json", SALIENCE_BOOTSTRAP=at, salience_bootstrap=at, **OF_A_SHOP)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):  # nobody has asked the caller's own broker for anything
            shop.accept()
    report = json.loads(done.stdout)
    assert report.keys() == KEYS
    assert report["dead_letters"] == report["unanswered"] == 0
    assert report["unread"] == []
    assert report["seconds"] >= 15
    assert report["events"] > 1_000
    assert report["placements"] > 300
    assert report["impressions_engine"] > report["impressions_random"] > 100
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["ctr_engine_interval"][0] > report["ctr_random_interval"][1]
    assert (report["guarantee"], report["broker"]) == ("at_least_once", "embedded")
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_demo_that_cannot_have_so_few_shoppers_is_wrong_usage(tmp_path: Path) -> None:
    assert demo(tmp_path, "--users", "0").returncode == 2
