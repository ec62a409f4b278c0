"""All that the console knows: fed by the tails, and returned as one snapshot a second. No I/O.

Everything here runs on the compute thread, one call after the other.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from scoring.arrays import Floats
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from streams import topics
from streams.console.alarms import Alarm, alarms
from streams.console.campaigns import Campaigns, Day
from streams.console.clicks import OUTCOMES_READ, ArmRate, Clicks, ModelQuality
from streams.console.flow import Flow, Placed
from streams.console.lanes import History, LaneState, lane_states, shown
from streams.console.people import PEOPLE_MAX, Found, People
from streams.console.refused import Refused, RefusedKind
from streams.console.tails import Tail
from streams.console.trials import Trials, TrialState
from streams.control_wire import Drift, HourlyTraffic, decode_control
from streams.dead_letters import letter_of
from streams.decode import Record
from streams.feeds.catalogue import TITLES_PER_READ, apply_ads, titles_in
from streams.lag.arithmetic import Status
from streams.lag.monitor import News
from streams.outcomes import outcomes_in
from streams.settings import Settings
from streams.titles import Titles
from streams.wire import UNREADABLE, Tone

LETTERS_READ = 5_000
TURNED_MAX = 100
"""Most ads and brands kept whose reviews have turned, the latest."""

_tone = msgspec.json.Decoder(Tone).decode
_placed = msgspec.json.Decoder(Placed).decode


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The console at ``time_ms``. ``level``: red, amber or ok. ``skipped``: records that the reader jumped over.

    ``members``: None where the broker does not tell, like the embedded one.
    """

    time_ms: int
    level: str
    worst: Status
    alarms: list[Alarm]
    group: str
    members: int | None
    poll_age_s: float
    caught_up: bool
    skipped: int
    malformed: int
    lanes: list[LaneState]
    lanes_hidden: int
    arms: list[ArmRate]
    experiments: list[TrialState]
    models: list[ModelQuality]
    drifts: list[Drift]
    day: Day
    refused: list[RefusedKind]
    people: list[str]


class Desk:
    """What is known of the workers that ``settings`` name, with ``lanes`` lanes.

    ``engine``: the ads topic fills its catalogue, and its model computes receipts again.
    """

    def __init__(self, settings: Settings, lanes: int, engine: Engine | None = None) -> None:
        self._settings = settings
        self._inputs = [settings.topic_prefix + name for name in (topics.AD_IMPRESSIONS, topics.CLICKS)]
        self.engine = engine
        self.catalogue = engine.catalogue if engine is not None else Catalogue()
        self.people = People()
        self._flow, self._history = Flow(lanes), History(lanes)
        self._clicks, self._campaigns, self._refused = Clicks(), Campaigns(), Refused()
        self._trials = Trials()
        self._turned: dict[bytes, Tone] = {}
        self._people_read = PEOPLE_MAX // lanes
        self._shown: list[LaneState] = []
        self._alarms: list[Alarm] = []
        self.malformed = 0
        """Records that cannot be read: of another version, or from another writer."""

    def tails(self) -> list[Tail]:
        """The topics in the order in which they are read, each with the method that takes its records."""
        prefix = self._settings.topic_prefix
        return [
            self._ads(prefix + topics.ADS),
            Tail(prefix + topics.CONTROL, self._take_control),
            Tail(prefix + topics.EXPERIMENT_REPORTS, self._take_reports),
            Tail(prefix + topics.CAMPAIGN_METRICS, self._campaigns.take),
            Tail(prefix + topics.TONES, self._take_tones),
            Tail(prefix + topics.PLACEMENTS, self._take_placements, self._people_read, jumped=self.people.leave),
            Tail(prefix + topics.OUTCOMES, self._take_outcomes, OUTCOMES_READ, jumped=self._clicks.jumped),
            Tail(prefix + topics.DEAD_LETTERS, self._take_letters, newest=LETTERS_READ),
        ]

    def _ads(self, topic: str) -> Tail:
        """The ads topic as workers read it: titles, if any are encoded, first on another thread, a few at a time."""
        titles = self.catalogue.titles
        if not isinstance(titles, Titles):
            return Tail(topic, self._take_ads)
        return Tail(
            topic, self._take_ads, ahead=lambda records: titles.learn(titles_in(records)), at_once=TITLES_PER_READ
        )

    def _take_ads(self, records: Sequence[Record]) -> None:
        apply_ads(self.catalogue, records)

    def _take_control(self, records: Sequence[Record]) -> None:
        traffic: dict[int, Floats] = {}
        for record in records:
            if record.value is None or not (record.key or b"").startswith((b"drift/", b"traffic/")):
                continue
            try:
                message = decode_control(record.value)
            except UNREADABLE:
                self.malformed += 1
                continue
            if isinstance(message, Drift):
                self._clicks.drifted(message)
            elif isinstance(message, HourlyTraffic):
                traffic[message.lane] = np.array(message.hours, dtype=np.float64)  # None is NaN
        self._campaigns.learn(traffic)

    def _take_reports(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                self._trials.take((record.key or b"").decode(errors="replace"), record.value)
            except UNREADABLE:
                self.malformed += 1

    def _take_tones(self, records: Sequence[Record]) -> None:
        for record in records:
            self._turned.pop(record.key or b"", None)
            try:
                tone = _tone(record.value) if record.value is not None else None
            except UNREADABLE:
                self.malformed += 1
                continue
            if tone is not None and tone.turned_ms is not None:
                self._turned[tone.key] = tone
                if len(self._turned) > TURNED_MAX:
                    del self._turned[min(self._turned, key=lambda key: self._turned[key].turned_ms or 0)]

    def _take_placements(self, records: Sequence[Record]) -> None:
        placed, written_ms = [], []
        for record in records:
            if record.value is None:
                self.people.forget((record.key or b"").decode(errors="replace"))
                continue
            try:
                one = _placed(record.value)
            except UNREADABLE:
                self.malformed += 1
                continue
            self.people.add(Found(one, record.partition))
            placed.append(one)
            written_ms.append(record.timestamp)
        self._flow.take(records[0].partition, placed, written_ms)

    def _take_outcomes(self, records: Sequence[Record]) -> None:
        outcomes, malformed = outcomes_in(records)
        self.malformed += malformed
        self._clicks.take(records[0].partition, outcomes)

    def _take_letters(self, records: Sequence[Record]) -> None:
        self._refused.take([letter for record in records if (letter := letter_of(record)) is not None])

    def tick(self, news: News, now_ms: int, *, caught_up: bool, skipped: int) -> Snapshot:
        """The snapshot of this second."""
        group = next((group for group in news.report.groups if group.group == self._settings.group), None)
        states = lane_states(group, self._inputs, self._flow.tick(now_ms, caught_up=caught_up))
        self._history.add(states)
        self._shown = shown(states, {state.lane for state in self._shown})
        models, drifts, refused = self._clicks.models(now_ms), list(self._clicks.drifts), self._refused.told(now_ms)
        stream_ms = max((model.newest_ms for model in models), default=now_ms)  # drift is dated by event time,
        stream_ms = min(stream_ms, now_ms + self._settings.time_tolerance_ms)  # which is never later than this
        tones, wanted = self._turned.values(), self._clicks.wanted()
        found = alarms(news, group, models, drifts, refused, tones, now_ms, stream_ms, self._alarms, wanted)
        self._alarms = found
        return Snapshot(
            time_ms=now_ms,
            level="red" if any(alarm.red for alarm in found) else "amber" if found else "ok",
            worst=group.total.status if group is not None else Status.UNKNOWN,
            alarms=found,
            group=self._settings.group,
            members=group.members if group is not None else 0,
            poll_age_s=round(news.age_s, 2),
            caught_up=caught_up,
            skipped=skipped,
            malformed=self.malformed + self._campaigns.malformed,
            lanes=self._shown,
            lanes_hidden=len(states) - len(self._shown),
            arms=self._clicks.arms(),
            experiments=self._trials.told(now_ms),
            models=models,
            drifts=drifts,
            day=self._campaigns.day(),
            refused=refused,
            people=self.people.recent(),
        )

    def history(self) -> dict[int, dict[str, list[float | None]]]:
        """History of the lanes shown, for a page that was just opened."""
        return self._history.of(self._shown)
