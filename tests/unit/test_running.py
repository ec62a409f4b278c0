"""How a worker's process logs."""

import json
import subprocess
import sys

SAYS = """
import logging, structlog
from streams.running import configure_logging
configure_logging(log_json={json})
structlog.get_logger().info("lane taken over", lane=3)
logging.getLogger("aiokafka.consumer").warning("a broker is %s", "away")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("faust").exception("it failed")
"""


def lines(*, log_json: bool) -> list[str]:
    command = [sys.executable, "-c", SAYS.format(json=log_json)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_every_line_is_an_object_the_libraries_lines_too() -> None:
    ours, theirs, failed = map(json.loads, lines(log_json=True))
    assert (ours["event"], ours["level"], ours["lane"]) == ("lane taken over", "info", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("a broker is away", "warning", "aiokafka.consumer")
    assert "ZeroDivisionError" in failed["exception"]
    assert all(line["timestamp"].endswith("Z") for line in (ours, theirs, failed))


def test_for_people_a_line_says_what_and_with_which_values() -> None:
    ours, theirs, *_ = lines(log_json=False)
    assert "lane taken over" in ours
    assert "lane=3" in ours
    assert "a broker is away" in theirs
