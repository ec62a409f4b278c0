"""Which of a consent, a no on an event and an erasure holds: by when they were sent, whatever devices' clocks say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.events import Source
from scoring.rows import RowStore
from scoring.units import MINUTE_MS
from streams.control import Control
from streams.decode import decode
from streams.learnable import Learnable
from streams.privacy.consent import Gate, Watermarks
from streams.privacy.requests import Requests, settle
from tests.builders import START_MS, Record, click, record
from tests.unit.consenting import erasure, grant, refusal, told

LATER_MS = START_MS + 60 * MINUTE_MS
TOLERANCE_MS = 300_000
ASKED = {"grant": grant, "refuse": refusal, "erase": erasure}
EVENTS = {"yes": True, "no": False, "silent": None}
ENDS = ("no", "erase")
"""They end the consents before them, where silence means no."""


class Act(NamedTuple):
    """What a person did half a minute after the last, by a device whose clock is ``ahead`` by so many minutes."""

    what: str
    ahead: int


ACTS = st.lists(
    st.builds(Act, st.sampled_from([*EVENTS, "silent", "no", *ASKED, "grant"]), st.sampled_from([-4, 0, 4])),
    max_size=9,
)


def sent_ms(at: int) -> int:
    return START_MS + 10 * MINUTE_MS + at * MINUTE_MS // 2


def records_of(acts: Sequence[Act]) -> list[Record]:
    made, counts = [], {"clicks": 0, "control": 0}
    for at, (what, ahead) in enumerate(acts):
        came_ms = sent_ms(at)
        time_ms = came_ms + ahead * MINUTE_MS
        if what in EVENTS:
            event = click("a", event_id=f"{at}", time_ms=time_ms, consent=EVENTS[what])
            made.append(record(event, counts["clicks"], timestamp=came_ms))
        else:
            made.append(told(ASKED[what]("a", time_ms), counts["control"], came_ms=came_ms))
        counts[made[-1].topic] += 1
    return made


@dataclass
class Lane:
    """A lane's rule alone, record by record, and the events that its rows hold."""

    presumed: bool
    restarts: bool
    control: Control = field(default_factory=Control)
    store: RowStore = field(default_factory=RowStore)
    marks: Watermarks = field(default_factory=Watermarks)
    changelog: dict[bytes, bytes] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.requests = Requests(self.control, lambda _: 0)

    def take(self, each: Record) -> None:
        since = self.control.next_offset
        if each.topic == "control":
            self.control.take([each])
            gone = settle(self.requests.since(0, since), self.store, self.marks)
        else:
            gone = self._decode(each)
        for key, value in self.marks.changes():
            self.changelog.pop(key, None)
            if value is not None:
                self.changelog[key] = value
        if self.restarts:
            self.marks = Watermarks.restore(self.changelog)
        if gone and not len(self.store):
            self.held.clear()

    def _decode(self, each: Record) -> list[bytes]:
        gate = Gate(self.requests.answers, self.requests.erasures, self.marks, self.presumed, TOLERANCE_MS)
        click_of = np.full(1, Source.CLICK, dtype=np.uint8)
        now_ms = LATER_MS + TOLERANCE_MS
        found = decode([each], click_of, self.store, latest_ms=now_ms, belongs_here=lambda _: True, gate=gate)
        for event in found.events:
            row = self.store.rows[event["row"]]
            row["time_ms"] = max(row["time_ms"], event["time_ms"])
            self.held.add((each.timestamp - sent_ms(0)) * 2 // MINUTE_MS)
        return found.withdrawn


def forbidden(acts: Sequence[Act], *, presumed: bool) -> set[int]:
    """Events that nobody may hold in the end, by the order in which all was sent alone."""
    answers = [what for what, _ in acts if what in ("grant", "refuse")]
    if answers[-1:] == ["refuse"]:
        return set(range(len(acts)))
    out = set()
    for at, (what, _) in enumerate(acts):
        ends = [end for end, act in enumerate(acts) if act.what in ENDS]
        grants = [yes for yes, act in enumerate(acts) if act.what == "grant"]
        taken = any(act.what in ("refuse", *ENDS) for act in acts[at:])
        leans = what == "silent" and not presumed
        stands = any(yes < at and not any(yes < end < at for end in ends) for yes in grants)
        if taken or (leans and not stands):
            out.add(at)
    return out


def read_late(acts: Sequence[Act], late: Callable[[Act], bool], by: int) -> list[Record]:
    """The records in the order in which a lane reads them, where those of one kind are read ``by`` places late."""
    order = sorted(range(len(acts)), key=lambda at: (at + (by + 0.5 if late(acts[at]) else 0), at))
    made = records_of(acts)
    return [made[at] for at in order]


def of_control(act: Act) -> bool:
    return act.what in ASKED


def of_events(act: Act) -> bool:
    return act.what in EVENTS


def of_one_topic(act: Act) -> bool:
    """As of impressions, which a lane may read after clicks that were sent later."""
    return act.what in EVENTS and act.ahead == 4


# Of a refusal that a consent has followed nobody knows the record's time: what came before it goes by its own.
@pytest.mark.parametrize(
    ("late", "kinds"),
    [
        (of_control, {*EVENTS, *ASKED}),
        (of_events, {*EVENTS, "grant", "erase"}),
        (of_one_topic, {*EVENTS, "grant", "erase"}),
    ],
)
@settings(max_examples=1_000)
@given(drawn=ACTS, by=st.integers(0, 4), presumed=st.booleans())
def test_a_lane_holds_nothing_that_was_sent_before_it_was_taken_back_and_nobody_is_locked_out(
    late: Callable[[Act], bool], kinds: set[str], drawn: list[Act], by: int, presumed: bool
) -> None:
    acts = [act for act in drawn if act.what in kinds]
    read = read_late(acts, late, by)
    lane, again = Lane(presumed, restarts=False), Lane(presumed, restarts=True)
    for each in read:
        lane.take(each)
        again.take(each)
        assert (lane.held, lane.marks.parts()) == (again.held, again.marks.parts())
    assert not lane.held & forbidden(acts, presumed=presumed)
    ends = [at for at, act in enumerate(acts) if act.what in ENDS]
    answers = [(at, act.what) for at, act in enumerate(acts) if act.what in ("grant", "refuse")]
    last, answer = answers[-1] if answers else (-1, "")
    silent, yes = (
        record(click("a", event_id=name, time_ms=LATER_MS, consent=said), 90 + at, timestamp=LATER_MS)
        for at, (name, said) in enumerate([("silent", None), ("yes", True)])
    )
    lane.held.clear()
    lane.take(silent)
    assert bool(lane.held) == (
        answer != "refuse" and (presumed or (answer == "grant" and last > max(ends, default=-1)))
    )
    lane.take(yes)
    assert bool(lane.held) == (answer != "refuse")


@settings(max_examples=1_000)
@given(acts=ACTS, presumed=st.booleans())
def test_nothing_is_learnt_that_was_sent_before_it_was_taken_back(acts: list[Act], presumed: bool) -> None:
    made = records_of(acts)
    events = [each for each in made if each.topic != "control"]
    ends = {("clicks", 0): len(events)}
    learnable = Learnable(ends, presumed=presumed, now_ms=LATER_MS, tolerance_ms=TOLERANCE_MS, entries_max=100)
    learnable.control.take([each for each in made if each.topic == "control"])
    learnable.hear(Source.CLICK, events)
    if learnable.settle():
        learnable.recall(Source.CLICK, events)
    found = {int(event.event_id) for event in learnable.take(Source.CLICK, events)}
    assert not found & forbidden(acts, presumed=presumed)
