"""How a worker's process logs, and ends."""

import asyncio
import json
import logging
import signal
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from streams import running, topic_admin
from streams.log_lines import KINDS_MAX, REPEAT_MS, Repeats
from streams.settings import Settings
from streams.topic_admin import Problem, Seen, TopicsError, compare
from streams.topics import TABLE

SAYS = """
import logging, structlog, warnings
from streams.log_lines import configure_logging
configure_logging(log_json={json})
structlog.get_logger().info("lane taken over", lane=3)
logging.getLogger("aiokafka.consumer").warning("a broker is %s", "away")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("faust").exception("it failed")
warnings.warn("this will go", RuntimeWarning)
"""


def lines(*, log_json: bool) -> list[str]:
    command = [sys.executable, "-c", SAYS.format(json=log_json)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_every_line_is_an_object_the_libraries_lines_too() -> None:
    ours, theirs, failed, warned = map(json.loads, lines(log_json=True))
    assert (ours["event"], ours["level"], ours["lane"]) == ("lane taken over", "info", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("a broker is away", "warning", "aiokafka.consumer")
    assert "ZeroDivisionError" in failed["exception"]
    assert "RuntimeWarning: this will go" in warned["event"]
    assert all(line["timestamp"].endswith("Z") for line in (ours, theirs, failed, warned))


def test_for_people_a_line_says_what_and_with_which_values() -> None:
    ours, theirs, *_ = lines(log_json=False)
    assert "lane taken over" in ours
    assert "lane=3" in ours
    assert "a broker is away" in theirs


def test_a_crash_in_a_library_says_where_each_thread_was() -> None:
    crashes = "import os, signal\nfrom streams.log_lines import configure_logging\nconfigure_logging(log_json=True)\n"
    command = [sys.executable, "-c", crashes + "os.kill(os.getpid(), signal.SIGSEGV)"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ended.stderr
    assert '"<string>", line 4' in ended.stderr


def test_a_stream_without_a_descriptor_takes_the_log_all_the_same() -> None:
    says = (
        "import io, sys, structlog\nfrom streams.log_lines import configure_logging\nsys.stderr = io.StringIO()\n"
        "configure_logging(log_json=True)\nstructlog.get_logger().info('lane taken over')\nprint(sys.stderr.getvalue())"
    )
    ran = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=False)
    assert '"event": "lane taken over"' in ran.stdout, ran.stderr


def test_a_line_goes_to_what_stderr_is_when_it_is_written() -> None:
    says = (
        "import io, sys, structlog\nfrom streams.log_lines import configure_logging\nlog = structlog.get_logger()\n"
        "configure_logging(log_json=True)\nlog.info('lane taken over')\nsys.stderr = io.StringIO()\n"
        "log.info('lane given up')\nprint(sys.stderr.getvalue())"
    )
    ran = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert "lane taken over" in ran.stderr
    assert '"event": "lane given up"' in ran.stdout, ran.stderr


class Said:
    """What comes through a filter, at times that the test sets."""

    def __init__(self) -> None:
        self.now_ms, self.lines, self._repeats = 0, list[str](), Repeats(lambda: self.now_ms)

    def __call__(self, message: str, *values: object, raised: bool = False) -> None:
        told = (ValueError, ValueError("no"), None) if raised else None
        record = logging.LogRecord("aiokafka", logging.ERROR, "conn.py", 1, message, values, told)
        if self._repeats.filter(record):
            self.lines.append(record.getMessage())


def test_what_a_library_says_again_and_again_is_said_once_in_ten_seconds_with_how_often() -> None:
    say = Said()
    for number in range(1_002):
        say("no connection to node %d", number % 3)
        say("Topic %s is unknown", "clicks")
        say.now_ms += 10
    assert say.lines == [
        "no connection to node 0",
        "Topic clicks is unknown",
        "no connection to node 1 (999 more like it since the last)",
        "Topic clicks is unknown (999 more like it since the last)",
    ]


@pytest.mark.parametrize("late_ms", [REPEAT_MS, 10 * REPEAT_MS])
def test_a_line_that_comes_seldom_stays_as_it_is(late_ms: int) -> None:
    say = Said()
    for _ in range(3):
        say("a rebalance took %d s", 3)
        say.now_ms += late_ms
    assert say.lines == ["a rebalance took 3 s"] * 3


def test_every_exception_is_said() -> None:
    say = Said()
    for _ in range(3):
        say("it failed", raised=True)
    assert len(say.lines) == 3


def test_kinds_of_lines_without_end_are_not_remembered_without_end() -> None:
    say = Said()
    for number in range(3 * KINDS_MAX):
        say(f"offset {number} is out of range")
    assert len(say.lines) == 3 * KINDS_MAX
    assert len(say._repeats._said) <= KINDS_MAX


async def ended_of(turns: int) -> bool:
    """Whether a task that takes so many turns to end, once it is cancelled, has ended when its worker has."""

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)

    task = asyncio.create_task(works())
    await asyncio.sleep(0)
    task.cancel()
    await running.wait_for_cancelled()
    return task.done()


def test_a_worker_that_has_stopped_waits_for_what_is_cancelled_then_and_no_longer_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert asyncio.run(ended_of(turns=20))
    monkeypatch.setattr(running, "CANCELLED_S", 0.0)
    assert not asyncio.run(ended_of(turns=20))


def test_a_worker_that_starts_tells_of_topics_whose_cleanup_policy_loses_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(bootstrap: str, lanes: int, prefix: str) -> list[Problem]:
        seen = {prefix + one.name: Seen(one.partitions(lanes), one.cleanup) for one in TABLE}
        others = {"shop-ads": Seen(1, "delete"), "shop-clicks": Seen(lanes, "delete", configs={"retention.ms": "1"})}
        return compare(seen | others, lanes, prefix, f"--bootstrap {bootstrap}")

    monkeypatch.setattr(topic_admin, "check", check)
    with capture_logs() as said:
        running.say_cleanup(Settings(bootstrap="b:1", topic_prefix="shop-"), 4)
    assert [(line["topic"], line["fix"]) for line in said] == [
        (
            "shop-ads has cleanup.policy=delete, expected compact.",
            "salience topics create --bootstrap b:1 --prefix shop- --configure",
        )
    ]


def test_a_worker_that_may_not_read_the_topics_configs_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*_: object) -> list[Problem]:
        raise TopicsError("b:1 does not describe the configs of ads: Topic authorization failed")

    monkeypatch.setattr(topic_admin, "check", check)
    with capture_logs() as said:
        running.say_cleanup(Settings(), 4)
    assert said == []
