"""What may be learnt from the topics: the same however they are read, and never more than a lane holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.events import Source
from scoring.rows import RowStore
from streams.control import Control
from streams.control_wire import Consent, ControlMessage, Erasure
from streams.decode import DECODERS, decode
from streams.learnable import Learnable
from streams.privacy.consent import Gate, Watermarks
from streams.privacy.requests import Requests, settle
from streams.topics import LANE_INPUTS
from tests.builders import START_MS, Record, click, impression, record
from tests.unit.consenting import told

TOLERANCE_MS = 300_000

EVENTS = st.fixed_dictionaries(
    {
        "source": st.sampled_from(Source),
        "user": st.sampled_from("ab"),
        "ahead_ms": st.integers(-9, 9),
        "consent": st.sampled_from([None, None, None, True, False]),
    }
)
REQUESTS = st.fixed_dictionaries(
    {"user": st.sampled_from("ab"), "asks": st.sampled_from(["grant", "grant", "refuse", "erase"])}
)
HAPPENED = st.lists(EVENTS | REQUESTS, max_size=12)


@dataclass
class Happened:
    """Records in the order in which they came, a millisecond or two after one another, whatever devices' clocks say."""

    all: list[Record] = field(default_factory=list)

    def add(self, told_of: dict[str, Any]) -> None:
        """The next of them."""
        at = START_MS + 2 * len(self.all)
        if "asks" in told_of:
            self.all.append(told(_request(told_of["user"], told_of["asks"], at), len(self.of("control"))))
            return
        of = impression if told_of["source"] == Source.IMPRESSION else click
        time_ms, name = at + told_of["ahead_ms"], f"e{len(self.all)}"
        event = of(told_of["user"], event_id=name, time_ms=time_ms, consent=told_of["consent"])
        self.all.append(record(event, len(self.of(LANE_INPUTS[told_of["source"]])), timestamp=at))

    def of(self, topic: str) -> list[Record]:
        """Those of a topic."""
        return [each for each in self.all if each.topic == topic]

    def batches(self, count: int) -> Iterator[tuple[Source, Sequence[Record]]]:
        """The events as they are read, topic by topic, ``count`` at a time."""
        for source, topic in zip(Source, LANE_INPUTS, strict=True):
            records = self.of(topic)
            for begin in range(0, len(records), count):
                yield source, records[begin : begin + count]


def _request(user: str, asks: str, time_ms: int) -> ControlMessage:
    if asks == "erase":
        return Erasure(user_id=user, time_ms=time_ms)
    return Consent(user_id=user, granted=asks == "grant", time_ms=time_ms)


def name_of(each: Record) -> str:
    source = Source(LANE_INPUTS.index(each.topic))
    return DECODERS[source](each.value or b"").event_id


def held(happened: Happened, *, presumed: bool) -> set[str]:
    """The events that a lane holds in the end, which took each as it came."""
    control = Control()
    requests, store, out = Requests(control, lambda _: 0), RowStore(), dict[bytes, set[str]]()
    gate = Gate(requests.answers, requests.erasures, Watermarks(most=100), presumed)
    for each in happened.all:
        if each.topic == "control":
            since = control.next_offset
            control.take([each])
            for user in settle(requests.since(0, since), store, gate.watermarks):
                out.pop(user, None)
            continue
        source = Source(LANE_INPUTS.index(each.topic))
        sources = np.full(1, source, dtype=np.uint8)
        decoded = decode(
            [each], sources, store, latest_ms=START_MS + TOLERANCE_MS, belongs_here=lambda _: True, gate=gate
        )
        for user in decoded.withdrawn:
            out.pop(user, None)
        for event in decoded.events:
            row = store.rows[event["row"]]
            row["time_ms"] = max(row["time_ms"], event["time_ms"])
            out.setdefault(each.key or b"", set()).add(name_of(each))
    return set().union(*out.values())


def learnt(happened: Happened, count: int, *, presumed: bool) -> list[str]:
    ends = {(topic, 0): len(happened.of(topic)) for topic in LANE_INPUTS}
    learnable = Learnable(ends, presumed=presumed, now_ms=START_MS, tolerance_ms=TOLERANCE_MS, entries_max=100)
    learnable.control.take(happened.of("control"))
    for source, records in happened.batches(count):
        learnable.hear(source, records)
    if learnable.settle():
        for source, records in happened.batches(count):
            learnable.recall(source, records)
    return [event.event_id for source, records in happened.batches(count) for event in learnable.take(source, records)]


@given(HAPPENED, st.booleans())
def test_what_is_learnt_is_the_same_however_the_read_is_cut_and_never_more_than_a_lane_holds(
    told_of: list[dict[str, Any]], presumed: bool
) -> None:
    happened = Happened()
    for each in told_of:
        happened.add(each)
    found = learnt(happened, 1, presumed=presumed)
    assert all(learnt(happened, count, presumed=presumed) == found for count in (2, 3, 12))
    assert set(found) <= held(happened, presumed=presumed)
    if presumed and not any("asks" in each or each["consent"] is False for each in told_of):
        assert set(found) == held(happened, presumed=presumed)
