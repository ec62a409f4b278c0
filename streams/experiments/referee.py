"""The referee of experiments: who was exposed to which arm, what they did, and what that shows. No I/O.

An exposure is an impression whose placement's id names an arm and was made for the person who saw it: a page from
before a login names the arm of the visitor who asked for it. What a user did comes from their row on the changelog,
whose counters are exact: each event once, filtered as the engine filters. A user counts from the row that holds the
exposing impression on; the counters before it are the user's past. How varied the ads shown were comes from the
impressions themselves, from the exposing one on.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from typing import cast

import msgspec
import numpy as np

from scoring.assignment import BOTH, OUTSIDE
from scoring.events import Source
from scoring.features import top_category
from scoring.ids import MISSING, id64, id64s
from scoring.policies import arms_of
from scoring.rows import Rows
from streams.control_wire import Allocation, Consent, ExperimentSetting
from streams.decode import Record, sent, valid
from streams.experiments.duels import Credits, Drafted, showing_of, side_of
from streams.experiments.people import (
    FROM_IMPRESSIONS,
    FROM_ROWS,
    ROOM,
    SHOWN,
    USERS_MAX,
    Ids,
    Ints,
    People,
    counted,
    ids_of,
)
from streams.experiments.registry import definition, shared_number
from streams.experiments.watched import Watched
from streams.oldest import give_up_oldest
from streams.placement_ids import made_for
from streams.privacy.consent import Gate, Verdict, Watermarks
from streams.privacy.requests import Request
from streams.wire import UNREADABLE, Impression

ADS_MAX = 1_000_000
REPEATS_MAX = 100_000
"""Impressions whose repeats are recognised: a producer sends a repeat within a few events, with others' in between."""


class _Known(msgspec.Struct):
    """What the referee reads of an outcome."""

    event: str
    ad_id: str
    shown_ms: int
    clicked: bool


_decode_known = msgspec.json.Decoder(_Known).decode


class _Shelved(msgspec.Struct):
    """What the referee reads of an ad."""

    category: str = ""


_decode_shelved = msgspec.json.Decoder(_Shelved).decode


class Referee:
    """Follows impressions, outcomes, rows, ads, experiments and people's requests, and judges the experiments.

    ``gate``: whom it may watch, by the workers' rule.
    """

    def __init__(self, users_max: int = USERS_MAX, gate: Gate | None = None) -> None:
        self._gate = gate or Gate()
        self.settled = 0
        """Offset on the control topic up to which people's requests have been met."""
        self.people = People(users_max)
        self.now_ms = 0
        """Time of the newest row: people's actions are known up to then."""
        self._categories: dict[str, int] = {}
        self.watched: dict[int, Watched] = {}
        self._over: dict[int, str] = {}
        """Names, by number, of experiments that ended before they were watched: their placements may still be read."""
        self._allocations: dict[str, Allocation] = {}
        self.credits = Credits()
        self.latest: dict[int, int] = {}
        """The person's 64-bit id by that of person and event: `REPEATS_MAX` impressions at most, oldest first."""
        self._may_give_up = True
        """Whether some places may be idle people's; looked for only when there are too few, and new idle people."""
        self.malformed = 0

    def _going_on(self) -> list[Watched]:
        """Experiments whose users are kept."""
        return [watched for watched in self.watched.values() if watched.setting.status != "stopped"]

    # --- what is followed ----------------------------------------------------------------------------------

    def follow(self, setting: ExperimentSetting) -> None:
        """Take an experiment's newest setting. A draft is not watched; a stopped experiment keeps its last look.

        Raises `ValueError`, and keeps what was known, where the setting is impossible, its number is another
        experiment's, or its arms differ from those judged. A stop counts whatever else it says, as for the workers.
        """
        known = self.watched.get(setting.number)
        holder = self._over.get(setting.number) if known is None else known.setting.experiment
        if holder is not None and holder != setting.experiment:
            raise ValueError(shared_number(setting, holder))
        if known is not None:
            if setting.status == "stopped":
                self._end(known, setting)
                return
            if known.setting.status == "stopped":
                return  # a stop is for good; older settings come again, since each start reads the whole topic
            if (known.setting.arms, known.setting.interleaved) != (setting.arms, setting.interleaved):
                raise ValueError("its arms are others than those that are judged")
            definition(setting, known.allocation)
            known.setting = setting
        elif setting.status == "stopped":
            self._over[setting.number] = setting.experiment
        elif setting.status == "running":
            self.watched[setting.number] = made = Watched.of(setting)
            made.unwatched_before = self.people.unwatched
            made.grow(self.people.room)
            if (told := self._allocations.get(setting.experiment)) is not None:
                self.allocate(told)

    def keep(self, settings: Mapping[str, ExperimentSetting]) -> None:
        """End experiments that are not in ``settings``, all on the topic by name: taken back, or the name is reused."""
        for watched in self._going_on():
            told = settings.get(watched.setting.experiment)
            if told is None or told.number != watched.setting.number:
                over = msgspec.structs.replace(watched.setting, status="stopped", reason="taken back")
                self._end(watched, over)

    def _end(self, watched: Watched, setting: ExperimentSetting) -> None:
        """Drop an ended experiment's users, and their impressions whose outcome is not known."""
        self.watched[setting.number] = watched.ended(setting)
        self._may_give_up = True
        if watched.duel is not None:  # only once, not when each start reads the stop again: it scans all that waits
            self.credits.give_up(setting.number)

    def allocate(self, told: Allocation) -> None:
        """Take an experiment's newest cohorts, which may come before the experiment.

        Raises `ValueError` where they are impossible; the experiment then keeps those it had.
        """
        self._allocations[told.experiment] = told
        watched = self.watched.get(told.number)
        if watched is not None and watched.setting.experiment == told.experiment:
            watched.trial.shares = definition(watched.setting, told).shares
            watched.allocation = told

    def take_ads(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Learn the category of each ad: the first level of its path."""
        for key, value in records:
            if key is None or value is None:
                continue
            ad = key.decode(errors="replace")
            if len(self._categories) >= ADS_MAX and ad not in self._categories:
                continue
            try:
                category = _decode_shelved(value).category
            except UNREADABLE:
                continue  # the engine refuses it too
            self._categories[ad] = id64(top_category(category))

    def take_impressions(self, records: Sequence[Record], latest_ms: int) -> None:
        """Learn of exposures, and count changes of category. An impression that the engine refuses exposes nobody.

        ``latest_ms``: the newest time that an impression may have. The referee may read later than the engine, and so
        take an impression that was too far ahead for the engine; it counts only once a row has its time or a later one.
        """
        places_, found = valid(Source.IMPRESSION, records, latest_ms)
        events = cast("list[Impression]", found)
        self.malformed += len(records) - len(events)
        told = [
            (one, sent(records[at], one.time_ms, latest_ms)) for at, one in zip(places_.tolist(), events, strict=True)
        ]
        shown = [one for one, sent_ms in told if self._may_count(one, sent_ms) and not self._is_repeat(one)]
        self.bound()
        if not shown:
            return
        places = self._places(id64s([one.user_id for one in shown]))
        own = made_for([one.placement_id or "" for one in shown], [one.user_id for one in shown])
        for one, place, is_own in zip(shown, places.tolist(), own.tolist(), strict=True):
            if place == MISSING:
                continue
            for number, arm in arms_of(one.placement_id or "") if is_own else ():
                watched = self.watched.get(number)
                if watched is None or watched.setting.status != "running":
                    continue
                if watched.duel is None:
                    watched.expose(place, arm, one.time_ms, self.people.totals[place, FROM_IMPRESSIONS])
                elif arm == BOTH and one.slot is not None:
                    drafted = Drafted(number, place, side_of(one.placement_id or "", one.slot))
                    showing = showing_of(f"{id64(one.event_id):016x}", one.ad_id, one.time_ms)
                    self.credits.show(watched.duel, showing, drafted)
            self.people.show(place, self._categories.get(one.ad_id, 0))

    def _may_count(self, shown: Impression, sent_ms: int) -> bool:
        """Whether the person may be watched; if not, nothing of them is kept, and no row tells of them."""
        user = shown.user_id.encode()
        verdict = self._gate.judge(user, shown.consent, shown.time_ms, sent_ms)
        if shown.consent is False:
            self.erased.say_no(user, sent_ms)
        return verdict is Verdict.ADMITTED

    def _is_repeat(self, shown: Impression) -> bool:
        """Whether the impression is among the latest; remembers it."""
        event = id64(f"{shown.user_id}\0{shown.event_id}")  # ids need not differ between people
        if event in self.latest:
            return True
        self.latest[event] = id64(shown.user_id)
        give_up_oldest(self.latest, REPEATS_MAX)
        return False

    def take_outcomes(self, values: Iterable[bytes | None]) -> None:
        """Learn the outcomes of impressions, each once and filtered by the engine; for interleaved rankings only."""
        if not any(watched.duel for watched in self.watched.values()):
            return
        for value in values:
            try:
                known = _decode_known(value or b"")
                won = self.credits.settle(showing_of(known.event, known.ad_id, known.shown_ms), clicked=known.clicked)
            except UNREADABLE:
                self.malformed += 1
                continue
            if won is not None and (watched := self.watched.get(won.number)) is not None and watched.duel is not None:
                watched.duel.take(won.person, won.side)  # the person has a place since the impression

    def take_rows(self, users: Sequence[bytes], rows: Rows) -> None:
        """Take users' new rows, each user once. Exposures that a row holds begin to count; then the totals are set."""
        if self.erased.until_ms:  # drop older rows of people who have asked to be forgotten
            kept = [row_ms > self.erased.of(user) for user, row_ms in zip(users, rows["time_ms"].tolist(), strict=True)]
            users, rows = [*compress(users, kept)], rows[kept]
        self.now_ms = max(self.now_ms, int(rows["time_ms"].max(initial=0)))
        people, places = self.people, self._places(ids_of(users))
        held = places != MISSING
        places, rows = places[held], rows[held]
        now = people.totals[places]
        now[:, FROM_ROWS] = people.lifetime(places, counted(rows))
        first = ~people.seen[places]
        # Impressions are read before rows: a first row with no more impressions than were read hides no earlier ones.
        strangers = first & (rows["impressions"] > people.totals[places, SHOWN])
        people.seen[places] = True
        for watched in self._going_on():
            begins = (watched.exposed_arm[places] != OUTSIDE) & (rows["time_ms"] >= watched.exposed_ms[places])
            if len(at := places[begins]):
                mixed = strangers[begins] | (first[begins] & watched.had_been_shown(at))
                watched.begin(at, people.totals[: people.number], now[begins], rows["time_ms"][begins], mixed)
            watched.cross(places, rows["time_ms"])
        people.totals[places] = now

    def awaits(self, users: Collection[bytes]) -> bool:
        """Whether one of ``users`` waits for the row that holds their exposure: each of their rows is to be taken."""
        if not users:
            return False
        places = self.people.known(ids_of([*users]))
        places = places[places != MISSING]
        return any((watched.exposed_arm[places] != OUTSIDE).any() for watched in self._going_on())

    def _places(self, ids: Ids) -> Ints:
        """Places of people; makes room for them in every experiment."""
        left = self.people.left
        if self._may_give_up and left < len(ids) and left < np.count_nonzero(self.people.known(ids) == MISSING):
            self._give_up()
        places = self.people.places(ids)
        for watched in self._going_on():
            watched.grow(self.people.room)
        return places

    def _give_up(self) -> None:
        """Free places of idle people who are in no experiment: visitors of the past would keep newer ones out of all.

        If they come back, their past is what they do from then on.
        """
        others = self.people.idle()
        for watched in self._going_on():
            others &= ~watched.holds(len(others))
        self._may_give_up = int(others.sum()) > ROOM
        self.people.forget(self.people.ids[np.flatnonzero(others)[:ROOM]])

    # --- who leaves ----------------------------------------------------------------------------------------

    @property
    def erased(self) -> Watermarks:
        """Up to when each user's events are forgotten, by the lanes' changelogs and people's requests."""
        return self._gate.watermarks

    def settle(self, requests: Iterable[Request], upto: int) -> None:
        """Meet people's requests on the control topic; afterwards all before the offset ``upto`` have been met.

        The lanes do likewise (`streams.privacy.requests`), later: until then rows of these people may still come.
        """
        gone = []
        for request in requests:
            user = request.user_id.encode()
            if isinstance(request, Consent) and request.granted:
                self.erased.agree(user, request)
                continue
            gone.append(user)
            self.erased.raise_to(user, request.time_ms)
        self.bound()
        self.forget(gone)
        self.settled = upto

    def bound(self) -> None:
        """Drop watermarks beyond their bound. There is no changelog to tell, so their changes are discarded."""
        self._gate.bound()
        for _ in self.erased.changes():
            pass

    def begin_anew(self, users: Sequence[bytes]) -> None:
        """Learn that rows have expired, as of idle people: what the rows counted stays."""
        if users:
            self.people.begin_anew(ids_of(users))
            self._may_give_up = True

    def forget(self, users: Sequence[bytes]) -> None:
        """Let people leave every experiment, as if they had never come."""
        if not users:
            return
        ids = ids_of(users)
        gone = frozenset(ids.tolist())
        self.latest = {event: person for event, person in self.latest.items() if person not in gone}
        if not len(places := self.people.forget(ids)):
            return
        for watched in self._going_on():
            watched.forget(places)
        self.credits.forget(set(places.tolist()))

    # --- what it shows -------------------------------------------------------------------------------------

    def look(self, judged_ms: int = 0, idle: Collection[str] = ()) -> list[Watched]:
        """Judge every running experiment; a stopped one keeps its last look. Returns those that have a look.

        ``judged_ms``: the time up to which all that people did has been read, which reports tell; 0: not known. Days
        of value end there: a row may be dated a year ahead, as its worker's clock once was.
        ``idle``: names of experiments in which workers let nobody take part, which are neither judged nor returned
        while they run.

        What users do after the end counts for the shop's own policy. An experiment that ended before any look has none.
        """
        found = {
            number: one
            for number, one in self.watched.items()
            if one.setting.status != "running" or one.setting.experiment not in idle
        }
        until_ms = min(self.now_ms, judged_ms or self.now_ms)
        for watched in found.values():
            if watched.setting.status == "running":
                watched.judged_ms = judged_ms
                watched.unwatched = self.people.unwatched - watched.unwatched_before
                watched.score = watched.duel.score() if watched.duel else None
                cohort = (
                    watched.experiment.cohort(self.people.ids[: self.people.number]) if watched.allocation else None
                )
                totals = self.people.totals[: self.people.number]
                watched.last = watched.trial.look(totals, cohort, watched.days(until_ms))
        return [found[number] for number in sorted(found) if found[number].last is not None]
