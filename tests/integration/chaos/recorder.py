"""A read-committed reader that follows the outputs through the whole run, and keeps what compaction will take.

It is librdkafka's, not the client library that the workers use: what one gets wrong, the other would not see.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from scoring.rows import decode_rows
from streams import topics
from streams.wire import LANE_KEY, RESERVED, LaneRow

FOLLOWED = (topics.CHANGELOG, topics.PLACEMENTS, topics.DEAD_LETTERS)
SAMPLE_S = 0.25
ANSWER_S = 5.0
CATCH_UP_S = 90.0
READ_WITHIN_S = 90.0
"""What is younger, compaction leaves alone: a lane row that it took before the recorder came, after a change of leaders
say, would be told as lost."""

Offsets = tuple[int, int]


@dataclass(slots=True)
class Recorded:
    """All that was ever visible to a read-committed reader."""

    lane_rows: dict[int, list[tuple[int, LaneRow]]] = field(default_factory=lambda: defaultdict(list))
    """Of each lane, with their changelog offsets, in order."""
    rows: dict[bytes, bytes] = field(default_factory=dict)
    row_offsets: dict[bytes, Offsets] = field(default_factory=dict)
    rows_went_back: int = 0
    """Rows that stand before the same user's former row."""
    placements: Counter[str] = field(default_factory=Counter)
    placed: dict[bytes, str] = field(default_factory=dict)
    placements_went_back: int = 0
    dead: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Topic, partition and offset of the origin of each dead letter."""
    slowest_s: float = 0.0
    """Between the making of a record of the changelog and its reading, at most."""
    samples: list[tuple[int, Offsets, int]] = field(default_factory=list)
    """Lane, its committed offsets, and an offset of the changelog read after them: all that it says lies before."""


def placement_offsets(name: str) -> Offsets:
    """The last impression and click that a placement follows from; -1 where there was none."""
    _lane, first, second, _user = name.split("-")[:4]  # what may follow are arms of experiments
    return int(first, 16) - 1, int(second, 16) - 1


class Recorder:
    """Follows the outputs, and samples the group's offsets, from `start` to `stop`."""

    def __init__(self, bootstrap: str, prefix: str, group: str, lanes: int) -> None:
        self._prefix, self._lanes = prefix, lanes
        self.recorded = Recorded()
        common = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500}
        reader = {"enable.auto.commit": False, "auto.offset.reset": "earliest"}
        following = {"group.id": "recorder", "isolation.level": "read_committed", "enable.partition.eof": True}
        self._consumer = Consumer({**common, **reader, **following})
        # It asks as a member of the group could, and never joins: the admin client's own request for a group's
        # offsets takes the process with it (a fault in librdkafka 2.16) where the group's coordinator is being made.
        self._asking = Consumer({**common, **reader, "group.id": group, "isolation.level": "read_uncommitted"})
        self._at_end: dict[tuple[str, int], int] = {}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="recorder"),
            threading.Thread(target=self._sample, name="sampler"),
        ]

    def start(self) -> None:
        names = [self._prefix + name for name in FOLLOWED]
        counts = dict.fromkeys(names, self._lanes) | {self._prefix + topics.DEAD_LETTERS: self._dead_partitions()}
        self._consumer.assign([TopicPartition(name, number, 0) for name in names for number in range(counts[name])])
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._consumer.close()
        self._asking.close()

    def catch_up(self, ends: Mapping[tuple[str, int], int]) -> None:
        """Wait until all before ``ends`` (topic and partition) has been read. Raises `TimeoutError`."""
        deadline = time.monotonic() + CATCH_UP_S
        while behind := {where: end for where, end in ends.items() if self._at_end.get(where, 0) < end}:
            if time.monotonic() > deadline:
                at = {where: self._at_end.get(where) for where in behind}
                raise TimeoutError(f"the recorder stands at {at} after {CATCH_UP_S:.0f} s, expected {behind}")
            time.sleep(0.1)

    def committed(self) -> dict[int, Offsets]:
        """The group's offsets of each lane, now."""
        first, second = (self._prefix + name for name in (topics.AD_IMPRESSIONS, topics.CLICKS))
        asked = [TopicPartition(name, lane) for name in (first, second) for lane in range(self._lanes)]
        answer = self._asking.committed(asked, timeout=ANSWER_S)
        found = {(tp.topic, tp.partition): max(0, tp.offset) for tp in answer}
        return {lane: (found.get((first, lane), 0), found.get((second, lane), 0)) for lane in range(self._lanes)}

    def _dead_partitions(self) -> int:
        return len(self._consumer.list_topics(timeout=ANSWER_S).topics[self._prefix + topics.DEAD_LETTERS].partitions)

    # --- following -------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        take = {
            self._prefix + topics.CHANGELOG: self._take_changelog,
            self._prefix + topics.PLACEMENTS: self._take_placement,
            self._prefix + topics.DEAD_LETTERS: self._take_dead_letter,
        }
        while not self._stopping.is_set():
            for message in self._consumer.consume(1_000, timeout=0.2):
                error = message.error()
                if error is None:
                    take[message.topic()](message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._at_end[message.topic(), message.partition()] = message.offset()

    def _take_changelog(self, message: Message) -> None:
        recorded, key, value = self.recorded, message.key() or b"", message.value()
        recorded.slowest_s = max(recorded.slowest_s, time.time() - message.timestamp()[1] / 1000)
        if key.startswith(RESERVED) and key != LANE_KEY:
            return  # the click layer's
        if key == LANE_KEY:
            assert value is not None
            row = msgspec.msgpack.decode(value, type=LaneRow)
            recorded.lane_rows[message.partition()].append((message.offset(), row))
        elif value is None:
            recorded.rows.pop(key, None)
            recorded.row_offsets.pop(key, None)
        else:
            first, second = decode_rows([value])["offset"][0].tolist()
            before = recorded.row_offsets.get(key, (-1, -1))
            recorded.rows_went_back += first < before[0] or second < before[1]
            recorded.rows[key], recorded.row_offsets[key] = value, (first, second)

    def _take_placement(self, message: Message) -> None:
        recorded, key, value = self.recorded, message.key() or b"", message.value()
        if value is None:
            recorded.placed.pop(key, None)
            return
        name = msgspec.json.decode(value)["placement_id"]
        recorded.placements[name] += 1
        if key in recorded.placed:
            now, before = placement_offsets(name), placement_offsets(recorded.placed[key])
            recorded.placements_went_back += now[0] < before[0] or now[1] < before[1]
        recorded.placed[key] = name

    def _take_dead_letter(self, message: Message) -> None:
        headers = dict(message.headers() or [])
        where = (f"salience.{name}" for name in ("topic", "partition", "offset"))
        topic, partition, offset = (headers[name].decode() for name in where)
        self.recorded.dead[topic, int(partition), int(offset)] += 1

    # --- sampling --------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            try:
                self._sample_once()
            except KafkaException:
                continue  # the brokers are being done something to

    def _sample_once(self) -> None:
        for lane, committed in self.committed().items():
            changelog = TopicPartition(self._prefix + topics.CHANGELOG, lane)
            _low, end = self._asking.get_watermark_offsets(changelog, timeout=ANSWER_S)
            self.recorded.samples.append((lane, committed, end))
