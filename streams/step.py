"""A slice of a lane as a pure function: records and state in, effects out. No topic, no clock.

The guarantee depends on the order of effects, so it is numbered. The lane (`streams.lanes.lane`) does 5 and 6:
 0. settle people's requests since the last slice: erasures, and consent withdrawn
 1. decode and validate; failures become dead letters, and people without consent no state
 2. apply the events to the rows, in order
 3. choose the users to score again, score and rank them
 4. copy the touched rows: the effects to be produced
 5. produce them, await every delivery  6. commit
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.anomaly import FloodScore, fastest
from scoring.arrays import Ints
from scoring.attribution import Attribution
from scoring.budgets import Budgets
from scoring.cleaning import Rules
from scoring.engine import Engine
from scoring.events import Events, Outcome, Source
from scoring.feedback import NOTHING_OBSERVED, Learning, Observed
from scoring.order import stream_times
from scoring.pool import Pool
from scoring.rows import Rows, RowStore, row_bytes
from scoring.traffic import Traffic
from scoring.units import DAY_MS, HOUR_MS
from scoring.update import Applied, apply
from streams import topics
from streams.conservation import account, tally
from streams.control_wire import Drift, HourlyTraffic
from streams.decode import Decoded, Record, decode
from streams.feeds.refused_ads import LANE, Refused, RefusedAds
from streams.lanes.clicks import Change, LaneClicks
from streams.lanes.ledger import Happened, Known, LaneLedger
from streams.letters import REROUTED, letter
from streams.message import Message
from streams.models.news import ModelNews
from streams.outcomes import encoded, told
from streams.placement_ids import slice_end
from streams.placing import Published, place
from streams.privacy.consent import Gate, Watermarks
from streams.privacy.guests import Guests, placements, tombstones, unremembered
from streams.privacy.requests import Requests, settle
from streams.wire import LaneRow, encode_json

LANE_ROW_VERSION = 1
EXPIRY_CHECK_MS = HOUR_MS
"""Stream time between two searches for idle users, each a pass over all rows."""


@dataclass(slots=True)
class Effects:
    """The messages of a slice, per topic in the order of production, and its counts."""

    messages: dict[str, list[Message]]
    watermarks: list[Message]
    """For ``state-changelog``, last of all: in a slice that is run again, a refusal before them would be skipped."""
    rerouted: dict[tuple[str, int], list[Message]]
    lane_row: LaneRow
    counts: Counter[str]
    tally: Counter[tuple[Source, str]]
    """Records by source and fate."""
    arms: Counter[str]
    """Placements by arm."""
    observed: Observed
    """What came of impressions."""
    control: list[Message]
    """For the control topic, which belongs to no lane: drifts, and how models fare."""
    drifts: list[Drift]


@dataclass(frozen=True, slots=True)
class Slice:
    """Records in the order taken, the source of each, and the watermarks after them.

    ``passed``: offsets of each source before which all records have been taken; markers of transactions are none.
    """

    records: Sequence[Record]
    order: npt.NDArray[np.uint8]
    watermarks_ms: tuple[int, int]
    passed: tuple[int, int] = (0, 0)


@dataclass
class LaneState:
    """The whole state of a lane, apart from its connections; rebuilt from the changelog."""

    lane: int
    topic_ids: tuple[str, str]
    lanes: int
    next_offsets: tuple[int, int] = (0, 0)
    watermarks_ms: tuple[int, int] = (0, 0)
    stream_ms: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    """Sums over all slices; each slice replaces the whole counter."""
    store: RowStore = field(default_factory=RowStore)
    clicks: LaneClicks = field(default_factory=LaneClicks)
    erased: Watermarks = field(default_factory=Watermarks)
    guests: Guests = field(default_factory=Guests)
    control_id: str = ""
    control_next: int = 0
    ledger: LaneLedger = field(default_factory=LaneLedger)
    traffic: Traffic = field(default_factory=Traffic)
    """Hours that have ended are on the control topic; a new owner does not learn of the present hour."""
    flood: FloodScore = field(default_factory=FloodScore)
    """Every owner learns it anew, within `scoring.anomaly.GRACE` slices."""
    models: ModelNews = field(default_factory=ModelNews)
    """What the lane has told of models; every owner tells it anew."""
    ads_next: int = 0
    """Lane 0 only: offset on the ads topic up to which refused ads have become letters."""
    ads_id: str = ""


def _untimed(_stage: str) -> None:
    """Ignore the times."""


@dataclass(frozen=True)
class Step:
    """The pure step of every lane of a worker. ``partition_of``: the producers' partitioner.

    ``rules``: which events must not shape interest. ``scoring`` False: state only, no placements and no click layer.
    ``learning`` None: no click layer. ``requests``: people's requests on the control topic, which does not change
    during a step. ``consent_presumed``: what a person's silence means. ``worker``: its name, for monitoring.
    ``pool``: what all lanes' click layers have learned; None: each lane serves by its own alone. ``receipts_share``:
    share of placements that leave a receipt.
    """

    engine: Engine
    partition_of: Callable[[bytes], int]
    time_tolerance_ms: int
    idle_ttl_ms: int
    rules: Rules = field(default_factory=Rules)
    scoring: bool = True
    learning: Learning | None = field(default_factory=Learning)
    refused: RefusedAds = field(default_factory=RefusedAds)
    requests: Requests | None = None
    consent_presumed: bool = True
    erased_kept_ms: int = 60 * DAY_MS
    attribution: Attribution = field(default_factory=Attribution)
    budgets: Budgets | None = None
    worker: str = ""
    pool: Pool | None = None
    receipts_share: float = 1.0

    def __post_init__(self) -> None:
        if self.budgets is None:
            object.__setattr__(self, "budgets", Budgets(self.engine.market, self.engine.catalogue))

    def run(self, state: LaneState, taken: Slice, now_ms: int, lap: Callable[[str], None] = _untimed) -> Effects:
        """Advance ``state`` by one slice, in place. A failure leaves it half done: the process must end.

        ``lap`` is called with the name of each stage that has ended.
        """
        lap("wait")
        store = state.store
        self.engine.models.settle()
        # 0. settle people's requests
        forgotten = self._settle(state)
        # 1. decode and validate
        decoded = self._decode(state, taken, now_ms)
        lap("decode")
        forgotten += decoded.withdrawn
        unlearned = state.clicks.forget(forgotten)
        # 2. apply, and learn what came of impressions
        decoded.events["stream_ms"] = _stream_times(state, taken)[decoded.places]
        before = Known.of(store.rows, decoded.events, self.attribution) if self.scoring else None
        applied, seen, learned = self._apply(state, decoded.events)
        time_ms = min(max(state.stream_ms, *taken.watermarks_ms), now_ms + self.time_tolerance_ms)
        misquoted = self._charge(state, decoded, applied, before, time_ms)
        lap("apply")
        # 3. score again whoever did something
        rows = store.rows[applied.touched]
        users = [user for row in applied.touched.tolist() if (user := store.users[row]) is not None]
        acted = np.flatnonzero(applied.acted)  # filtered or late events lead to no placement
        share, strangers = self.receipts_share, unremembered(decoded, state.store)
        published = self._place(state, [users[at] for at in acted.tolist()], rows[acted], time_ms, receipts_share=share)
        published += state.guests.newest(self._place(state, *strangers, time_ms, context_only=True))
        lap("place")
        # 4. the effects
        expired, gone = self._leave(state, taken, forgotten, published)
        if expired:  # without a row that can expire, their placement would never be removed
            published = [p for p in published if p.guest or p.user in store]
        counts = account(len(taken.records), decoded, applied)
        counts.update(placements=len(published), outcomes=len(seen.outcomes), expired=len(expired), misquoted=misquoted)
        score = state.flood.observe(fastest(rows, decoded.events["stream_ms"][0])) if len(rows) else 0.0
        changes = [*unlearned, *learned, *state.clicks.forget(expired), *state.guests.changes()]
        kept, campaigns = state.ledger.commit(state.lane, self._budgets, time_ms)
        of_slice = slice_end(ends := _ends(state, taken))
        messages = {
            topics.PLACEMENTS: placements(published, gone, forgotten),
            topics.DECISIONS: [Message(p.user, p.decision, of_slice) for p in published if p.decision is not None],
            topics.SHADOW_SCORES: [Message(None, encode_json(p.beside)) for p in published if p.beside is not None],
            topics.OUTCOMES: self._outcomes(state, seen),
            topics.DEAD_LETTERS: [letter(*dead) for dead in [*decoded.dead, *self._refused_ads(state, counts)]],
            topics.LATE_EVENTS: _late(taken, decoded, applied),
            topics.CAMPAIGN_METRICS: campaigns,
            topics.CLICK_LAYERS: state.clicks.share(state.lane) if self.pool is not None else [],
            topics.CHANGELOG: [*map(Message, users, row_bytes(rows)), *starmap(Message, changes), *gone, *kept],
        }
        marks = [*starmap(Message, state.erased.changes())]
        rerouted = self._rerouted(decoded.misplaced)
        lane_row = _advance(state, taken, ends, counts, score)
        control, drifts = self._control(state, published)
        control += self._traffic(state, decoded.events, applied, time_ms)
        fates, arms = tally(decoded, applied), Counter(p.arm for p in published)
        effects = Effects(messages, marks, rerouted, lane_row, counts, fates, arms, seen, control, drifts)
        lap("encode")
        return effects

    def _decode(self, state: LaneState, taken: Slice, now_ms: int) -> Decoded:
        """The slice's records: those that may be applied, and what becomes of the others."""
        return decode(
            taken.records,
            taken.order,
            state.store,
            latest_ms=now_ms + self.time_tolerance_ms,
            belongs_here=lambda key: self.partition_of(key) == state.lane,
            gate=self._gate(state),
        )

    def _gate(self, state: LaneState) -> Gate:
        """Who may become state of the lane."""
        asked = (self.requests.answers, self.requests.erasures) if self.requests else ({}, {})
        return Gate(*asked, state.erased, self.consent_presumed, self.time_tolerance_ms)

    def _control(self, state: LaneState, published: list[Published]) -> tuple[list[Message], list[Drift]]:
        """What the lane tells all others: drifts of its click layer, and how models fare. And the drifts."""
        models, layer = self.engine.models, state.clicks.layer
        if self._learns:
            state.clicks.heed(models)  # no event may have come since the models changed, or one may have just failed
        state.models.differ(p.beside for p in published if p.beside is not None)
        drifts = told(state.clicks.alarms(), state.lane, state.clicks.models, state.stream_ms)
        news = [*drifts, *state.models.tell(state.lane, models, layer, self.worker, state.stream_ms)]
        return [Message(each.key, encode_json(each)) for each in news], drifts

    def _traffic(self, state: LaneState, events: Events, applied: Applied, time_ms: int) -> list[Message]:
        """What the lane has learnt of its traffic, once an hour has ended."""
        shown = (events["source"] == Source.IMPRESSION) & (applied.outcome == Outcome.APPLIED)
        if not self.scoring or not state.traffic.observe(time_ms, int(shown.sum())):
            return []
        mean = state.traffic.mean.copy()
        self._budgets.learn(state.lane, mean)
        hours = tuple(None if np.isnan(hour) else round(hour, 3) for hour in mean.tolist())
        told = HourlyTraffic(lane=state.lane, hours=hours, time_ms=time_ms)
        return [Message(told.key, encode_json(told))]

    def _place(self, state: LaneState, users: list[bytes], rows: Rows, time_ms: int, **how: Any) -> list[Published]:
        """Placements by what the lane has learned and by its time ``time_ms``; ``how``: see `streams.placing.place`."""
        if not users or not self.scoring:
            return []
        return place(self.engine, state.lane, users, rows, state.clicks.calibrator, latest_ms=time_ms, **how)

    def _settle(self, state: LaneState) -> list[bytes]:
        """The users that the lane has forgotten, on requests since the last slice."""
        if self.requests is None:
            return []
        requests = self.requests.since(state.lane, state.control_next)
        state.control_next = self.requests.control.next_offset
        return settle(requests, state.store, state.erased)

    def _refused_ads(self, state: LaneState, counts: Counter[str]) -> list[Refused]:
        """Refused ads, if this lane makes their letters. They are not its records, so they have none of its fates."""
        if state.lane != LANE:
            return []
        found, state.ads_next = self.refused.take(state.ads_next)
        counts["refused_ads"] = len(found)
        return found

    def _outcomes(self, state: LaneState, observed: Observed) -> list[Message]:
        told = encoded(observed.outcomes, self.engine.catalogue, state.clicks.models)
        return [Message(None, each) for each in told]

    def _apply(self, state: LaneState, events: Events) -> tuple[Applied, Observed, list[Change]]:
        """Apply ``events``: what they did, what they told of impressions, and the click layer's changelog entries."""
        engine, clicks, learns = self.engine, state.clicks, self._learns
        others = self.pool.others(state.lane) if learns and self.pool is not None else None
        if learns and not len(events):
            clicks.serve(engine.catalogue, others)  # this slice may place ads that came since the last one
        if not learns or not len(events):
            return apply(state.store, events, engine.catalogue, self.rules), NOTHING_OBSERVED, []
        applied, observed = clicks.apply(state.store, events, engine, self.rules)
        return applied, observed, clicks.commit(engine.catalogue, others)

    @property
    def _learns(self) -> bool:
        """Whether lanes have a click layer."""
        return self.learning is not None and self.scoring

    @property
    def _budgets(self) -> Budgets:
        assert self.budgets is not None
        return self.budgets

    def _charge(self, state: LaneState, decoded: Decoded, applied: Applied, before: Known | None, time_ms: int) -> int:
        """Charge campaigns for what happened, and let their spend so far change their bids.

        ``before`` None: charge nothing, since nothing is scored.
        """
        misquoted = 0
        if before is not None and len(decoded.events):
            happened = Happened(decoded.events, applied.outcome, before, decoded.arms)
            misquoted = state.ledger.charge(happened, self.engine, self.attribution, time_ms // DAY_MS)
        state.ledger.tell(state.lane, self._budgets, time_ms // DAY_MS)
        self._budgets.pace(time_ms)
        return misquoted

    def _rerouted(self, misplaced: list[Record]) -> dict[tuple[str, int], list[Message]]:
        """Records whose key belongs to another partition, by topic and partition where they belong."""
        out: dict[tuple[str, int], list[Message]] = {}
        for record in misplaced:
            headers = (*record.headers, (REROUTED, b"1"))
            message = Message(record.key, record.value, headers, record.timestamp)
            out.setdefault((record.topic, self.partition_of(record.key or b"")), []).append(message)
        return out

    def _leave(
        self, state: LaneState, taken: Slice, forgotten: list[bytes], published: list[Published]
    ) -> tuple[list[bytes], list[Message]]:
        """Users who have expired; tombstones for them, the ``forgotten``, and guests whose placements have ended."""
        guests, hour = state.guests, state.stream_ms // EXPIRY_CHECK_MS
        expired = self._expire(state, taken)
        same = state.stream_ms // EXPIRY_CHECK_MS == hour
        guests.drop(forgotten)
        left = guests.drop(guests.surplus() if same else guests.before(state.stream_ms))
        guests.note(published)
        return expired, tombstones(state.store, [*forgotten, *expired, *left])

    def _expire(self, state: LaneState, taken: Slice) -> list[bytes]:
        """Forget users who have been idle for `idle_ttl_ms` of stream time; checked once an hour of stream time."""
        before_ms, state.stream_ms = state.stream_ms, max(state.stream_ms, *taken.watermarks_ms)
        gate = self._gate(state)
        gate.bound()
        if before_ms // EXPIRY_CHECK_MS == state.stream_ms // EXPIRY_CHECK_MS:
            return []
        gate.expire(state.stream_ms - self.erased_kept_ms)
        idle = state.store.idle_users(state.stream_ms - self.idle_ttl_ms)
        for user in idle:
            state.store.remove(user)
        return idle


def _stream_times(state: LaneState, taken: Slice) -> Ints:
    """The lane's time at each record of the slice."""
    record_ms = np.array([record.timestamp for record in taken.records], dtype=np.int64)
    return stream_times(record_ms, state.stream_ms, max(state.stream_ms, *taken.watermarks_ms))


def _late(taken: Slice, decoded: Decoded, applied: Applied) -> list[Message]:
    """Events that came too late, as letters with their origin and the lane's time when they came."""
    out = []
    for at in np.flatnonzero(applied.outcome == Outcome.LATE).tolist():
        time_ms, stream_ms = (int(decoded.events[name][at]) for name in ("time_ms", "stream_ms"))
        message = f"time_ms {time_ms} is {stream_ms - time_ms} ms before the lane's time {stream_ms}"
        out.append(letter(taken.records[decoded.places[at]], "late", "LateEvent", message))
    return out


def _ends(state: LaneState, taken: Slice) -> tuple[int, int]:
    """The lane's next offsets after the slice."""
    after = [*map(max, state.next_offsets, taken.passed)]
    for source in Source:
        for last in np.flatnonzero(taken.order == source)[-1:].tolist():
            after[source] = taken.records[last].offset + 1
    return after[Source.IMPRESSION], after[Source.CLICK]


def _advance(state: LaneState, taken: Slice, ends: tuple[int, int], counts: Counter[str], score: float) -> LaneRow:
    """Move the lane past the slice, to ``ends``; return the lane row that records it."""
    before, state.next_offsets = state.next_offsets, ends
    state.watermarks_ms = taken.watermarks_ms
    # Replaced in one go, not changed in place: the gauges read it on another thread.
    totals = state.totals.copy()
    totals.update(counts)
    state.totals = totals
    return LaneRow(
        version=LANE_ROW_VERSION,
        from_offsets=before,
        next_offsets=state.next_offsets,
        records=len(taken.records),
        order=np.packbits(taken.order).tobytes(),
        watermarks_ms=state.watermarks_ms,
        stream_ms=state.stream_ms,
        topic_ids=state.topic_ids,
        lanes=state.lanes,
        totals=dict(state.totals),
        flood_score=round(score, 6),
        ads_next=state.ads_next,
        control_id=state.control_id,
        control_next=state.control_next,
        ads_id=state.ads_id,
    )
