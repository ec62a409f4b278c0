"""The last act of a run: a topic is recreated under running workers, longer than it was, and must not be believed."""

import time
from collections.abc import Callable
from pathlib import Path

from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from streams import topics
from streams.wire import Click, encode_json
from tests.integration.chaos.cluster import Cluster
from tests.integration.chaos.fleet import Fleet
from tests.integration.chaos.recorder import Recorder

REFUSED_S = 120.0
RECORDS = 200_000
"""More than the topic held before: only its id tells it from the old one."""
BATCH = 5_000
RUNNING = "lane taken over"
REFUSAL = "salience lanes adopt"


def recreate_and_watch(cluster: Cluster, fleet: Fleet, recorder: Recorder, lanes: int, workers: int) -> list[str]:
    """What went wrong, in words; nothing where every worker ended and no slice was made of the new records."""
    logs = [fleet.log_file(slot) for slot in fleet.slots[:workers]]
    marks = [_size(file) for file in logs]
    for slot in fleet.slots[:workers]:
        fleet.join(slot)
    if not _wait(lambda: sum(_said(*pair).count(RUNNING) for pair in zip(logs, marks, strict=True)) >= lanes):
        return ["the workers did not take their lanes before the topic was recreated"]
    slices = _slices(recorder)
    marks = [_size(file) for file in logs]
    found = []
    with fleet.starts_may_fail():  # as they should, from here on
        cluster.recreate(topics.CLICKS, lanes)
        _fill(cluster.bootstrap, lanes)
        if not _wait(lambda: all(REFUSAL in _said(*pair) for pair in zip(logs, marks, strict=True))):
            found.append(f"not every worker refused the recreated topic within {REFUSED_S:.0f} s")
        fleet.pause()
    recorder.catch_up(cluster.ends([topics.CHANGELOG], committed=True))
    if believed := _slices(recorder) - slices:
        found.append(f"{believed} slices were made of a topic recreated under the workers")
    return found


def _fill(bootstrap: str, lanes: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "log_level": 0})
    for number in range(RECORDS):
        user = f"user-{number % 100}"
        event = Click(event_id=f"new-{number}", user_id=user, ad_id="ad-1", time_ms=int(time.time() * 1000))
        lane = (murmur2(user.encode()) & 0x7FFFFFFF) % lanes
        producer.produce(topics.CLICKS, encode_json(event), user.encode(), partition=lane)
        if number % BATCH == 0:
            producer.flush()
    producer.flush()


def _slices(recorder: Recorder) -> int:
    return sum(len(rows) for rows in recorder.recorded.lane_rows.values())


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _said(file: Path, mark: int) -> str:
    with file.open("rb") as log:
        log.seek(mark)
        return log.read().decode(errors="replace")


def _wait(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + REFUSED_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
