"""The events of the harness: users with numbered impressions and clicks, some sent twice, misplaced or broken."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaError, Message, Producer

from scoring.events import Source
from streams.columns import source_of
from streams.topics import LANE_INPUTS
from streams.wire import Ad, Click, Impression, encode_json
from tests.builders import ad

USERS = 120
ADS = 60
TICK_S = 0.05
POISON, TWICE, MISPLACED = 0.01, 0.02, 0.005
"""Shares of records that are no event, that are sent again, and that come in a wrong partition."""
CLICKED = 0.4
DELIVERY_MS = 600_000
"""The producer waits for a broker longer than any fault lasts: what it was told to send, it sends."""


def offered() -> list[Ad]:
    """The ads that the events are about."""
    return [ad(f"ad-{n}", category=f"shelf/{n % 5}", bid_micros=100_000 + n) for n in range(ADS)]


@dataclass(slots=True)
class Acknowledged:
    """What the brokers have taken, by topic and event id; ``failed`` must stay 0. ``poisoned``: records, no events."""

    events: dict[Source, set[str]] = field(default_factory=lambda: {source: set() for source in Source})
    records: int = 0
    poisoned: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class Workload:
    """Sends ``per_s`` events a second from `start` to `stop`, in a thread of its own, drawn from ``seed``."""

    def __init__(self, bootstrap: str, prefix: str, lanes: int, seed: int, per_s: float, users: int = USERS) -> None:
        self._prefix = prefix
        self._lanes = lanes
        self._random = random.Random(seed)
        self.per_s = per_s
        self._users = users
        self._numbers: Counter[str] = Counter()
        self._last_ms: Counter[str] = Counter()
        self._answers: list[tuple[float, Click]] = []
        self.acknowledged = Acknowledged()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": DELIVERY_MS,
                "reconnect.backoff.max.ms": 500,
                "queue.buffering.max.messages": 2_000_000,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until all that was sent is acknowledged."""
        self._stopping.set()
        self._thread.join()
        left = self._producer.flush(DELIVERY_MS / 1000)
        if left:
            self.acknowledged.failed["never acknowledged"] += left

    def fill(self, count: int) -> None:
        """Send ``count`` events at once, in this thread, and wait until they are acknowledged."""
        for _ in range(count):
            self._send_one(time.monotonic())
            self._producer.poll(0)
        self._producer.flush(DELIVERY_MS / 1000)

    def halt(self) -> None:
        """Send no more, after a failure of the harness itself."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due, last = 0.0, time.monotonic()
        while not self._stopping.wait(TICK_S):
            now = time.monotonic()
            due += (now - last) * self.per_s
            last = now
            while due >= 1:
                due -= 1
                self._send_one(now)
            self._producer.poll(0)

    def _send_one(self, now: float) -> None:
        draw = self._random.random
        if self._answers and self._answers[0][0] <= now:
            event: Impression | Click = self._answers.pop(0)[1]
        else:
            event = self._impression(now)
        key = event.user_id.encode()
        home = (murmur2(key) & 0x7FFFFFFF) % self._lanes
        if draw() < POISON:
            self.acknowledged.poisoned += 1
            poison = b'{"event_id": "poison-%d"' % self.acknowledged.poisoned
            self._produce(source_of(event), key, poison, home, event.time_ms, None)
        away = (home + 1) % self._lanes if draw() < MISPLACED else home
        for _ in range(2 if draw() < TWICE and away == home else 1):
            self._produce(source_of(event), key, encode_json(event), away, event.time_ms, event.event_id)

    def _impression(self, now: float) -> Impression:
        user = f"user-{self._random.randrange(self._users)}"
        self._numbers[user] += 1
        # No two of one user at one moment: the same ad shown twice then is one impression that came again.
        self._last_ms[user] = max(int(time.time() * 1000), self._last_ms[user] + 1)
        number, time_ms = self._numbers[user], self._last_ms[user]
        ad_id = f"ad-{self._random.randrange(ADS)}"
        shown = Impression(event_id=f"{user}-i{number}", user_id=user, ad_id=ad_id, time_ms=time_ms)
        if self._random.random() < CLICKED:
            wait_s = 1.0 + len(self._answers) % 3 / 10
            answer = Click(
                event_id=f"{user}-c{number}",
                user_id=user,
                ad_id=ad_id,
                time_ms=time_ms + int(1000 * wait_s),
                impression_time_ms=time_ms,
            )
            self._answers.append((now + wait_s, answer))
        return shown

    def _produce(
        self, source: Source, key: bytes, value: bytes, partition: int, time_ms: int, event_id: str | None
    ) -> None:
        def answered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self.acknowledged.failed[error.name()] += 1
                return
            self.acknowledged.records += 1
            if event_id is not None:
                self.acknowledged.events[source].add(event_id)

        topic = self._prefix + LANE_INPUTS[source]
        self._producer.produce(topic, value, key, partition=partition, timestamp=time_ms, on_delivery=answered)
