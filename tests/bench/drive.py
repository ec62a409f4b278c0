"""The load generator of the latency benchmark, a process of its own: ``python -m tests.bench.drive PLAN``.

It sends events at a steady rate, each at its own intended moment, whether or not earlier ones were answered, and
counts every event's latency from that intended moment: a stall of the engine, of the broker or of this process makes
all events that were due in it late (no coordinated omission). An event is answered by the first placement of its user
that knows it, that is, whose id names offsets beyond the event's; or by its echo.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from scoring.arrays import Floats
from scoring.events import Source
from streams import topics
from streams.identity import partitioner
from streams.wire import Click, encode_json
from tests.bench.load import Load

ECHO = "echo"
"""Topic of the plain echo's answers, beside ours."""
ANSWER_S = 30.0
"""Of the broker, to the first questions."""
AGAIN_S = 0.1
NO_LEADER = {KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION}
"""Of a topic that was just made, where the broker's machine is busy."""
ANSWERED_WITHIN_S = 180.0
"""After the last event: an overloaded worker has a minute's backlog to drain."""
TICK_MS = 1
"""Wait for an answer between two looks at what is due. Shorter waits would spin on the core that the broker needs."""
LINGER_MS = 1
"""Of the producer: what is due in one tick may share a request. It counts as latency, here and for the echo."""
SENT_AT_ONCE = 64
"""Events sent in a row where the generator is behind its times, before it looks for answers again."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``rate`` events/s for ``warm_s + seconds``; what is due in the first ``warm_s`` is sent and not counted."""

    bootstrap: str
    prefix: str
    lanes: int
    answers: str
    rate: float
    seconds: float
    warm_s: float
    users: int
    ads: int
    seed: int

    @property
    def events(self) -> int:
        return round(self.rate * (self.warm_s + self.seconds))


class Driven(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of the events counted. ``sent_late_ms``: the generator behind its own times, 99th percentile."""

    sent: int
    answered: int
    counted: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    sent_late_ms: float
    answers: int


class Matching(Protocol):
    """Which events an answer answers. Events are numbered in the order of sending."""

    def delivered(self, number: int, offset: int) -> None: ...

    def answer(self, value: bytes, now_s: float) -> None: ...


class Placed(msgspec.Struct, gc=False):
    """What matters here of a placement."""

    placement_id: str
    user_id: str


class Named(msgspec.Struct, gc=False):
    """What matters here of an event that came back."""

    event_id: str


class Events:
    """All events of a run ``[E]``, made before it begins, and when each was answered (0: not yet), in seconds."""

    def __init__(self, plan: Plan) -> None:
        load = Load(events=plan.events, users=plan.users, ads=plan.ads, seed=plan.seed, exponent=0)
        partition_of = partitioner(plan.lanes)
        self.all = [event for _, event in load.stream()]
        self.keys = [event.user_id.encode() for event in self.all]
        self.lanes = [partition_of(key) for key in self.keys]
        self.sources = [Source.CLICK if isinstance(event, Click) else Source.IMPRESSION for event in self.all]
        self.answered_s: Floats = np.zeros(len(self.all))

    def value(self, number: int, time_ms: int) -> bytes:
        """The event as of ``time_ms``; a click answers what was shown at that very moment."""
        event = self.all[number]
        changed = {"time_ms": time_ms}
        if isinstance(event, Click):
            changed["impression_time_ms"] = time_ms
        return encode_json(msgspec.structs.replace(event, **changed))


class Echoes:
    """An event is answered by its own return."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._decode = msgspec.json.Decoder(Named).decode

    def delivered(self, number: int, offset: int) -> None:
        """Offsets do not matter."""

    def answer(self, value: bytes, now_s: float) -> None:
        number = int(self._decode(value).event_id.rpartition("-")[2])
        if not self._events.answered_s[number]:
            self._events.answered_s[number] = now_s


class Placements:
    """An event is answered by the first placement of its user whose offset of the event's topic is beyond it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._decode = msgspec.json.Decoder(Placed).decode
        self._waiting: dict[str, dict[int, int | None]] = defaultdict(dict)  # per user: event, its offset once known
        self._seen: dict[str, list[tuple[tuple[int, int], float]]] = defaultdict(list)
        for number, event in enumerate(events.all):
            self._waiting[event.user_id][number] = None

    def delivered(self, number: int, offset: int) -> None:
        user = self._events.all[number].user_id
        self._waiting[user][number] = offset
        for upto, now_s in self._seen.get(user, ()):  # a placement may overtake the word of the event's delivery
            self._settle(user, upto, now_s)

    def answer(self, value: bytes, now_s: float) -> None:
        placed = self._decode(value)
        _, impressions, clicks, _ = placed.placement_id.split("-")
        upto = int(impressions, 16), int(clicks, 16)
        self._seen[placed.user_id].append((upto, now_s))
        self._settle(placed.user_id, upto, now_s)

    def _settle(self, user: str, upto: tuple[int, int], now_s: float) -> None:
        waiting = self._waiting[user]
        for number in [
            number
            for number, offset in waiting.items()
            if offset is not None and offset < upto[self._events.sources[number]]
        ]:
            del waiting[number]
            self._events.answered_s[number] = now_s


def end_of(consumer: Any, partition: TopicPartition, sleep: Callable[[float], None] = time.sleep) -> int:
    """Where a partition ends; while it has no leader it is asked again, `ANSWER_S` long. Raises `KafkaException`."""
    tries = round(ANSWER_S / AGAIN_S)
    while True:
        tries -= 1
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=ANSWER_S)[1])
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER or not tries:
                raise
        sleep(AGAIN_S)


class Driver:
    """Sends and receives in one thread, so that neither waits for the other's turn at the interpreter."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._events = Events(plan)
        self._matching: Matching = Echoes(self._events) if plan.answers == ECHO else Placements(self._events)
        at_once = {"bootstrap.servers": plan.bootstrap, "socket.nagle.disable": True, "log_level": 3}
        self._producer = Producer({**at_once, "linger.ms": LINGER_MS, "acks": "all"})
        self._consumer = self._subscribed(Consumer({**at_once, "group.id": "unused", "enable.auto.commit": False}))
        self._topics = {
            Source.IMPRESSION: plan.prefix + topics.AD_IMPRESSIONS,
            Source.CLICK: plan.prefix + topics.CLICKS,
        }
        self._failed: str | None = None
        self.answers = 0

    def _subscribed(self, consumer: Any) -> Any:
        """Assigned to the answers that are yet to come, with its first fetches on their way."""
        topic = self._plan.prefix + self._plan.answers
        partitions = [TopicPartition(topic, lane) for lane in range(self._plan.lanes)]
        for partition in partitions:
            partition.offset = end_of(consumer, partition)
        consumer.assign(partitions)
        consumer.poll(0.5)
        return consumer

    def run(self) -> Driven:
        """Send all, and wait until all are answered; raises `RuntimeError` where a delivery fails."""
        count = len(self._events.all)
        began_s, began_ms = time.perf_counter() + 0.1, time.time() * 1000 + 100
        after_s = np.arange(count) / self._plan.rate
        late_s = np.zeros(count)
        due_s = (began_s + after_s).tolist()
        number = 0
        while number < count:
            now_s = time.perf_counter()
            for wanted_s in due_s[number : number + SENT_AT_ONCE]:
                if wanted_s > now_s:
                    break
                late_s[number] = now_s - wanted_s
                self._send(number, int(began_ms + 1000 * (wanted_s - began_s)))
                number += 1
            self._receive(TICK_MS / 1000)
        deadline_s = time.perf_counter() + ANSWERED_WITHIN_S
        while not self._events.answered_s.all() and time.perf_counter() < deadline_s:
            self._receive(TICK_MS / 1000)
        return self._found(began_s + after_s, late_s)

    def _send(self, number: int, time_ms: int) -> None:
        events = self._events
        self._producer.produce(
            self._topics[events.sources[number]],
            events.value(number, time_ms),
            events.keys[number],
            events.lanes[number],
            on_delivery=partial(self._told, number),
            timestamp=time_ms,
        )

    def _told(self, number: int, error: object, message: Message) -> None:
        if error is not None:
            self._failed = str(error)
        else:
            self._matching.delivered(number, message.offset() or 0)

    def _receive(self, wait_s: float) -> None:
        """Take what has come, waiting at most ``wait_s`` for the first; all of it counts as of now."""
        self._producer.poll(0)
        if self._failed is not None:
            raise RuntimeError(f"an event was not delivered: {self._failed}")
        first = self._consumer.poll(wait_s)
        if first is None:
            return
        messages = [first, *self._consumer.consume(1_000, 0)]
        now_s = time.perf_counter()
        for message in messages:
            if message.error() is None and (value := message.value()) is not None:
                self.answers += 1
                self._matching.answer(value, now_s)

    def _found(self, due_s: Floats, late_s: Floats) -> Driven:
        answered_s = self._events.answered_s
        counted = (due_s >= due_s[0] + self._plan.warm_s) & (answered_s > 0)
        latency_ms = 1000 * (answered_s - due_s)[counted]
        p50, p99, p999, most = np.percentile(latency_ms, [50, 99, 99.9, 100]) if len(latency_ms) else 4 * [np.nan]
        return Driven(
            sent=len(due_s),
            answered=int((answered_s > 0).sum()),
            counted=len(latency_ms),
            p50_ms=float(p50),
            p99_ms=float(p99),
            p999_ms=float(p999),
            max_ms=float(most),
            sent_late_ms=float(1000 * np.percentile(late_s, 99)),
            answers=self.answers,
        )


if __name__ == "__main__":
    found = Driver(msgspec.json.decode(sys.argv[1], type=Plan)).run()
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
